//! What an agent has done since its start: counters, and the last checkpoints, within bounds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cause::Cause;
use crate::quiesce::Report;
use crate::quiesce::report::{AskedBy, PhaseName};

/// How many checkpoints are kept.
pub const MOST_CHECKPOINTS: usize = 16;

/// How many file systems of each are kept: those that went wrong, and those that writers waited for longest.
pub const MOST_FILE_SYSTEMS: usize = 24;

/// What was done since the start of the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// HOT_BACKUP that was answered with success.
    pub hot_backups_promised: u64,
    /// HOT_BACKUP that was answered with failure.
    pub hot_backups_refused: u64,
    /// Checkpoints of the host.
    pub host: Outcomes,
    /// Freezes by hand.
    pub manual: Outcomes,
    /// Why checkpoints failed, of both.
    pub failures: BTreeMap<Cause, u64>,
    /// Holds that ended before the host, or the person's time, had ended them.
    pub holds_ended_early: u64,
    /// How often the channel to the driver was lost.
    pub channel_losses: u64,
    /// Seconds spent in each phase.
    pub phase_seconds: BTreeMap<PhaseName, f64>,
    /// The longest that a write could have had to wait for freeze and thaw, as far as is known: not what the flush costs.
    pub worst_stall: Option<WorstStall>,
}

/// How checkpoints ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Kept to the end and thawed.
    pub succeeded: u64,
    /// Not frozen, not kept, or not thawed as it should.
    pub failed: u64,
    /// The start of the last one that succeeded, in seconds since 1970.
    pub last_success_unix: Option<f64>,
}

/// The longest stall of all checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorstStall {
    /// How long, in milliseconds.
    pub stall_ms: f64,
    /// Of which file system.
    pub mount_point: String,
    /// In which checkpoint.
    pub checkpoint: String,
}

/// The counters and the last checkpoints.
#[derive(Clone, Debug, Default)]
pub struct History {
    counters: Counters,
    checkpoints: VecDeque<Report>,
}

impl History {
    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The last checkpoints, the newest last.
    pub fn checkpoints(&self) -> impl DoubleEndedIterator<Item = &Report> {
        self.checkpoints.iter()
    }

    /// A HOT_BACKUP was looked into.
    pub fn checked(&mut self, possible: bool) {
        if possible {
            self.counters.hot_backups_promised += 1;
        } else {
            self.counters.hot_backups_refused += 1;
        }
    }

    /// The channel to the driver was lost.
    pub fn lost_channel(&mut self) {
        self.counters.channel_losses += 1;
    }

    /// A checkpoint is over; `cause` says why it failed, if it did.
    pub fn record(&mut self, mut report: Report, cause: Option<Cause>) {
        let counters = &mut self.counters;
        let outcomes = match report.asked_by {
            AskedBy::Host => &mut counters.host,
            AskedBy::Manual => &mut counters.manual,
        };
        if report.is_clean() {
            outcomes.succeeded += 1;
            outcomes.last_success_unix = Some(report.started_unix);
        } else {
            outcomes.failed += 1;
            let cause = cause.unwrap_or(Cause::Thaw);
            *counters.failures.entry(cause).or_default() += 1;
            counters.holds_ended_early += u64::from(cause == Cause::EndedEarly);
        }
        for phase in &report.phases {
            let seconds = phase.span.duration.as_secs_f64();
            *counters.phase_seconds.entry(phase.phase).or_default() += seconds;
        }
        if let Some(worst) = &report.worst_stall {
            let stall_ms = milliseconds(worst.stall);
            if counters
                .worst_stall
                .as_ref()
                .is_none_or(|before| stall_ms > before.stall_ms)
            {
                counters.worst_stall = Some(WorstStall {
                    stall_ms,
                    mount_point: worst.mount_point.clone(),
                    checkpoint: report.id.clone(),
                });
            }
        }
        report.abridge(MOST_FILE_SYSTEMS);
        if self.checkpoints.len() == MOST_CHECKPOINTS {
            self.checkpoints.pop_front();
        }
        self.checkpoints.push_back(report);
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
