//! The thread that owns the engine, so that the event loop never waits for a file system.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::session::Event;
use crate::hooks::Outcome;
use crate::quiesce::error::with_causes;
use crate::quiesce::report::PhaseName;
use crate::quiesce::{Backend, Engine, Report, Signal, Until};
use crate::telemetry::service;

enum Command {
    Check,
    Freeze,
    Thaw,
    /// Hooks have let the applications go on.
    ApplicationsThawed,
    End,
}

/// How often systemd is told that the end takes longer.
const STOP_STEP: Duration = Duration::from_secs(5);

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
        let desk = Desk {
            engine,
            unfinished: None,
            commands: commands.clone(),
            outbox,
        };
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || desk.serve(&inbox))?;
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
        self.send(Command::End);
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The engine and what it works for.
struct Desk<B: Backend> {
    engine: Engine<B>,
    /// The report of a checkpoint whose applications do not go on yet.
    unfinished: Option<Report>,
    commands: mpsc::Sender<Command>,
    outbox: UnboundedSender<Event>,
}

impl<B: Backend> Desk<B> {
    /// The outcome goes first: the host must not wait for the log, nor for hooks.
    fn serve(mut self, inbox: &mpsc::Receiver<Command>) {
        if self.thaw_applications(Outcome::Failure) {
            tracing::warn!(
                "an earlier agent has called hooks with 'freeze': called with 'thaw' now"
            );
        }
        for command in inbox {
            match command {
                Command::Check => {
                    let result = self.engine.check();
                    self.tell(Event::Checked {
                        possible: result.is_ok(),
                    });
                    if let Err(error) = result {
                        tracing::error!("no checkpoint is possible now: {}", with_causes(&error));
                    }
                }
                Command::Freeze => self.freeze(),
                Command::Thaw => {
                    let report = self.engine.thaw();
                    let clean = report.as_ref().is_some_and(Report::is_clean);
                    self.tell(Event::Thawed { clean });
                    self.engine.open_log();
                    let outcome = if clean {
                        Outcome::Success
                    } else {
                        Outcome::Failure
                    };
                    self.unfinished = report.or(self.unfinished.take());
                    if !self.thaw_applications(outcome) {
                        self.finish(Until::Over);
                    }
                }
                Command::ApplicationsThawed => {
                    // A freeze that came meanwhile may have waited for them already.
                    self.finish(Until::Elapsed(Duration::ZERO));
                }
                Command::End => break,
            }
        }
        self.end();
    }

    fn freeze(&mut self) {
        // Applications of the last checkpoint come first, however long their hooks take: the host waits, or gives up.
        if self.finish(Until::Aborted) {
            match self.engine.freeze() {
                Ok(()) => self.tell(Event::Frozen),
                Err(error) => {
                    self.tell(Event::FreezeFailed);
                    self.engine.open_log();
                    tracing::error!(
                        "freeze failed, and what was frozen is thawed: {}",
                        with_causes(&error)
                    );
                    self.unfinished = self.engine.take_failed();
                    if !self.thaw_applications(Outcome::Failure) {
                        self.finish(Until::Over);
                    }
                }
            }
        } else {
            self.tell(Event::FreezeFailed);
            tracing::error!("freeze given up while hooks of the last checkpoint were at work");
        }
    }

    fn tell(&self, event: Event) {
        // Without an event loop nobody is left to be told.
        let _ = self.outbox.send(event);
    }

    fn thaw_applications(&mut self, outcome: Outcome) -> bool {
        let commands = self.commands.clone();
        let done = move || drop(commands.send(Command::ApplicationsThawed));
        self.engine.thaw_applications(outcome, done)
    }

    /// Waits until applications go on, and closes the report; `false` if something else ends the wait.
    fn finish(&mut self, until: Until) -> bool {
        let thawed = self
            .engine
            .applications_thawed(self.unfinished.as_mut(), until);
        if thawed {
            let report = self.unfinished.take();
            // Why a freeze failed has been told.
            if let Some(report) = report.filter(|report| report.last(PhaseName::Hold).is_some()) {
                log(&report);
            }
        }
        thawed
    }

    /// systemd would otherwise end the process while hooks still let applications go on.
    fn end(mut self) {
        self.unfinished = self.engine.thaw().or(self.unfinished.take());
        self.engine.open_log();
        self.thaw_applications(Outcome::Failure);
        while !self.finish(Until::Elapsed(STOP_STEP)) {
            service::needs_time(STOP_STEP * 3);
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
