//! The driver's end of the channel, played over `SOCK_SEQPACKET` pairs; each opening of the device makes a new pair.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking, like the test itself"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hv_vssd::agent::{Agent, Outlets, Reload, session};
use hv_vssd::quiesce::{Backend, Engine};
use hv_vssd::telemetry::Gate;
use hvutil_sys::device::Channel;
use hvutil_sys::vss::{MESSAGE_SIZE, Operation, Reply, Request, Status};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::oneshot;
use zerocopy::IntoBytes;

use super::double::applications::Database;
use super::double::{Double, PATIENCE};

pub(crate) struct Driver {
    fd: Option<OwnedFd>,
    opened: mpsc::Receiver<OwnedFd>,
    shutdown: Option<oneshot::Sender<()>>,
    retire: tokio::sync::mpsc::Sender<()>,
    agent: Option<thread::JoinHandle<Result<(), String>>>,
}

impl Driver {
    /// Starts an agent on `double` and takes its registration.
    pub(crate) fn start(double: &Double) -> Self {
        Self::start_with(double, PATIENCE, double.gate())
    }

    /// With applications to bring to rest.
    pub(crate) fn start_with_applications(double: &Double, database: &Arc<Database>) -> Self {
        Self::start_reloadable_with_applications(double, database, no_reload())
    }

    /// With both.
    pub(crate) fn start_reloadable_with_applications(
        double: &Double,
        database: &Arc<Database>,
        reload: (tokio::sync::mpsc::Receiver<()>, Reload<Double>),
    ) -> Self {
        let database = Arc::clone(database);
        let make = move |engine: Engine<Double>| engine.with_applications(database);
        let outlets = Outlets::default();
        Self::start_engine(double, PATIENCE, double.gate(), outlets, reload, make)
    }

    /// With a hold limit and a log of its own.
    pub(crate) fn start_with(double: &Double, hold: Duration, gate: Gate) -> Self {
        Self::start_with_outlets(double, hold, gate, Outlets::default())
    }

    /// With other ways to look at it and to ask it.
    pub(crate) fn start_with_outlets(
        double: &Double,
        hold: Duration,
        gate: Gate,
        outlets: Outlets,
    ) -> Self {
        Self::start_engine(double, hold, gate, outlets, no_reload(), |engine| engine)
    }

    /// With someone who asks for reloads, and what is done then.
    pub(crate) fn start_reloadable(
        double: &Double,
        reload: (tokio::sync::mpsc::Receiver<()>, Reload<Double>),
    ) -> Self {
        let outlets = Outlets::default();
        Self::start_engine(double, PATIENCE, double.gate(), outlets, reload, |engine| {
            engine
        })
    }

    fn start_engine(
        double: &Double,
        hold: Duration,
        gate: Gate,
        outlets: Outlets,
        reload: (tokio::sync::mpsc::Receiver<()>, Reload<Double>),
        make: impl FnOnce(Engine<Double>) -> Engine<Double> + Send + 'static,
    ) -> Self {
        let double = double.clone();
        let make = || {
            let limits = super::double::limits(PATIENCE);
            make(Engine::new(double, limits, gate))
        };
        Self::start_on(make, hold, outlets, reload)
    }

    /// Starts an agent on any engine, which is made in the agent's thread.
    pub(crate) fn start_engine_of<B: Backend>(
        make: impl FnOnce() -> Engine<B> + Send + 'static,
        outlets: Outlets,
    ) -> Self {
        Self::start_on(make, PATIENCE, outlets, no_reload())
    }

    fn start_on<B: Backend>(
        make: impl FnOnce() -> Engine<B> + Send + 'static,
        hold: Duration,
        outlets: Outlets,
        reload: (tokio::sync::mpsc::Receiver<()>, Reload<B>),
    ) -> Self {
        let (offer, opened) = mpsc::channel();
        let (shutdown, asked_to_end) = oneshot::channel();
        let (retire, retirements) = tokio::sync::mpsc::channel(1);
        let agent = thread::spawn(move || {
            let asked_to_end = async { drop(asked_to_end.await) };
            let asked = (asked_to_end, retirements);
            serve(make(), hold, outlets, offer, reload, asked)
        });
        let mut driver = Self {
            fd: None,
            opened,
            shutdown: Some(shutdown),
            retire,
            agent: Some(agent),
        };
        driver.take_registration();
        driver
    }

    /// Waits for the agent to open the device and to register, and acknowledges.
    pub(crate) fn take_registration(&mut self) {
        let fd = self.opened.recv_timeout(PATIENCE).unwrap();
        self.fd = Some(fd);
        let registration = self.receive().unwrap();
        assert_eq!(registration, [129, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.send(&129_u32.to_ne_bytes());
    }

    pub(crate) fn ask(&self, operation: Operation) {
        self.send(Request::new(operation).as_bytes());
    }

    pub(crate) fn request(&self, operation: Operation) -> Status {
        self.ask(operation);
        self.answer()
    }

    pub(crate) fn answer(&self) -> Status {
        let bytes = self.receive().unwrap();
        assert_eq!(bytes.len(), MESSAGE_SIZE);
        let code = Reply::decode(&bytes).unwrap().code();
        assert!(bytes.iter().skip(4).all(|byte| *byte == 0), "{bytes:?}");
        match code {
            0 => Status::Ok,
            0x8000_4005 => Status::Fail,
            code => panic!("no host knows {code:#x}"),
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        let fd = self.fd.as_ref().unwrap();
        assert_eq!(nix::unistd::write(fd, bytes).unwrap(), bytes.len());
    }

    /// What the agent sends next; `None` when it has closed the channel.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let fd = self.fd.as_ref().unwrap();
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, timeout).unwrap(), 1, "the agent is silent");
        let mut buffer = [0; 64];
        match nix::unistd::read(fd, &mut buffer) {
            Ok(0) | Err(nix::Error::ECONNRESET) => None,
            result => Some(buffer.iter().take(result.unwrap()).copied().collect()),
        }
    }

    /// The service goes away.
    pub(crate) fn hang_up(&mut self) {
        self.fd = None;
    }

    /// Asks the agent to end, without waiting for it.
    pub(crate) fn ask_to_end(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Asks the agent to end when nothing is under way, and returns when it has taken note.
    pub(crate) fn ask_to_retire(&self) {
        for _ in 0..2 {
            // The second one fits in when the first one was taken; an agent that has ended needs none.
            let _ = self.retire.blocking_send(());
        }
    }

    /// Waits for the agent's end.
    pub(crate) fn join(&mut self) -> Result<(), String> {
        let agent = self.agent.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !agent.is_finished() {
            assert!(Instant::now() < deadline, "the agent does not end");
            thread::sleep(Duration::from_millis(2));
        }
        agent.join().unwrap()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shutdown = None;
        self.fd = None;
        if let Some(agent) = self.agent.take() {
            if !thread::panicking() {
                agent.join().unwrap().unwrap();
            }
        }
    }
}

/// Nobody asks for one.
fn no_reload<B: Backend>() -> (tokio::sync::mpsc::Receiver<()>, Reload<B>) {
    let (_, reloads) = tokio::sync::mpsc::channel(1);
    (reloads, Box::new(|_| Err("no reload".into())))
}

fn serve<B: Backend>(
    engine: Engine<B>,
    hold: Duration,
    outlets: Outlets,
    offer: mpsc::Sender<OwnedFd>,
    reload: (tokio::sync::mpsc::Receiver<()>, Reload<B>),
    (shutdown, retirements): (impl Future<Output = ()>, tokio::sync::mpsc::Receiver<()>),
) -> Result<(), String> {
    let limits = session::Limits {
        freeze_request: PATIENCE,
        hold,
    };
    let opener = Box::new(move || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        match offer.send(ours) {
            Ok(()) => Ok(Channel::from_fd(theirs)),
            // Nobody is there to play the driver any more.
            Err(_) => Channel::open(Path::new("/nonexistent")),
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let agent = Agent::start_reloadable(engine, limits, opener, reload)
            .map_err(|error| error.to_string())?;
        let agent = agent.with_retirements(retirements).with_outlets(outlets);
        agent.run(shutdown).await.map_err(|error| error.to_string())
    })
}
