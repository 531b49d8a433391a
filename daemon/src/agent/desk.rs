//! The thread that owns the engine: carries out what the event loop orders, and tells it what came of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hvutil_sys::memory;
use tokio::sync::mpsc::UnboundedSender;

use super::session::Event;
use super::work::{Command, Done, News, Order, Reload};
use crate::filesystems::{DeviceNumber, LookupError, devices_at};
use crate::hooks::Outcome;
use crate::quiesce::error::with_causes;
use crate::quiesce::report::PhaseName;
use crate::quiesce::{Backend, Checkpoint, Engine, Report, Until};
use crate::status::Cause;
use crate::telemetry::service;

/// How often systemd is told that the end takes longer.
const STOP_STEP: Duration = Duration::from_secs(5);

/// How long a process that is asked to end waits for a freeze that has not returned. After that it is left to the guardian, or to
/// the next start.
const STOP_TIMEOUT: Duration = Duration::from_secs(300);

/// The engine and what it works for.
pub(super) struct Desk<B: Backend> {
    engine: Engine<B>,
    /// The last order's.
    number: u64,
    /// A checkpoint whose applications do not go on yet.
    unfinished: Option<Done>,
    reload: Option<Reload<B>>,
    /// A reload waits until applications go on: their hooks belong to the configuration before.
    reload_wanted: bool,
    commands: mpsc::Sender<Command>,
    outbox: UnboundedSender<News>,
    guardian: Arc<AtomicU32>,
}

impl<B: Backend> Desk<B> {
    /// `commands` leads back to the desk: what its own threads have done comes that way. `guardian` is kept at the guardian's process id.
    pub(super) fn new(
        engine: Engine<B>,
        reload: Option<Reload<B>>,
        commands: mpsc::Sender<Command>,
        outbox: UnboundedSender<News>,
        guardian: Arc<AtomicU32>,
    ) -> Self {
        Self {
            engine,
            number: 0,
            unfinished: None,
            reload,
            reload_wanted: false,
            commands,
            outbox,
            guardian,
        }
    }

    /// Serves until it is told to end. The outcome goes first: the host must not wait for the log, nor for hooks.
    pub(super) fn serve(mut self, inbox: &mpsc::Receiver<Command>) {
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
                Command::Freeze(order) => self.freeze(order),
                Command::Thaw { kept } => {
                    let report = self.engine.thaw();
                    let clean = report.as_ref().is_some_and(Report::is_clean);
                    self.tell(Event::Thawed { clean });
                    self.engine.after_answer();
                    let outcome = if clean && kept {
                        Outcome::Success
                    } else {
                        Outcome::Failure
                    };
                    self.thawed(report, None);
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
            let pid = self.engine.guardian_pid().unwrap_or(0);
            self.guardian.store(pid, Ordering::Relaxed);
        }
        self.end();
    }

    fn freeze(&mut self, order: Order) {
        let asked_by = order.asked_by;
        // Applications of the last checkpoint come first, however long their hooks take: the host waits, or gives up.
        if !self.finish(Until::Aborted) {
            self.tell(Event::FreezeFailed);
            let text = "freeze given up while hooks of the last checkpoint were at work";
            tracing::error!("{text}");
            self.refused(&order, text, Cause::GivenUp);
            return;
        }
        // What waited for them comes before the hold too: it would take their thaw with it.
        self.reload_if_wanted();
        let only = match only(&order.paths) {
            Ok(only) => only,
            Err(error) => {
                self.tell(Event::FreezeFailed);
                self.refused(&order, &with_causes(&error), Cause::Mounts);
                return;
            }
        };
        self.number = order.number;
        match self.engine.freeze_for(&Checkpoint { asked_by, only }) {
            Ok(()) => {
                let kept = self.engine.take_kept();
                let hold = self.engine.hold_limit();
                self.send(News::Frozen { kept, hold });
            }
            Err(error) => {
                self.tell(Event::FreezeFailed);
                self.engine.after_answer();
                tracing::error!(
                    "freeze failed, and what was frozen is thawed: {}",
                    with_causes(&error)
                );
                let report = self.engine.take_failed();
                self.thawed(report, Some(Cause::from(&error)));
                if !self.thaw_applications(Outcome::Failure) {
                    self.finish(Until::Over);
                }
            }
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
            Ok(reloaded) => {
                self.send(News::Reloaded(reloaded));
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

    /// A freeze that was not begun.
    fn refused(&self, order: &Order, why: &str, cause: Cause) {
        let mut report = Report::begin(order.asked_by);
        report.fail(why.to_owned());
        self.send(News::Thawed(Box::new(report.clone())));
        self.send(News::Done(Box::new(Done {
            number: order.number,
            report,
            cause: Some(cause),
        })));
    }

    /// Nothing of the checkpoint is frozen any more.
    fn thawed(&mut self, report: Option<Report>, cause: Option<Cause>) {
        let Some(report) = report else { return };
        self.send(News::Thawed(Box::new(report.clone())));
        self.unfinished = Some(Done {
            number: self.number,
            report,
            cause,
        });
    }

    fn send(&self, news: News) {
        // Without an event loop nobody is left to be told.
        let _ = self.outbox.send(news);
    }

    fn tell(&self, event: Event) {
        self.send(News::Event(event));
    }

    fn thaw_applications(&mut self, outcome: Outcome) -> bool {
        let commands = self.commands.clone();
        let done = move || drop(commands.send(Command::ApplicationsThawed));
        self.engine.thaw_applications(outcome, done)
    }

    /// Waits until applications go on, and closes the report; `false` if something else ends the wait.
    fn finish(&mut self, until: Until) -> bool {
        let report = self.unfinished.as_mut().map(|done| &mut done.report);
        let thawed = self.engine.applications_thawed(report, until);
        if let Some(done) = self.unfinished.take_if(|_| thawed) {
            // Why a freeze failed has been told.
            if done.report.last(PhaseName::Hold).is_some() {
                log(&done.report);
            }
            // What a dead agent left frozen is not this engine's, and is frozen all the same.
            let is_left_over = done.cause == Some(Cause::LeftOver);
            self.send(News::Done(Box::new(done)));
            if self.engine.is_free() && !is_left_over {
                give_memory_back();
            }
        }
        thawed
    }

    /// systemd would otherwise end the process while hooks still let applications go on, or while a freeze waits for a writer: those who
    /// would thaw it the moment it returns would then be ended, too.
    fn end(mut self) {
        let report = self.engine.thaw();
        self.engine.after_answer();
        self.thawed(report, None);
        self.thaw_applications(Outcome::Failure);
        while !self.finish(Until::Elapsed(STOP_STEP)) {
            service::needs_time(STOP_STEP * 3);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut told = false;
        while !self.engine.settle_within(STOP_STEP) && Instant::now() < deadline {
            service::needs_time(STOP_STEP * 3);
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    "asked to end, but a freeze or thaw has not returned: waiting for it, {} s at most",
                    STOP_TIMEOUT.as_secs()
                );
            }
        }
    }
}

/// The file systems that a checkpoint is limited to, if it is: a host that wants everything does not wait for the mount table to be read.
fn only(paths: &[PathBuf]) -> Result<Option<Vec<DeviceNumber>>, LookupError> {
    if paths.is_empty() {
        return Ok(None);
    }
    devices_at(paths).map(Some)
}

/// What a checkpoint took for its plan, its threads and its report would stay locked, however large. Here nothing is frozen.
fn give_memory_back() {
    if let Err(error) = memory::give_back() {
        tracing::warn!("memory cannot be locked any more ({error}): restart the service");
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
    for file_system in report
        .file_systems
        .iter()
        .filter(|file_system| file_system.suspended)
    {
        tracing::warn!(
            "{} was held to the end, and its device is still suspended by the device mapper (a snapshot?): writes wait until that resumes it",
            file_system.name()
        );
    }
    for failure in &report.failures {
        tracing::error!("{failure}");
    }
}
