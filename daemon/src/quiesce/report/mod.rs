//! What a checkpoint did, and how long each part of it took: for the log, `status` and `freeze --report`.

mod file_systems;
mod hooks;
mod lines;
mod millis;
mod phases;

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

pub use self::file_systems::{FileSystemReport, FileSystemResult, WorstStall};
pub use self::hooks::{HookOperation, HookReport};
pub(in crate::quiesce) use self::lines::count;
pub use self::phases::{Phase, PhaseName, Span};
use super::slot::Call;
use crate::telemetry;

/// One checkpoint, from the request to the last thaw; also one whose freeze failed.
///
/// As JSON, times in milliseconds, those that begin something counted from the request on:
/// ```json
/// {
///   "id": "20261122-024126-123456", "started": "2026-11-22T02:41:26.123456Z", "started_unix": 1795315286.123,
///   "asked_by": "host", "outcome": "success", "flush_only": false, "failures": [], "attempts": 1,
///   "phases": [{"phase": "prepare", "start_ms": 0.0, "duration_ms": 1.25}],
///   "file_systems": [
///     {"mount_point": "/", "fstype": "ext4", "dev": "8:1", "source": "/dev/sda1", "stage": 1, "result": "frozen",
///      "flush": {"start_ms": 1.3, "duration_ms": 0.4}, "freeze": {"start_ms": 2.0, "duration_ms": 3.1},
///      "thaw": {"start_ms": 5005.2, "duration_ms": 0.1}, "stall_ms": 3.3}
///   ],
///   "file_systems_omitted": 0,
///   "worst_stall": {"mount_point": "/", "dev": "8:1", "stall_ms": 3.3},
///   "hooks": []
/// }
/// ```
/// `unseen`, a list of sentences, is there when a file system may be missing without being listed. Bytes of a path that are not UTF-8 are replaced by U+FFFD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Names this checkpoint: its start in UTC, to the microsecond.
    pub id: String,
    /// The start in UTC (RFC 3339).
    pub started: String,
    /// The same in seconds since 1970.
    pub started_unix: f64,
    /// Who wanted it.
    pub asked_by: AskedBy,
    /// How it ended.
    pub outcome: Outcome,
    /// Nothing was to be frozen: a success means that everything was flushed, and that the image is crash-consistent.
    #[serde(default)]
    pub flush_only: bool,
    /// What went wrong, one sentence each: why the freeze failed, or what did in the thaw.
    pub failures: Vec<String>,
    /// What may be missing in the image without being listed: what could not be looked at, and what was mounted during the freeze and cannot be frozen;
    /// a sentence for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// How often the freeze was begun; more than once when a file system appeared meanwhile.
    pub attempts: u32,
    /// In their order; those of every attempt, and a flush for every pass.
    pub phases: Vec<Phase>,
    /// Those of the last attempt, in freeze order; then what was only flushed, and what was left out although it should be held.
    pub file_systems: Vec<FileSystemReport>,
    /// File systems left out of the list by [`Report::abridge`].
    pub file_systems_omitted: usize,
    /// The longest stall of all, over every attempt.
    pub worst_stall: Option<WorstStall>,
    /// The hooks that were run, in their order.
    pub hooks: Vec<HookReport>,
    /// What all starts are counted from.
    #[serde(skip, default = "Instant::now")]
    begun: Instant,
}

/// Who wanted a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AskedBy {
    /// The Hyper-V host.
    #[default]
    Host,
    /// An operator: `hv-vssd freeze`.
    Manual,
}

/// How a checkpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was frozen by us to the end, and is thawed; or nothing was to be frozen, and everything was flushed.
    Success,
    /// Something went wrong: the failures say what.
    Failure,
}

impl Report {
    /// A checkpoint that begins now.
    #[must_use]
    pub fn begin(asked_by: AskedBy) -> Self {
        let started = telemetry::log::now();
        Self {
            id: id(&started),
            started,
            started_unix: SystemTime::UNIX_EPOCH
                .elapsed()
                .map_or(0.0, |time| millis::to_number(time) / 1e3),
            asked_by,
            outcome: Outcome::Success,
            flush_only: false,
            failures: Vec::new(),
            unseen: Vec::new(),
            attempts: 0,
            phases: Vec::new(),
            file_systems: Vec::new(),
            file_systems_omitted: 0,
            worst_stall: None,
            hooks: Vec::new(),
            begun: Instant::now(),
        }
    }

    /// Everything was frozen by us to the end, and is thawed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.outcome == Outcome::Success
    }

    /// What went wrong in the attempt before, and could be put right, does not count any more.
    pub(in crate::quiesce) fn begin_attempt(&mut self, number: u32) {
        self.attempts = number;
        self.outcome = Outcome::Success;
        self.failures.clear();
    }

    /// Notes what went wrong; the checkpoint has failed.
    pub fn fail(&mut self, sentence: String) {
        self.outcome = Outcome::Failure;
        self.failures.push(sentence);
    }

    /// What began at `from` and lasted till `to`, as this report counts time.
    #[must_use]
    pub fn span(&self, from: Instant, to: Instant) -> Span {
        Span {
            start: from.saturating_duration_since(self.begun),
            duration: to.saturating_duration_since(from),
        }
    }

    /// Notes a phase that began at `from` and ends now.
    pub fn phase(&mut self, phase: PhaseName, from: Instant) {
        let span = self.span(from, Instant::now());
        self.phases.push(Phase { phase, span });
    }

    /// The last phase of this name; `None` when none was reached.
    #[must_use]
    pub fn last(&self, name: PhaseName) -> Option<Span> {
        let mut found = self.phases.iter().rev();
        found
            .find(|phase| phase.phase == name)
            .map(|phase| phase.span)
    }

    /// The time spent in all phases of this name.
    #[must_use]
    pub fn total(&self, name: PhaseName) -> Duration {
        let found = self.phases.iter().filter(|phase| phase.phase == name);
        found.map(|phase| phase.span.duration).sum()
    }

    /// The file systems that someone else had frozen, and that were left to them.
    pub fn foreign(&self) -> impl Iterator<Item = &FileSystemReport> {
        let is_foreign = |fs: &&FileSystemReport| fs.result == FileSystemResult::Foreign;
        self.file_systems.iter().filter(is_foreign)
    }

    /// Keeps at most `most` file systems, those that went wrong and those that stalled longest, and as many failures; for whoever keeps
    /// many reports.
    pub fn abridge(&mut self, most: usize) {
        self.failures.truncate(most);
        self.unseen.truncate(most);
        let Some(omitted) = self.file_systems.len().checked_sub(most) else {
            return;
        };
        self.file_systems
            .sort_by_key(|fs| std::cmp::Reverse((fs.went_wrong(), fs.stall)));
        self.file_systems.truncate(most);
        self.file_systems.sort_by_key(|fs| {
            (
                fs.stage.unwrap_or(usize::MAX),
                fs.freeze.map(|freeze| freeze.start),
            )
        });
        self.file_systems.shrink_to_fit();
        self.file_systems_omitted += omitted;
    }

    /// A call's time, as this report counts it.
    pub(in crate::quiesce) fn call(&self, call: Option<Call>) -> Option<Span> {
        call.map(|call| self.span(call.at, call.at + call.took))
    }

    /// How long a write to it could have had to wait for freeze and thaw, as far as is known now.
    pub(in crate::quiesce) fn stall(&self, fs: &FileSystemReport) -> Option<Duration> {
        let freeze = fs.freeze?;
        let end = match fs.result {
            FileSystemResult::FlushedOnly
            | FileSystemResult::LeftOut
            | FileSystemResult::Foreign => return None,
            FileSystemResult::NotFrozen => freeze.end(),
            FileSystemResult::Frozen => fs.thaw?.end(),
            FileSystemResult::Stuck | FileSystemResult::StillFrozen => self.begun.elapsed(),
        };
        let hold = self.last(PhaseName::Hold);
        let held = hold.filter(|hold| hold.start >= freeze.start);
        let held = held.map_or(Duration::ZERO, |hold| hold.duration);
        Some(end.saturating_sub(freeze.start).saturating_sub(held))
    }

    /// Puts in place what is known of the file systems of this attempt.
    pub(in crate::quiesce) fn set_file_systems(&mut self, file_systems: Vec<FileSystemReport>) {
        for fs in &file_systems {
            let Some(stall) = fs.stall else {
                continue;
            };
            if self
                .worst_stall
                .as_ref()
                .is_none_or(|worst| stall > worst.stall)
            {
                self.worst_stall = Some(WorstStall {
                    mount_point: fs.mount_point.clone(),
                    dev: fs.dev,
                    stall,
                });
            }
        }
        self.file_systems = file_systems;
    }
}

/// The digits of a time, in groups: also good for a file's name.
fn id(started: &str) -> String {
    let digits: Vec<char> = started.chars().filter(char::is_ascii_digit).collect();
    let groups = [digits.get(..8), digits.get(8..14), digits.get(14..)];
    let groups: Vec<String> = groups
        .into_iter()
        .flatten()
        .map(String::from_iter)
        .collect();
    groups.join("-")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
