//! What the engine's thread is told to do, and what comes of it.

use std::path::PathBuf;
use std::time::Duration;

use super::session::{Event, Limits};
use crate::quiesce::{AskedBy, Engine, Kept, Report};
use crate::status::Cause;

/// What it is told to do.
pub(super) enum Command {
    Check,
    Freeze(Order),
    Thaw {
        kept: bool,
    },
    /// Hooks have let the applications go on.
    ApplicationsThawed,
    Reload,
    End,
}

/// Reads the configuration again, and puts the engine's share of it in force; returns the agent's share. On an error everything stays as it was.
pub type Reload<B> =
    Box<dyn FnMut(&mut Engine<B>) -> Result<Reloaded, Box<dyn std::error::Error>> + Send>;

/// The agent's share of a configuration.
#[derive(Debug)]
pub struct Reloaded {
    /// For the session.
    pub limits: Limits,
    /// As [`super::Outlets::textfile`].
    pub textfile: Option<PathBuf>,
}

/// A checkpoint to begin.
#[derive(Debug)]
pub(super) struct Order {
    /// Names it among those of this process.
    pub(super) number: u64,
    pub(super) asked_by: AskedBy,
    /// Only the file systems that these lie on; everything if there are none.
    pub(super) paths: Vec<PathBuf>,
}

/// What comes of a command.
#[derive(Debug)]
pub(super) enum News {
    /// The configuration was read again.
    Reloaded(Reloaded),
    /// For the session, at once.
    Event(Event),
    /// Everything is frozen, and this tells whether it still is.
    Frozen {
        /// Whether it is kept.
        kept: Option<Kept>,
        /// How long it may last.
        hold: Duration,
    },
    /// Nothing is frozen any more; hooks may follow.
    Thawed(Box<Report>),
    /// All is done that follows.
    Done(Box<Done>),
}

/// A checkpoint that is over.
#[derive(Debug)]
pub(super) struct Done {
    /// That of its order.
    pub(super) number: u64,
    pub(super) report: Report,
    /// Why its freeze failed, if it did.
    pub(super) cause: Option<Cause>,
}
