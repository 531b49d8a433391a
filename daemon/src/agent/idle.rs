//! The session's part for what waits until no checkpoint is under way: reading the configuration again, and making way
//! for a new program.

use std::time::{Duration, Instant};

use super::session::Session;
use super::states::{Action, State};

/// The host's FREEZE follows its HOT_BACKUP at once; what would come in between makes it fail.
pub(super) const PROMISE: Duration = Duration::from_secs(10);

/// What is to be done as soon as nothing is frozen, and nothing is being done that leads there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    /// The configuration is to be read again.
    reload: bool,
    /// The process is to end.
    retire: bool,
}

impl Session {
    pub(super) fn wish_reload(&mut self) -> Vec<Action> {
        self.wishes.reload = true;
        vec![]
    }

    pub(super) fn wish_retirement(&mut self) -> Vec<Action> {
        self.wishes.retire = true;
        vec![]
    }

    /// What may be done now that was put off.
    pub(super) fn once_idle(&mut self, now: Instant) -> Vec<Action> {
        if !matches!(self.state, State::Ready | State::Closed { .. }) {
            return vec![];
        }
        if self.wishes.retire && !self.is_promised(now) {
            return self.stop();
        }
        if std::mem::take(&mut self.wishes.reload) {
            return vec![Action::StartReload];
        }
        vec![]
    }

    /// The host was just told that it can freeze.
    pub(super) fn is_promised(&self, now: Instant) -> bool {
        self.promised_at.is_some_and(|at| now < at + PROMISE)
    }

    /// When the host's FREEZE is no longer waited for, if that is all that the end of the process waits for.
    pub(super) fn free_to_retire_at(&self) -> Option<Instant> {
        let promised_at = self.promised_at.filter(|_| self.wishes.retire)?;
        Some(promised_at + PROMISE)
    }
}
