//! The thread that owns the engine, so that the event loop never waits for a file system.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::session::{Event, Limits};
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
    Reload,
    End,
}

/// Reads the configuration again, and puts the engine's share of it in force; returns the session's share. On an error everything stays as it was.
pub type Reload<B> =
    Box<dyn FnMut(&mut Engine<B>) -> Result<Limits, Box<dyn std::error::Error>> + Send>;

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
    pub(super) fn start<B: Backend>(
        engine: Engine<B>,
        reload: Option<Reload<B>>,
    ) -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (outbox, outcomes) = unbounded_channel();
        let signal = engine.signal();
        let desk = Desk {
            engine,
            unfinished: None,
            reload,
            reload_wanted: false,
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

    pub(super) fn reload(&self) {
        self.send(Command::Reload);
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
    reload: Option<Reload<B>>,
    /// A reload waits until applications go on: their hooks belong to the configuration before.
    reload_wanted: bool,
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
                    self.reload_if_wanted();
                }
                Command::Reload => {
                    self.reload_wanted = true;
                    self.reload_if_wanted();
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

    fn reload_if_wanted(&mut self) {
        if !self.reload_wanted || !self.finish(Until::Elapsed(Duration::ZERO)) {
            return;
        }
        self.reload_wanted = false;
        let Some(reload) = &mut self.reload else {
            return;
        };
        match reload(&mut self.engine) {
            Ok(limits) => {
                self.tell(Event::Reloaded { limits });
                tracing::info!(
                    "the configuration was read again: in force from the next checkpoint on"
                );
            }
            Err(error) => tracing::error!(
                "the configuration was not taken, and the one before stays in force: {}",
                with_causes(error.as_ref())
            ),
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
    let done = if report.flush_only { "done" } else { "thawed" };
    tracing::info!("{done}: {report}");
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
