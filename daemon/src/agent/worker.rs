//! The thread that owns the engine, so that the event loop never waits for a file system.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use hvutil_sys::memory;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::session::{Event, Limits};
use crate::filesystems::devices_at;
use crate::hooks::Outcome;
use crate::quiesce::error::with_causes;
use crate::quiesce::report::PhaseName;
use crate::quiesce::{AskedBy, Backend, Checkpoint, Engine, Report, Signal, Until};
use crate::status::Cause;
use crate::telemetry::service;

enum Command {
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

/// How often systemd is told that the end takes longer.
const STOP_STEP: Duration = Duration::from_secs(5);

/// Hands work to the engine; what comes of it is [`News`]. Dropping it ends the thread, which thaws first.
#[derive(Debug)]
pub(super) struct Worker {
    commands: Option<mpsc::Sender<Command>>,
    news: UnboundedReceiver<News>,
    signal: Arc<Signal>,
    /// The guardian's process id; 0 for none.
    guardian: Arc<AtomicU32>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start<B: Backend>(
        engine: Engine<B>,
        reload: Option<Reload<B>>,
    ) -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (outbox, news) = unbounded_channel();
        let signal = engine.signal();
        let guardian = Arc::new(AtomicU32::new(engine.guardian_pid().unwrap_or(0)));
        let desk = Desk {
            engine,
            number: 0,
            unfinished: None,
            reload,
            reload_wanted: false,
            commands: commands.clone(),
            outbox,
            guardian: Arc::clone(&guardian),
        };
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || desk.serve(&inbox))?;
        Ok(Self {
            commands: Some(commands),
            news,
            signal,
            guardian,
            thread: Some(thread),
        })
    }

    pub(super) fn check(&self) {
        self.signal.reset();
        self.send(Command::Check);
    }

    pub(super) fn freeze(&self, order: Order) {
        self.signal.reset();
        self.send(Command::Freeze(order));
    }

    pub(super) fn abort(&self) {
        self.signal.abort();
    }

    /// `kept`: nothing has cut the hold short.
    pub(super) fn thaw(&self, kept: bool) {
        self.send(Command::Thaw { kept });
    }

    pub(super) fn reload(&self) {
        self.send(Command::Reload);
    }

    /// The guardian's process id, as far as the engine knows.
    pub(super) fn guardian_pid(&self) -> Option<u32> {
        let pid = self.guardian.load(Ordering::Relaxed);
        (pid > 0).then_some(pid)
    }

    /// What comes next; `None` when the thread has died.
    pub(super) async fn news(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Ends the thread, which thaws and lets applications go on first; what it still had to tell.
    pub(super) fn end(&mut self) -> Vec<News> {
        self.signal.abort();
        self.send(Command::End);
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        std::iter::from_fn(|| self.news.try_recv().ok()).collect()
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
        self.end();
    }
}

/// The engine and what it works for.
struct Desk<B: Backend> {
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
                Command::Freeze(order) => self.freeze(order),
                Command::Thaw { kept } => {
                    let report = self.engine.thaw();
                    let clean = report.as_ref().is_some_and(Report::is_clean);
                    self.tell(Event::Thawed { clean });
                    self.engine.open_log();
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
        let only = match (order.paths.as_slice(), devices_at(&order.paths)) {
            ([], _) => None,
            (_, Ok(devices)) => Some(devices),
            (_, Err(error)) => {
                self.tell(Event::FreezeFailed);
                self.refused(&order, &with_causes(&error), Cause::Mounts);
                return;
            }
        };
        self.number = order.number;
        match self.engine.freeze_for(&Checkpoint { asked_by, only }) {
            Ok(()) => self.tell(Event::Frozen),
            Err(error) => {
                self.tell(Event::FreezeFailed);
                self.engine.open_log();
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
            let clean = done.report.is_clean();
            self.send(News::Done(Box::new(done)));
            if clean {
                give_memory_back();
            }
        }
        thawed
    }

    /// systemd would otherwise end the process while hooks still let applications go on.
    fn end(mut self) {
        let report = self.engine.thaw();
        self.engine.open_log();
        self.thawed(report, None);
        self.thaw_applications(Outcome::Failure);
        while !self.finish(Until::Elapsed(STOP_STEP)) {
            service::needs_time(STOP_STEP * 3);
        }
    }
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
    for failure in &report.failures {
        tracing::error!("{failure}");
    }
}
