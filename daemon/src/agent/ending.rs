//! The session's part for what ends: the channel to the driver, the process, a hold before its time, and the work at hand with them.

use std::time::Instant;

use super::note::Note;
use super::session::Session;
use super::states::{Action, Answer, Next, State};

impl Session {
    pub(super) fn terminate(&mut self) -> Vec<Action> {
        let during = Action::Note(Note::StoppedDuringCheckpoint);
        match self.state {
            State::Closed { .. } | State::Ready => self.stop(),
            State::Checking { .. } => {
                self.state = State::Checking {
                    next: Next::Stopped,
                };
                vec![]
            }
            State::Freezing { .. } => {
                self.state = State::Freezing {
                    give_up_at: None,
                    next: Next::Stopped,
                };
                vec![during, Action::AbortFreeze]
            }
            State::Held { .. } => {
                self.state = State::Thawing {
                    answer: Answer::None,
                    next: Next::Stopped,
                };
                vec![during, Action::StartThaw]
            }
            State::Thawing { answer, .. } => {
                self.state = State::Thawing {
                    answer,
                    next: Next::Stopped,
                };
                vec![]
            }
            State::ManualFreezing { .. }
            | State::ManualHeld { .. }
            | State::ManualThawing { .. } => self.end_manual(Next::Stopped),
            State::Stopped => vec![],
        }
    }

    /// The channel is of no use any more. Dropping it first lets the driver tell the host failure at once, and go on
    /// with its teardown, which waits for that; then whatever is frozen is thawed.
    pub(super) fn lose_channel(&mut self, note: Note, now: Instant) -> Vec<Action> {
        if !std::mem::take(&mut self.open) {
            return vec![];
        }
        let mut actions = vec![Action::Note(note), Action::CloseChannel];
        match self.state {
            State::Closed { .. } | State::Stopped => {}
            State::Ready => actions.extend(self.go(Next::Closed, now)),
            State::Checking { next } => {
                self.state = State::Checking {
                    next: next.max(Next::Closed),
                };
            }
            State::Freezing { next, give_up_at } => {
                self.state = State::Freezing {
                    give_up_at: None,
                    next: next.max(Next::Closed),
                };
                if give_up_at.is_some() {
                    actions.push(Action::AbortFreeze);
                }
            }
            State::Held { .. } => {
                self.state = State::Thawing {
                    answer: Answer::None,
                    next: Next::Closed,
                };
                actions.push(Action::StartThaw);
            }
            State::Thawing { next, .. } => {
                self.state = State::Thawing {
                    answer: Answer::None,
                    next: next.max(Next::Closed),
                };
            }
            State::ManualFreezing { .. }
            | State::ManualHeld { .. }
            | State::ManualThawing { .. } => actions.extend(self.end_manual(Next::Closed)),
        }
        actions
    }

    /// Success was to be told, and was not: what is left of the hold ends.
    pub(super) fn hold_broken(&mut self) -> Vec<Action> {
        let note = Action::Note(Note::HoldBroken);
        match self.state {
            State::Held { .. } => {
                self.state = State::Thawing {
                    answer: Answer::None,
                    next: Next::Ready,
                };
                vec![note, Action::StartThaw]
            }
            State::ManualHeld { .. } => {
                let mut actions = vec![note];
                actions.extend(self.end_manual(Next::Ready));
                actions
            }
            _ => vec![],
        }
    }

    pub(super) fn go(&mut self, next: Next, now: Instant) -> Vec<Action> {
        match next {
            Next::Ready => {
                self.state = State::Ready;
                vec![]
            }
            Next::Closed => {
                self.ended_early = false;
                self.promised_at = None;
                self.state = State::Closed {
                    reopen_at: Some(self.backoff.next(now)),
                };
                vec![]
            }
            Next::Stopped => self.stop(),
        }
    }

    pub(super) fn stop(&mut self) -> Vec<Action> {
        self.state = State::Stopped;
        self.open = false;
        vec![Action::CloseChannel, Action::Exit]
    }
}
