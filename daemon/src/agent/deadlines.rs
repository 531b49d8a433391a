//! The session's deadlines, and what it does when one has passed.

use std::time::Instant;

use super::note::Note;
use super::session::Session;
use super::states::{Action, Answer, Next, State};

impl Session {
    /// When [`Event::Tick`](super::session::Event::Tick) is wanted, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed { reopen_at } => reopen_at,
            State::Freezing { give_up_at, .. } => give_up_at,
            State::ManualFreezing { give_up_at, .. } => give_up_at,
            State::Held { until } | State::ManualHeld { until, .. } => Some(until),
            State::Ready => self.free_to_retire_at(),
            State::Checking { .. }
            | State::Thawing { .. }
            | State::ManualThawing { .. }
            | State::Stopped => None,
        }
    }

    pub(super) fn tick(&mut self, now: Instant) -> Vec<Action> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return vec![];
        }
        match self.state {
            State::Closed { .. } => {
                self.state = State::Closed { reopen_at: None };
                vec![Action::OpenChannel]
            }
            State::Freezing { next, .. } => {
                self.state = State::Freezing {
                    give_up_at: None,
                    next,
                };
                let note = Note::FreezeLimit(self.limits.freeze_request);
                vec![Action::Note(note), Action::AbortFreeze]
            }
            State::Held { .. } => {
                self.ended_early = true;
                self.state = State::Thawing {
                    answer: Answer::None,
                    next: Next::Ready,
                };
                vec![Action::Note(Note::HoldLimit(self.hold)), Action::StartThaw]
            }
            State::ManualFreezing { .. } => {
                let note = Note::FreezeLimit(self.limits.freeze_request);
                let mut actions = vec![Action::Note(note)];
                actions.extend(self.end_manual(Next::Ready));
                actions
            }
            State::ManualHeld { .. } => self.end_manual(Next::Ready),
            _ => vec![],
        }
    }
}
