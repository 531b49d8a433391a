//! From the configuration to an engine that freezes this machine: for the service, and for a freeze by hand.

use crate::config::Config;
use crate::quiesce::guardian::Guardian;
use crate::quiesce::ledger::{self, Place};
use crate::quiesce::{Engine, Kernel, Limits};
use crate::telemetry::Gate;

/// An engine that holds nothing, with its guardian and its ledger.
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
}
