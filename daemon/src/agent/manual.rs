//! The session's part that the host knows nothing of: a freeze that a person asked for.
//!
//! It ends at its time, with its person's connection, with the channel to the driver, and with the process; always by
//! [`Action::StartThaw`].

use std::time::{Duration, Instant};

use super::note::Note;
use super::session::Session;
use super::states::{Action, Answer, Busy, Next, State};

impl Session {
    pub(super) fn manual_freeze(&mut self, hold: Duration, now: Instant) -> Vec<Action> {
        let busy = match self.state {
            State::Ready if !self.is_promised(now) => None,
            State::Closed { reopen_at: Some(_) } => None,
            State::Closed { reopen_at: None } => Some(Busy::Opening),
            State::Ready
            | State::Checking { .. }
            | State::Freezing { .. }
            | State::Held { .. }
            | State::Thawing { .. } => Some(Busy::Host),
            State::ManualFreezing { .. }
            | State::ManualHeld { .. }
            | State::ManualThawing { .. } => Some(Busy::Manual),
            State::Stopped => Some(Busy::Ending),
        };
        if let Some(busy) = busy {
            return vec![Action::RefuseManual(busy)];
        }
        self.state = State::ManualFreezing {
            give_up_at: Some(now + self.limits.freeze_request),
            hold: hold.min(self.limits.hold),
            next: if self.open { Next::Ready } else { Next::Closed },
        };
        vec![Action::StartManualFreeze]
    }

    pub(super) fn manual_frozen(
        &mut self,
        give_up_at: Option<Instant>,
        hold: Duration,
        next: Next,
        now: Instant,
    ) -> Vec<Action> {
        if give_up_at.is_some_and(|limit| now < limit) {
            let until = now + hold;
            self.state = State::ManualHeld { until, next };
            return vec![Action::ManualHeld(hold)];
        }
        // Aborted too late to stop it.
        self.state = State::ManualThawing { next };
        vec![Action::StartThaw]
    }

    /// Ends what a person asked for; what the host asked for goes on.
    pub(super) fn manual_end(&mut self) -> Vec<Action> {
        self.end_manual(Next::Ready)
    }

    /// Ends whatever is at work, the host's checkpoint too.
    pub(super) fn thaw_now(&mut self) -> Vec<Action> {
        let note = Action::Note(Note::ThawnByOperator);
        match self.state {
            State::Held { .. } => {
                self.ended_early = true;
                self.state = State::Thawing {
                    answer: Answer::None,
                    next: Next::Ready,
                };
                vec![note, Action::StartThaw]
            }
            State::Freezing {
                give_up_at: Some(_),
                next,
            } => {
                self.state = State::Freezing {
                    give_up_at: None,
                    next,
                };
                vec![note, Action::AbortFreeze]
            }
            _ => self.manual_end(),
        }
    }

    /// Ends a manual freeze, whichever way it has come, and goes on to `then` or what was decided before.
    pub(super) fn end_manual(&mut self, then: Next) -> Vec<Action> {
        match self.state {
            State::ManualFreezing {
                give_up_at,
                hold,
                next,
            } => {
                self.state = State::ManualFreezing {
                    give_up_at: None,
                    hold,
                    next: next.max(then),
                };
                give_up_at
                    .map(|_| Action::AbortFreeze)
                    .into_iter()
                    .collect()
            }
            State::ManualHeld { next, .. } => {
                self.state = State::ManualThawing {
                    next: next.max(then),
                };
                vec![Action::StartThaw]
            }
            State::ManualThawing { next } => {
                self.state = State::ManualThawing {
                    next: next.max(then),
                };
                vec![]
            }
            _ => vec![],
        }
    }
}
