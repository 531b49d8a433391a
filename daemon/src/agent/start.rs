//! How an agent comes to be: registered with the driver, its outlets open.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use tokio::sync::mpsc;

use super::Agent;
use super::channel::{Opener, OpenerBox};
use super::clients::Clients;
use super::control::Control;
use super::records::{Moment, Records};
use super::session::{self, Event, Session};
use super::work::Reload;
use super::worker::Worker;
use crate::quiesce::{Backend, Engine};
use crate::telemetry::journal::Journal;

/// Why the agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread for the engine.
    #[error("no thread can be started for the freeze")]
    Thread(#[source] io::Error),
    /// The device cannot be opened.
    #[error(transparent)]
    Open(#[from] hvutil_sys::device::OpenError),
    /// The driver does not take the registration.
    #[error("the driver does not accept this agent")]
    Register(#[source] io::Error),
}

/// Ways to look at the agent, and to ask it, beside the host's.
#[derive(Debug, Default)]
pub struct Outlets {
    /// Where to listen for `status`, `freeze` and `thaw`; the caller holds the agent's lock.
    pub control: Option<PathBuf>,
    /// The file to write for Prometheus.
    pub textfile: Option<PathBuf>,
    /// The journal's socket, for a record of each checkpoint.
    pub journal: Option<PathBuf>,
}

impl Agent {
    /// Opens the channel and registers. To be called within a tokio runtime that has I/O and time.
    ///
    /// # Errors
    /// [`StartError`], whose text says what to do; later losses of the channel are retried instead.
    pub fn start<B: Backend>(
        engine: Engine<B>,
        limits: session::Limits,
        opener: Opener,
    ) -> Result<Self, StartError> {
        Self::start_with(engine, limits, opener, None)
    }

    /// As [`Agent::start`]; and whatever comes through `reloads.0` makes it call `reloads.1`, at once or when the checkpoint at work is over.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_reloadable<B: Backend>(
        engine: Engine<B>,
        limits: session::Limits,
        opener: Opener,
        reloads: (mpsc::Receiver<()>, Reload<B>),
    ) -> Result<Self, StartError> {
        Self::start_with(engine, limits, opener, Some(reloads))
    }

    fn start_with<B: Backend>(
        engine: Engine<B>,
        limits: session::Limits,
        opener: Opener,
        reloads: Option<(mpsc::Receiver<()>, Reload<B>)>,
    ) -> Result<Self, StartError> {
        let (reloads, reload) = reloads.unzip();
        let gate = engine.gate();
        let mut agent = Self {
            gate,
            session: Session::new(limits, Instant::now()),
            channel: None,
            opener: OpenerBox(opener),
            worker: Worker::start(engine, reload).map_err(StartError::Thread)?,
            reloads,
            retirements: None,
            pending: VecDeque::new(),
            complained: false,
            control: None,
            clients: Clients::default(),
            records: Records::new(),
            channel_since: Moment::now(),
            driver_version: None,
            kept: None,
            held_since: None,
        };
        agent.open()?;
        agent.feed(Event::Opened);
        Ok(agent)
    }

    /// Opens these outlets. One that cannot be opened is told to the log: the host is served without it.
    #[must_use]
    pub fn with_outlets(mut self, outlets: Outlets) -> Self {
        if let Some(path) = outlets.control {
            match Control::listen(&path) {
                Ok(control) => self.control = Some(control),
                Err(error) => tracing::warn!(
                    "no control socket at {}: {error}; 'hv-vssd status' will find no agent",
                    path.display()
                ),
            }
        }
        if let Some(path) = outlets.journal {
            match Journal::connect(&path) {
                Ok(journal) => self.records.use_journal(journal),
                Err(error) => tracing::warn!(
                    "no structured records in the journal, at {}: {error}",
                    path.display()
                ),
            }
        }
        self.records.use_textfile(outlets.textfile);
        self.write_textfile();
        self
    }

    /// Whatever comes through makes it end as if `shutdown` had completed, but not before the checkpoint at work is over.
    #[must_use]
    pub fn with_retirements(mut self, retirements: mpsc::Receiver<()>) -> Self {
        self.retirements = Some(retirements);
        self
    }
}
