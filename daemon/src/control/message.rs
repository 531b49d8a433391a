//! What is said on the control socket: one JSON object a line.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::quiesce::Report;

/// The longest manual freeze that can be asked for; the hold limit bounds it further.
const LONGEST: Duration = Duration::from_secs(3600);

/// The most paths in one request: more is a mistake.
const MOST_PATHS: usize = 1024;

/// What a command asks of a running agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the service is and what it did; answered at once, also during a hold.
    Status,
    /// Freeze now and thaw after `seconds`, or when this connection ends. Answered with [`FreezeAnswer`], twice:
    /// when everything is frozen, and when it is thawed.
    Freeze {
        /// How long the hold is to last.
        seconds: f64,
        /// Only what is mounted there; everything if empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        paths: Vec<PathBuf>,
    },
    /// Thaw whatever is frozen, the host's checkpoint too; answered with [`Thawed`] when that is done.
    Thaw,
    /// What only the agent knows of whether a checkpoint would succeed; answered as [`Request::Status`], without the
    /// checkpoints.
    Check,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply<T> {
    /// It is done.
    Ok {
        /// What came of it.
        ok: T,
    },
    /// It is not done.
    Error(Refusal),
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// One sentence that says what to do.
    pub error: String,
    /// Nothing was tried, because the agent or the host is at work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub busy: bool,
}

/// What comes of [`Request::Freeze`]: [`FreezeAnswer::Held`] if it succeeds, and [`FreezeAnswer::Done`] in any case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FreezeAnswer {
    /// Everything that was asked for is frozen.
    Held {
        /// For how many seconds it is held, unless it is ended before.
        held: f64,
    },
    /// Everything is thawed, or the freeze has failed: its outcome says which.
    Done {
        /// How it went.
        report: Box<Report>,
    },
}

/// What a thaw found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thawed {
    /// Something was frozen or being frozen by the agent.
    pub held: bool,
    /// What was thawed: mount point, type and device.
    pub thawed: Vec<String>,
    /// What could not be thawed, one sentence each.
    pub failures: Vec<String>,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// [`Refusal`], which says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let request: Self = serde_json::from_slice(line)
            .map_err(|error| Refusal::of(format!("this is no request: {error}")))?;
        request.checked()
    }

    /// How long a hold is asked for.
    #[must_use]
    pub fn hold(seconds: f64) -> Option<Duration> {
        let hold = Duration::try_from_secs_f64(seconds).ok()?;
        (hold > Duration::ZERO && hold <= LONGEST).then_some(hold)
    }

    fn checked(self) -> Result<Self, Refusal> {
        if let Self::Freeze { seconds, paths } = &self {
            if Self::hold(*seconds).is_none() {
                return Err(Refusal::of(format!(
                    "a hold of {seconds} s cannot be asked for: it lasts more than 0 and at most {} s",
                    LONGEST.as_secs()
                )));
            }
            if paths.len() > MOST_PATHS {
                return Err(Refusal::of(format!(
                    "{} paths are too many: {MOST_PATHS} at most, or none for everything",
                    paths.len()
                )));
            }
            if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
                return Err(Refusal::of(format!(
                    "{} is no absolute path: name a mount point as 'hv-vssd plan' shows it",
                    path.display()
                )));
            }
        }
        Ok(self)
    }
}

impl Refusal {
    /// A failure.
    #[must_use]
    pub fn of(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            busy: false,
        }
    }

    /// A refusal because something else is at work.
    #[must_use]
    pub fn busy(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            busy: true,
        }
    }
}

/// A reply as its line.
#[must_use]
pub fn line<T: Serialize>(reply: Result<T, Refusal>) -> Vec<u8> {
    let reply = match reply {
        Ok(ok) => Reply::Ok { ok },
        Err(refusal) => Reply::Error(refusal),
    };
    let mut line = serde_json::to_vec(&reply).unwrap_or_else(|error| {
        format!("{{\"error\":\"the reply cannot be written: {error:?}\"}}")
            .replace('\\', "")
            .into_bytes()
    });
    line.push(b'\n');
    line
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
