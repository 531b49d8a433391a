//! The protocol with the host as a pure state machine: (state, event, now) → actions.
//!
//! No I/O and no clock in here. Every path from a frozen state leads over [`Action::StartThaw`]; the graph with the
//! same names is drawn in ARCHITECTURE.md.

use std::time::{Duration, Instant};

use hvutil_sys::vss::{Operation, Status};

use super::backoff::Backoff;
use super::idle::Wishes;
use super::note::Note;
pub use super::states::{Action, Answer, Busy, Event, Limits, Next, State};

/// The state machine.
#[derive(Debug)]
pub struct Session {
    pub(super) state: State,
    pub(super) limits: Limits,
    /// How long the last hold could last.
    pub(super) hold: Duration,
    pub(super) backoff: Backoff,
    /// There is a channel to reply on.
    pub(super) open: bool,
    /// The last hold ended before the host asked for THAW.
    pub(super) ended_early: bool,
    /// When the host was told that it can freeze: its FREEZE follows.
    pub(super) promised_at: Option<Instant>,
    /// What waits until no checkpoint is under way.
    pub(super) wishes: Wishes,
}

impl Session {
    /// A session without a channel, which wants one now.
    #[must_use]
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            state: State::Closed {
                reopen_at: Some(now),
            },
            limits,
            hold: limits.hold,
            backoff: Backoff::default(),
            open: false,
            ended_early: false,
            promised_at: None,
            wishes: Wishes::default(),
        }
    }

    /// Where the agent stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes one event at time `now`; the actions are to be done in their order.
    #[must_use]
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = match event {
            Event::Opened => self.opened(),
            Event::OpenFailed => self.open_failed(now),
            Event::Request(operation) => self.request(operation, now),
            Event::Malformed(length) => self.lose_channel(Note::Malformed(length), now),
            Event::ChannelLost => self.lose_channel(Note::ChannelLost, now),
            Event::ReplyFailed => self.lose_channel(Note::ReplyRefused, now),
            Event::Checked { possible } => self.checked(possible, now),
            Event::Frozen { hold } => self.frozen(hold, now),
            Event::FreezeFailed => self.freeze_failed(now),
            Event::HoldBroken => self.hold_broken(),
            Event::Thawed { clean } => self.thawed(clean, now),
            Event::Reload => self.wish_reload(),
            Event::Retire => self.wish_retirement(),
            Event::Reloaded { limits } => {
                self.limits = limits;
                vec![]
            }
            Event::ManualFreeze { hold } => self.manual_freeze(hold, now),
            Event::ManualEnd => self.manual_end(),
            Event::ThawNow => self.thaw_now(),
            Event::Terminate => self.terminate(),
            Event::Tick => self.tick(now),
        };
        actions.extend(self.once_idle(now));
        actions
    }

    fn opened(&mut self) -> Vec<Action> {
        if let State::Closed { .. } = self.state {
            self.state = State::Ready;
            self.open = true;
            return vec![];
        }
        // A channel that came too late to be of use.
        vec![Action::CloseChannel]
    }

    fn open_failed(&mut self, now: Instant) -> Vec<Action> {
        if let State::Closed { .. } = self.state {
            self.state = State::Closed {
                reopen_at: Some(self.backoff.next(now)),
            };
        }
        vec![]
    }

    fn request(&mut self, operation: Operation, now: Instant) -> Vec<Action> {
        match self.state {
            State::Ready => self.request_when_ready(operation, now),
            State::Held { .. } if operation == Operation::THAW => {
                self.state = State::Thawing {
                    answer: Answer::Truth,
                    next: Next::Ready,
                };
                vec![Action::StartThaw]
            }
            State::Thawing {
                answer: Answer::None,
                next,
            } if operation == Operation::THAW => {
                self.state = State::Thawing {
                    answer: Answer::Failure,
                    next,
                };
                vec![]
            }
            State::Held { .. }
            | State::Thawing {
                answer: Answer::None,
                ..
            } => refuse(operation, Note::RefusedWhileHeld(operation)),
            State::Checking { .. } | State::Freezing { .. } | State::Thawing { .. } => {
                self.lose_channel(Note::OutOfStep(operation), now)
            }
            State::ManualFreezing { .. }
            | State::ManualHeld { .. }
            | State::ManualThawing { .. } => {
                refuse(operation, Note::RefusedInManualFreeze(operation))
            }
            State::Closed { .. } | State::Stopped => vec![],
        }
    }

    fn request_when_ready(&mut self, operation: Operation, now: Instant) -> Vec<Action> {
        match operation {
            Operation::HOT_BACKUP => {
                self.state = State::Checking { next: Next::Ready };
                vec![Action::StartCheck]
            }
            Operation::FREEZE => {
                self.ended_early = false;
                self.promised_at = None;
                self.state = State::Freezing {
                    give_up_at: Some(now + self.limits.freeze_request),
                    next: Next::Ready,
                };
                vec![Action::StartFreeze]
            }
            Operation::THAW if std::mem::take(&mut self.ended_early) => {
                refuse(operation, Note::ThawAfterEarlyEnd)
            }
            Operation::THAW => refuse(operation, Note::ThawWithoutHold),
            _ => refuse(operation, Note::UnknownOperation(operation)),
        }
    }

    fn checked(&mut self, possible: bool, now: Instant) -> Vec<Action> {
        let State::Checking { next } = self.state else {
            return vec![];
        };
        let status = if possible { Status::Ok } else { Status::Fail };
        self.promised_at = possible.then_some(now);
        let mut actions = self.reply(Operation::HOT_BACKUP, status);
        actions.extend(self.go(next, now));
        actions
    }

    fn frozen(&mut self, most: Duration, now: Instant) -> Vec<Action> {
        match self.state {
            State::Freezing {
                give_up_at: Some(give_up_at),
                next: Next::Ready,
            } if now < give_up_at => {
                self.hold = self.limits.hold.min(most);
                self.state = State::Held {
                    until: now + self.hold,
                };
                vec![Action::Reply(Operation::FREEZE, Status::Ok)]
            }
            // Aborted too late to stop it: thaw, and answer the FREEZE with failure right now.
            State::Freezing { next, .. } => {
                self.state = State::Thawing {
                    answer: Answer::None,
                    next,
                };
                let mut actions = vec![Action::StartThaw];
                actions.extend(self.reply(Operation::FREEZE, Status::Fail));
                actions
            }
            State::ManualFreezing {
                give_up_at,
                hold,
                next,
            } => self.manual_frozen(give_up_at, hold.min(most), next, now),
            // Never expected; but a freeze that nobody answers for must not last.
            _ => vec![Action::StartThaw],
        }
    }

    fn freeze_failed(&mut self, now: Instant) -> Vec<Action> {
        let (mut actions, next) = match self.state {
            State::Freezing { next, .. } => (self.reply(Operation::FREEZE, Status::Fail), next),
            State::ManualFreezing { next, .. } => (vec![], next),
            _ => return vec![],
        };
        actions.extend(self.go(next, now));
        actions
    }

    fn thawed(&mut self, clean: bool, now: Instant) -> Vec<Action> {
        let (answer, next) = match self.state {
            State::Thawing { answer, next } => (answer, next),
            State::ManualThawing { next } => (Answer::None, next),
            _ => return vec![],
        };
        let mut actions = match answer {
            Answer::None => vec![],
            Answer::Truth if clean => self.reply(Operation::THAW, Status::Ok),
            Answer::Truth => self.reply(Operation::THAW, Status::Fail),
            Answer::Failure => {
                self.ended_early = false;
                let mut actions = vec![Action::Note(Note::ThawAfterEarlyEnd)];
                actions.extend(self.reply(Operation::THAW, Status::Fail));
                actions
            }
        };
        actions.extend(self.go(next, now));
        actions
    }

    /// A reply, unless the channel is gone: then the driver has told the host already.
    fn reply(&self, operation: Operation, status: Status) -> Vec<Action> {
        if self.open {
            vec![Action::Reply(operation, status)]
        } else {
            vec![]
        }
    }
}

fn refuse(operation: Operation, note: Note) -> Vec<Action> {
    vec![Action::Note(note), Action::Reply(operation, Status::Fail)]
}
