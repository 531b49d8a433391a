//! What the host would get now, and why: `hv-vssd check`.
//!
//! ```text
//! /proc, /sys, /run, the control socket, a scan, the hooks' files ─ gather() → Facts ─ Report::of(&Facts) → text or JSON
//! ```
//!
//! Gathering freezes nothing, opens nothing outside /proc, /sys, /run and the directories of configuration and hooks but the root of each btrfs, in a
//! thread that is waited for 3 s at most, and waits for no file system otherwise. What follows from the
//! facts is decided without any input.

mod cause;
mod channel;
pub mod facts;
mod gather;
mod halted;
mod processes;
mod service;
mod storage;
mod text;

use serde::Serialize;

pub use self::cause::Cause;
pub use self::facts::Facts;
pub use self::gather::{Places, gather};
pub use self::halted::Halted;

/// What the host gets if it asks now. In JSON a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A production checkpoint for which applications were brought to rest by hooks.
    ApplicationConsistent,
    /// A production checkpoint in which every file system is clean; applications recover as after a power cut.
    FileSystemConsistent,
    /// A production checkpoint by name: everything is flushed and nothing frozen, because the configuration says so.
    FlushedOnly,
    /// Whatever the other agent gives that holds the device.
    OtherAgent,
    /// No production checkpoint: the host takes a standard one where its setting allows that, and fails where it does not.
    Fallback,
}

impl Outcome {
    /// Whether the image is consistent, so far as this agent sees to it.
    #[must_use]
    pub const fn is_consistent(self) -> bool {
        matches!(
            self,
            Self::ApplicationConsistent | Self::FileSystemConsistent
        )
    }
}

/// How much a finding matters. In JSON a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It keeps the host from getting a production checkpoint of hv-vssd's.
    Error,
    /// The checkpoint works, and something of it is less than one may think.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which, as a stable word.
    pub code: Cause,
    /// How much it matters.
    pub severity: Severity,
    /// What is so: one sentence.
    pub finding: String,
    /// What to do: one sentence; empty where nothing need be done.
    pub remedy: String,
}

/// What the host would get, and all that was found; the gravest first.
///
/// As JSON:
/// ```json
/// {
///   "outcome": "fallback",
///   "explanation": "…",
///   "findings": [{"code": "driver-not-loaded", "severity": "error", "finding": "…", "remedy": "…"}]
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What the host gets.
    pub outcome: Outcome,
    /// The same as a sentence.
    pub explanation: &'static str,
    /// Why.
    pub findings: Vec<Finding>,
}

impl Report {
    /// What follows from the facts. Pure.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let mut findings = Vec::new();
        channel::look(facts, &mut findings);
        service::look(facts, &mut findings);
        storage::look(facts, &mut findings);
        findings.sort_by_key(|finding| finding.severity);
        let outcome = outcome(facts, &findings);
        Self {
            outcome,
            explanation: outcome.explanation(),
            findings,
        }
    }
}

fn outcome(facts: &Facts, findings: &[Finding]) -> Outcome {
    let mut errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .peekable();
    if errors.peek().is_some() {
        return match errors.all(|finding| finding.code == Cause::DeviceHeld) {
            true => Outcome::OtherAgent,
            false => Outcome::Fallback,
        };
    }
    match facts.settings.flush_only {
        true => Outcome::FlushedOnly,
        false if facts.settings.hooks_enabled && !facts.hooks.accepted.is_empty() => {
            Outcome::ApplicationConsistent
        }
        false => Outcome::FileSystemConsistent,
    }
}

impl Finding {
    fn new(
        code: Cause,
        severity: Severity,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity,
            finding: finding.into(),
            remedy: remedy.into(),
        }
    }
}
