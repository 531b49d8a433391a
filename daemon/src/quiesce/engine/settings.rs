//! What an engine is given: its limits and rules, its guardian, its applications.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::config::{ForeignFreeze, Strictness};
use crate::hooks::Applications;
use crate::quiesce::backend::Backend;
use crate::quiesce::guardian::Guard;
use crate::quiesce::ledger::Place;

/// Bounds on the phases before the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All flush passes together.
    pub flush: Duration,
    /// From the first `FIFREEZE` to the last one's return.
    pub freeze: Duration,
    /// From there to the first thaw. Kept by the caller; the guardian acts when it does not.
    pub hold: Duration,
}

impl<B: Backend> Engine<B> {
    /// With someone to thaw should this process die, and a record for the next start.
    #[must_use]
    pub fn guarded(mut self, guard: Box<dyn Guard>, place: Place) -> Self {
        self.guard = Some(guard);
        self.place = place;
        self
    }

    /// With another rule for what someone else has frozen.
    #[must_use]
    pub fn foreign_freeze(mut self, rule: ForeignFreeze) -> Self {
        self.foreign = rule;
        self
    }

    /// With applications to bring to rest; what they owe already is thawed before the next freeze.
    #[must_use]
    pub fn with_applications(mut self, applications: Arc<dyn Applications>) -> Self {
        self.set_applications(applications);
        self
    }

    /// As [`Engine::with_applications`], between checkpoints.
    pub fn set_applications(&mut self, applications: Arc<dyn Applications>) {
        self.applications.replace(applications);
    }

    /// With another rule for what cannot be frozen. [`Strictness::FlushOnly`] needs a backend that plans accordingly.
    #[must_use]
    pub fn strictness(mut self, rule: Strictness) -> Self {
        self.strictness = rule;
        self
    }

    /// Puts another configuration in force, for the next checkpoint; to be called while nothing is held.
    pub fn configure(
        &mut self,
        backend: B,
        limits: Limits,
        foreign: ForeignFreeze,
        strictness: Strictness,
    ) {
        // What is left over of an earlier checkpoint is thawed through the new one: its handles are as good.
        self.backend = Arc::new(backend);
        self.limits = limits;
        self.foreign = foreign;
        self.strictness = strictness;
    }
}
