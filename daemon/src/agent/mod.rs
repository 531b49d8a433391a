//! The agent: an event loop around the [`session`] on one thread, with the engine on another.

mod backoff;
mod clients;
mod control;
mod idle;
mod manual;
pub mod note;
mod records;
pub mod session;
pub mod single;
mod states;
mod view;
mod worker;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use hvutil_sys::device::{Channel, Received};
use hvutil_sys::vss::{Operation, Status};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use self::clients::Clients;
use self::control::{Control, Message};
use self::records::{Moment, Records};
use self::session::{Action, Event, Session, State};
use self::worker::{News, Order, Worker};
pub use self::worker::{Reload, Reloaded};
use crate::quiesce::error::with_causes;
use crate::quiesce::{AskedBy, Backend, Engine};
use crate::telemetry::journal::Journal;
use crate::telemetry::{Gate, service};

/// The driver acknowledges a registration from within the write; this bounds a driver that does not.
const REGISTER_LIMIT: Duration = Duration::from_secs(5);

/// How often a log that takes no records is tried again.
const LOG_RETRY: Duration = Duration::from_secs(1);

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

/// The thread that freezes has died of a defect; what it held it thawed as it unwound.
#[derive(Debug, thiserror::Error)]
#[error("the engine has died of an internal error; start the agent again, and report the log")]
pub struct EngineDied;

/// Makes a channel to the driver, as often as needed.
pub type Opener = Box<dyn FnMut() -> Result<Channel, hvutil_sys::device::OpenError> + Send>;

/// The agent at work.
#[derive(Debug)]
pub struct Agent {
    session: Session,
    channel: Option<AsyncFd<Channel>>,
    opener: OpenerBox,
    worker: Worker,
    reloads: Option<mpsc::Receiver<()>>,
    retirements: Option<mpsc::Receiver<()>>,
    gate: Gate,
    pending: VecDeque<Event>,
    complained: bool,
    control: Option<Control>,
    clients: Clients,
    records: Records,
    /// Since when the channel is there, or is not.
    channel_since: Moment,
    /// The version of the driver's module, as of the last registration.
    driver_version: Option<String>,
    /// Since when everything is frozen.
    held_since: Option<Instant>,
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

struct OpenerBox(Opener);

impl std::fmt::Debug for OpenerBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
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

    /// Serves the host until `shutdown` completes; nothing is frozen when this returns.
    ///
    /// # Errors
    /// [`EngineDied`]: only a new process can go on.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), EngineDied> {
        let mut shutdown = pin!(shutdown);
        let mut asked_to_end = false;
        service::ready();
        while self.session.state() != State::Stopped {
            let event = tokio::select! {
                biased;
                news = self.worker.news() => match news {
                    Some(News::Event(event)) => event,
                    Some(News::Reloaded(Reloaded { limits, textfile })) => {
                        self.records.use_textfile(textfile);
                        self.write_textfile();
                        Event::Reloaded { limits }
                    }
                    Some(News::Thawed(report)) => {
                        self.clients.thawed(&report);
                        continue;
                    }
                    Some(News::Done(done)) => {
                        self.conclude(*done);
                        continue;
                    }
                    // Its engine thawed as it unwound; a new process is the only way to a new one.
                    None => return Err(EngineDied),
                },
                () = &mut shutdown, if !asked_to_end => {
                    asked_to_end = true;
                    Event::Terminate
                }
                () = next_wish(&mut self.reloads) => Event::Reload,
                () = next_wish(&mut self.retirements) => {
                    tracing::info!("asked to end when no checkpoint is under way");
                    Event::Retire
                }
                event = next_message(self.channel.as_ref()) => event,
                () = sleep_until(self.session.deadline()) => Event::Tick,
                message = next_client(self.control.as_mut()) => {
                    self.hear(message);
                    continue;
                }
                // Only while a stopped reader keeps the log waiting.
                () = tokio::time::sleep(LOG_RETRY), if self.gate.has_backlog() => {
                    self.gate.drain();
                    continue;
                }
            };
            self.feed(event);
        }
        service::stopping();
        self.close_books();
        Ok(())
    }

    /// Gives the session an event and does what it wants, and whatever follows from that.
    fn feed(&mut self, event: Event) {
        self.pending.push_back(event);
        while let Some(event) = self.pending.pop_front() {
            let before = self.session.state();
            if let Event::Checked { possible } = event {
                self.records.history.checked(possible);
            }
            for action in self.session.handle(event, Instant::now()) {
                self.perform(action);
            }
            let after = self.session.state();
            if before != after {
                tracing::debug!("{event:?}: {before:?} → {after:?}");
                self.entered(after);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StartCheck => self.worker.check(),
            Action::StartFreeze => {
                tracing::info!("the host asked for FREEZE");
                self.records
                    .tell_systemd("a checkpoint of the host is under way");
                self.worker.freeze(Order {
                    number: self.records.begin(),
                    asked_by: AskedBy::Host,
                    paths: Vec::new(),
                });
            }
            Action::StartManualFreeze => {
                tracing::info!("a manual freeze begins");
                self.records.tell_systemd("a manual freeze is under way");
                let number = self.records.begin();
                self.worker.freeze(Order {
                    number,
                    asked_by: AskedBy::Manual,
                    paths: self.clients.begin(number),
                });
            }
            Action::RefuseManual(busy) => self.clients.refuse(busy),
            Action::ManualHeld(hold) => self.clients.held(hold),
            Action::AbortFreeze => self.worker.abort(),
            Action::StartThaw => self.worker.thaw(self.session.state().is_asked_to_thaw()),
            Action::StartReload => self.worker.reload(),
            Action::Reply(operation, status) => self.reply(operation, status),
            Action::CloseChannel => {
                if self.channel.take().is_some() {
                    self.channel_since = Moment::now();
                    self.records.history.lost_channel();
                }
            }
            Action::OpenChannel => {
                let event = match self.open() {
                    Ok(()) => {
                        tracing::info!("registered with the driver again");
                        self.complained = false;
                        Event::Opened
                    }
                    Err(error) => {
                        self.complain(&error);
                        Event::OpenFailed
                    }
                };
                self.pending.push_back(event);
            }
            Action::Note(note) => {
                self.records.note(note);
                tracing::warn!("{note}");
            }
            Action::Exit => {}
        }
    }

    fn reply(&mut self, operation: Operation, status: Status) {
        let Some(channel) = &self.channel else {
            return;
        };
        match channel.get_ref().reply(status) {
            Ok(()) => tracing::info!("answered {operation}: {status}"),
            Err(error) => {
                tracing::warn!("the answer to {operation} was not taken: {error}");
                self.pending.push_back(Event::ReplyFailed);
            }
        }
    }

    #[allow(
        deprecated,
        reason = "the channel owns its descriptor, which is all that the unsafe successor asks for"
    )]
    fn open(&mut self) -> Result<(), StartError> {
        let channel = (self.opener.0)()?;
        channel
            .register(REGISTER_LIMIT)
            .map_err(StartError::Register)?;
        self.channel = Some(AsyncFd::new(channel).map_err(StartError::Register)?);
        self.channel_since = Moment::now();
        self.driver_version = view::driver_version();
        Ok(())
    }

    /// Once for each loss of the channel, not for every attempt.
    fn complain(&mut self, error: &StartError) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!("{}; trying again, at most 5 s apart", with_causes(error));
        }
    }
}

async fn next_message(channel: Option<&AsyncFd<Channel>>) -> Event {
    let Some(channel) = channel else {
        return std::future::pending().await;
    };
    loop {
        let Ok(mut ready) = channel.readable().await else {
            return Event::ChannelLost;
        };
        match channel.get_ref().receive() {
            Ok(Received::Request(request)) => return Event::Request(request.operation),
            Ok(Received::Malformed(length)) => return Event::Malformed(length),
            Ok(Received::Closed) => return Event::ChannelLost,
            Ok(Received::Nothing) => ready.clear_ready(),
            Err(error) => {
                tracing::warn!("the channel cannot be read: {error}");
                return Event::ChannelLost;
            }
        }
    }
}

async fn next_wish(wishes: &mut Option<mpsc::Receiver<()>>) {
    if let Some(wishes) = wishes {
        if wishes.recv().await.is_some() {
            return;
        }
    }
    std::future::pending().await
}

async fn next_client(control: Option<&mut Control>) -> Message {
    match control {
        Some(control) => control.message().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
