//! What the engine needs of applications: the seam between hooks and a double.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::discover::Refusal;
use super::output::Output;
use super::run::Failure;

/// What brings applications to rest, and lets them go on.
pub trait Applications: fmt::Debug + Send + Sync {
    /// Whether [`Applications::freeze`] would be tried. Runs nothing.
    ///
    /// # Errors
    /// [`HookError`], as `freeze` would give it.
    fn check(&self) -> Result<(), HookError>;

    /// The longest time that [`Applications::freeze`] takes.
    fn limit(&self) -> Duration;

    /// Brings applications to rest, and enters each call into `runs`. What was started owes its thaw, also after an
    /// error. `aborted` tells when to give up.
    ///
    /// # Errors
    /// [`HookError`].
    fn freeze(
        &self,
        checkpoint: &Checkpoint,
        aborted: &dyn Fn() -> bool,
        runs: &mut Vec<Run>,
    ) -> Result<(), HookError>;

    /// Whether anything was started that owes its thaw.
    fn owes_thaw(&self) -> bool;

    /// Lets everything go on that was started, the last one first. Returns when all is done; nothing stops it.
    fn thaw(&self, outcome: Outcome) -> Vec<Run>;
}

/// What a hook is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Before the freeze: bring the application to rest.
    Freeze,
    /// After the thaw: let it go on.
    Thaw,
}

impl Operation {
    /// The argument.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
        }
    }
}

/// How the checkpoint went, as hooks hear it with `thaw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was held to the end.
    Success,
    /// It failed, or nobody knows.
    Failure,
}

impl Outcome {
    /// What `HV_VSSD_OUTCOME` says.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// What hooks hear of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its name: letters, digits and `-`.
    pub id: String,
    /// The longest time from the last hook's return to the first call with `thaw`.
    pub hold: Duration,
}

/// How one call went.
#[derive(Debug)]
pub struct Run {
    /// The hook's file name.
    pub name: String,
    /// What it was called with.
    pub operation: Operation,
    /// When.
    pub begun: Instant,
    /// When it was over.
    pub ended: Instant,
    /// Why it counts as failed, in one sentence.
    pub failure: Option<String>,
    /// What it wrote.
    pub output: Output,
}

impl Run {
    /// Writes to the log how it went, and what the hook wrote.
    pub fn log(&self) {
        let (name, operation) = (&self.name, self.operation.as_str());
        let ms = self.ended.duration_since(self.begun).as_millis();
        match &self.failure {
            None => tracing::info!("hook {name} {operation}: done in {ms} ms"),
            Some(failure) => tracing::error!("hook {name} {operation}: {failure} (after {ms} ms)"),
        }
        for line in self.output.lines() {
            tracing::info!("hook {name} {operation}: {line}");
        }
    }
}

/// Why applications could not be brought to rest.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// A hook failed, and must not.
    #[error("the hook {0} failed, so that its application would not be consistent")]
    Failed(String, #[source] Failure),
    /// A file that is meant to be a hook must not be run.
    #[error("the hook {0} must not be run, so that its application would not be consistent")]
    Refused(String, #[source] Refusal),
    /// All of them together took too long.
    #[error("the hooks together took longer than {secs} s, before {0} was run", secs = .1.as_secs())]
    Total(String, Duration),
    /// What is started could not be put on record.
    #[error("the record of started hooks, {0}, cannot be written")]
    Record(PathBuf, #[source] io::Error),
    /// The checkpoint was given up.
    #[error("the checkpoint was given up while hooks were run")]
    Aborted,
}
