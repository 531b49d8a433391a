//! The thread that owns the engine, so that the event loop never waits for a file system.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::session::Event;
use crate::quiesce::error::with_causes;
use crate::quiesce::{Backend, Engine, Report, Signal};

enum Command {
    Check,
    Freeze,
    Thaw,
}

/// Hands work to the engine; what comes of it is an [`Event`]. Dropping it ends the thread, which thaws first.
#[derive(Debug)]
pub(super) struct Worker {
    commands: Option<mpsc::Sender<Command>>,
    outcomes: UnboundedReceiver<Event>,
    signal: Arc<Signal>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start<B: Backend>(engine: Engine<B>) -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (outbox, outcomes) = unbounded_channel();
        let signal = engine.signal();
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || serve(engine, &inbox, &outbox))?;
        Ok(Self {
            commands: Some(commands),
            outcomes,
            signal,
            thread: Some(thread),
        })
    }

    pub(super) fn check(&self) {
        self.signal.reset();
        self.send(Command::Check);
    }

    pub(super) fn freeze(&self) {
        self.signal.reset();
        self.send(Command::Freeze);
    }

    pub(super) fn abort(&self) {
        self.signal.abort();
    }

    pub(super) fn thaw(&self) {
        self.send(Command::Thaw);
    }

    /// The next outcome; `None` when the thread has died.
    pub(super) async fn outcome(&mut self) -> Option<Event> {
        self.outcomes.recv().await
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // A dead thread shows as the end of the outcomes.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signal.abort();
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve<B: Backend>(
    mut engine: Engine<B>,
    inbox: &mpsc::Receiver<Command>,
    outbox: &UnboundedSender<Event>,
) {
    // The outcome goes first: the host must not wait for the log.
    for command in inbox {
        match command {
            Command::Check => {
                let result = engine.check();
                let _ = outbox.send(Event::Checked {
                    possible: result.is_ok(),
                });
                if let Err(error) = result {
                    tracing::error!("no checkpoint is possible now: {}", with_causes(&error));
                }
            }
            Command::Freeze => match engine.freeze() {
                Ok(()) => drop(outbox.send(Event::Frozen)),
                Err(error) => {
                    let _ = outbox.send(Event::FreezeFailed);
                    engine.open_log();
                    tracing::error!(
                        "freeze failed, and what was frozen is thawed: {}",
                        with_causes(&error)
                    );
                }
            },
            Command::Thaw => {
                let report = engine.thaw();
                let clean = report.as_ref().is_some_and(Report::is_clean);
                let _ = outbox.send(Event::Thawed { clean });
                engine.open_log();
                if let Some(report) = report {
                    log(&report);
                }
            }
        }
    }
}

fn log(report: &Report) {
    tracing::info!("thawed: {report}");
    for file_system in &report.file_systems {
        tracing::debug!("{file_system}");
    }
    for file_system in report.foreign() {
        let name = file_system.name();
        tracing::warn!("{name} was frozen by someone else, and is left to them");
    }
    for failure in &report.failures {
        tracing::error!("{failure}");
    }
}
