//! What can go wrong, told apart: a promise that was not kept, or a bed that broke.

use std::time::Duration;

/// The test bed itself failed: nothing can be said about the agent.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// A file, socket or process operation of the bed failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A program the bed relies on failed.
    #[error("{command} failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it printed.
        output: String,
    },
    /// Something of the bed did not happen in time.
    #[error("{what} did not happen within {limit:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// The guest refused a request.
    #[error("guest: {0}")]
    Guest(String),
    /// Something is missing; the text says how to get it.
    #[error("{0}")]
    Setup(String),
}

/// Result of an operation of the bed.
pub type BedResult<T> = Result<T, BedError>;

/// Adds what was being done to an I/O error.
pub trait Context<T> {
    /// `what` names the operation and its object.
    ///
    /// # Errors
    /// The same error, with its context.
    fn doing(self, what: impl FnOnce() -> String) -> BedResult<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> BedResult<T> {
        self.map_err(|source| BedError::Io {
            what: what(),
            source: source.into(),
        })
    }
}

/// Why a scenario ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The agent did not do what the scenario promises: one sentence.
    #[error("{0}")]
    Promise(String),
    /// The bed broke; this never counts as an agent's known gap.
    #[error("test bed: {0}")]
    Bed(#[from] BedError),
}

/// Result of a step of a scenario.
pub type Step<T> = Result<T, Failure>;

/// Fails the scenario with a sentence unless the condition holds.
#[macro_export]
macro_rules! promise {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err($crate::error::Failure::Promise(format!($($sentence)+)));
        }
    };
}
