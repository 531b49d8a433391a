//! Freezes that do not return because somebody sleeps in a write: who that is, and an end to it.
//!
//! FIFREEZE waits for everyone who has begun to write, and all other writers wait behind it. A sleeper is interrupted, and then waits for the
//! thaw like the others; so the freeze goes through, or, where it was given up, is undone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::faults;
use super::signal::{Signal, Waited};
use super::slot::Slot;
use super::writers::{InterruptOutcome, InterruptedWriter, Search, WriterRules, Writers};
use crate::config::Config;
use crate::filesystems::DeviceNumber;

/// A freeze that returns by itself mostly does within this time.
const INTERRUPT_AFTER: Duration = Duration::from_millis(200);

/// As long as it has not returned, sleepers are interrupted again after this time.
const INTERRUPT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a freeze that was given up may take to return once its sleepers have been interrupted.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Said where nobody is found who holds a freeze up.
pub(super) const NOBODY: &str = "its device may be stuck";

/// Waits for the freezes of a stage. Of the `writers` found before the first freeze those are interrupted who hold one of them up: opens nothing.
pub(super) fn wait_for<B: Backend>(
    stage: &[Arc<Slot<B>>],
    writers: &Writers,
    signal: &Signal,
    deadline: Instant,
) -> Waited {
    let idle = || stage.iter().all(|slot| slot.running().is_none());
    let mut next = Instant::now() + INTERRUPT_AFTER;
    loop {
        match signal.wait(next.min(deadline), true, idle) {
            Waited::TimedOut if next < deadline => {}
            waited => return waited,
        }
        faults::reach("waiting");
        for slot in stage.iter().filter(|slot| slot.running().is_some()) {
            tell(&writers.interrupt(slot.target().dev));
        }
        next = Instant::now() + INTERRUPT_INTERVAL;
    }
}

/// Looks anew for those who hold up freezes that were given up, interrupts them, and waits for the freezes to return. To be called when nothing
/// else of ours is frozen. Those whom it found, and what became of them, each in a sentence.
pub(super) fn release<B: Backend>(
    slots: &[&Arc<Slot<B>>],
    backend: &B,
    signal: &Signal,
) -> Vec<String> {
    let stuck: Vec<_> = slots.iter().filter(|slot| slot.is_undoing()).collect();
    if stuck.is_empty() {
        return Vec::new();
    }
    let devices: Vec<_> = stuck.iter().map(|slot| slot.target().dev).collect();
    let writers = backend.writers(&devices);
    let mut found = Vec::new();
    for dev in devices {
        let outcomes = writers.interrupt(dev);
        tell(&outcomes);
        let holding = outcomes.iter().filter(|outcome| holds(outcome));
        found.extend(holding.map(ToString::to_string));
    }
    if !found.is_empty() {
        let idle = || stuck.iter().all(|slot| !slot.is_undoing());
        let _ = signal.wait(Instant::now() + RELEASE_TIMEOUT, false, idle);
    }
    found
}

/// For whoever has no engine: looks for those who hold up freezes of these superblocks, and interrupts them, by the rules of the system's configuration;
/// without one that can be used nobody is left alone.
pub(super) fn interrupt(devices: &[DeviceNumber]) {
    let rules = WriterRules::from(&Config::load(None).unwrap_or_default());
    let writers = Writers::gather(&Search::of(devices, rules));
    for dev in devices {
        tell(&writers.interrupt(*dev));
    }
}

/// Those of `writers` who hold up a freeze of this file system now, in words; or that nobody is known to.
pub(super) fn cause<B: Backend>(slot: &Slot<B>, writers: &Writers) -> String {
    let asleep = writers
        .of(slot.target().dev)
        .filter(|writer| writer.is_asleep());
    let asleep: Vec<_> = asleep.map(ToString::to_string).collect();
    if asleep.is_empty() {
        NOBODY.to_owned()
    } else {
        asleep.join("; ")
    }
}

/// Whether it held up the freeze.
fn holds(outcome: &InterruptedWriter<'_>) -> bool {
    !matches!(
        outcome.outcome,
        InterruptOutcome::Gone | InterruptOutcome::WaitsForThaw
    )
}

/// Into the log, or its buffer: something was done to somebody else's process.
fn tell(outcomes: &[InterruptedWriter<'_>]) {
    for outcome in outcomes {
        if matches!(
            outcome.outcome,
            InterruptOutcome::Interrupted | InterruptOutcome::StoppedAndContinued
        ) {
            tracing::warn!("{outcome}, since a freeze waited for it");
        }
    }
}
