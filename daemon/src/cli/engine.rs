//! From the configuration to an engine that freezes this machine: for the service, and for a freeze by hand.

use std::sync::Arc;

use crate::config::Config;
use crate::confine;
use crate::hooks::{self, Hooks};
use crate::quiesce::guardian::Guardian;
use crate::quiesce::ledger::{self, Place};
use crate::quiesce::{Engine, Kernel, Limits};
use crate::telemetry::Gate;

/// An engine that holds nothing, with its guardian, its ledger and the hooks of this machine. For whoever holds the agent's lock.
pub(super) fn engine(
    config: &Config,
    limits: Limits,
    guardian: Guardian,
    gate: Gate,
) -> Engine<Kernel> {
    let mut kernel = Kernel::new(super::plan::policy(config));
    if config.expedite {
        kernel = kernel.expedited();
    }
    if config.write_back {
        kernel = kernel.writing_back_first();
    }
    Engine::new(kernel, limits, gate)
        .guarded(Box::new(guardian), Place::File(ledger::DEFAULT_PATH.into()))
        .foreign_freeze(config.foreign_freeze)
        .with_applications(Arc::new(Hooks::new(&config.hooks).recovering()))
}

/// Gives up what the engine's process does not need, and the hooks that it starts do not either.
pub(super) fn confine(config: &Config) {
    if hooks::runs_systemd() || !config.hooks.enabled {
        confine::confine(&confine::AGENT);
    } else {
        confine::confine_but_children(&confine::AGENT);
    }
}
