//! From the configuration to an engine that freezes this machine: for the service, and for a freeze by hand.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::confine;
use crate::hooks::{self, Hooks};
use crate::quiesce::guardian::Guardian;
use crate::quiesce::ledger::{self, Place};
use crate::quiesce::writers::WriterRules;
use crate::quiesce::{Engine, Kernel, Limits};
use crate::telemetry::Gate;

/// An engine that holds nothing, with its guardian, its ledger and the hooks of this machine. For whoever holds the agent's lock.
pub(super) fn engine(
    config: &Config,
    limits: Limits,
    guardian: Guardian,
    gate: Gate,
) -> Engine<Kernel> {
    Engine::new(kernel(config), limits, gate)
        .guarded(Box::new(guardian), Place::File(ledger::DEFAULT_PATH.into()))
        .foreign_freeze(config.foreign_freeze)
        .strictness(config.strictness)
        .with_applications(Arc::new(Hooks::new(&config.hooks).recovering()))
}

/// Puts another configuration in force in an engine that holds nothing.
pub(super) fn configure(engine: &mut Engine<Kernel>, config: &Config) {
    engine.configure(
        kernel(config),
        limits(config),
        config.foreign_freeze,
        config.strictness,
    );
    engine.set_applications(Arc::new(Hooks::new(&config.hooks)));
}

/// The engine's share of the limits.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        flush: Duration::from_secs(config.limits.flush),
        freeze: Duration::from_secs(config.limits.freeze),
        hold: Duration::from_secs(config.limits.hold),
    }
}

fn kernel(config: &Config) -> Kernel {
    let mut kernel = Kernel::new(super::plan::policy(config))
        .with_writers(WriterRules::from(config))
        .ignoring_hung_task_panic(config.limits.ignore_hung_task_panic);
    if config.expedite {
        kernel = kernel.expedited();
    }
    if config.write_back {
        kernel = kernel.writing_back_first();
    }
    kernel
}

/// Gives up what the engine's process does not need, and the hooks that it starts do not either. A reload may bring hooks to one that has none.
pub(super) fn confine() {
    if hooks::runs_systemd() {
        confine::confine(&confine::AGENT);
    } else {
        confine::confine_but_children(&confine::AGENT);
    }
}
