//! The agent: an event loop around the [`session`] on one thread, with the engine on another.

mod backoff;
pub mod note;
pub mod session;
pub mod single;
mod states;
mod worker;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use hvutil_sys::device::{Channel, Received};
use hvutil_sys::vss::{Operation, Status};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use self::session::{Action, Event, Session, State};
pub use self::worker::Reload;
use self::worker::Worker;
use crate::quiesce::error::with_causes;
use crate::quiesce::{Backend, Engine};
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
    gate: Gate,
    pending: VecDeque<Event>,
    complained: bool,
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
            pending: VecDeque::new(),
            complained: false,
        };
        agent.open()?;
        agent.feed(Event::Opened);
        Ok(agent)
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
                outcome = self.worker.outcome() => match outcome {
                    Some(event) => event,
                    // Its engine thawed as it unwound; a new process is the only way to a new one.
                    None => return Err(EngineDied),
                },
                () = &mut shutdown, if !asked_to_end => {
                    asked_to_end = true;
                    Event::Terminate
                }
                () = next_reload(&mut self.reloads) => Event::Reload,
                event = next_message(self.channel.as_ref()) => event,
                () = sleep_until(self.session.deadline()) => Event::Tick,
                // Only while a stopped reader keeps the log waiting.
                () = tokio::time::sleep(LOG_RETRY), if self.gate.has_backlog() => {
                    self.gate.drain();
                    continue;
                }
            };
            self.feed(event);
        }
        service::stopping();
        Ok(())
    }

    /// Gives the session an event and does what it wants, and whatever follows from that.
    fn feed(&mut self, event: Event) {
        self.pending.push_back(event);
        while let Some(event) = self.pending.pop_front() {
            let before = self.session.state();
            for action in self.session.handle(event, Instant::now()) {
                self.perform(action);
            }
            let after = self.session.state();
            if before != after {
                tracing::debug!("{event:?}: {before:?} → {after:?}");
                tell_systemd(after);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StartCheck => self.worker.check(),
            Action::StartFreeze => {
                tracing::info!("the host asked for FREEZE");
                self.worker.freeze();
            }
            Action::AbortFreeze => self.worker.abort(),
            Action::StartThaw => self.worker.thaw(),
            Action::StartReload => self.worker.reload(),
            Action::Reply(operation, status) => self.reply(operation, status),
            Action::CloseChannel => self.channel = None,
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
            Action::Note(note) => tracing::warn!("{note}"),
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
        Ok(())
    }

    /// Once for each loss of the channel, not for every attempt.
    fn complain(&mut self, error: &StartError) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!("{}; trying again, at most 5 s apart", with_causes(error));
        }
    }
}

/// Silent from the first freeze to the last thaw.
fn tell_systemd(state: State) {
    match state {
        State::Ready => service::status("registered with the host"),
        State::Closed { .. } => service::status("waiting for the host's backup service"),
        _ => {}
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

async fn next_reload(reloads: &mut Option<mpsc::Receiver<()>>) {
    if let Some(reloads) = reloads {
        if reloads.recv().await.is_some() {
            return;
        }
    }
    std::future::pending().await
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
