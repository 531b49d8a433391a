//! A host that is not there: the driver's end of the channel, played over a `SOCK_SEQPACKET` pair.
//!
//! The agent at the other end is the one that serves a real driver; only how its channel is opened differs.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hvutil_sys::device::Channel;
use hvutil_sys::vss::{MESSAGE_SIZE, Operation, Reply, Request, Status};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::oneshot;
use zerocopy::IntoBytes;

use super::{DemoError, Interrupted};
use crate::agent::{Agent, session};
use crate::quiesce::guardian::Guardian;
use crate::quiesce::ledger::Place;
use crate::quiesce::{Engine, Kernel, Limits};
use crate::telemetry::Gate;

/// The demo's disks are small: whatever takes longer is stuck.
const LIMIT: Duration = Duration::from_secs(60);

/// The driver and the host behind it. Dropping it ends the agent, which thaws first.
pub(super) struct Host {
    fd: OwnedFd,
    shutdown: Option<oneshot::Sender<()>>,
    agent: Option<thread::JoinHandle<Result<(), String>>>,
    interrupted: Interrupted,
}

/// What the host got, and after how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) took: Duration,
}

impl Host {
    /// Starts the agent and takes its registration, as the driver does.
    pub(super) fn start(
        guardian: Guardian,
        gate: Gate,
        interrupted: &Interrupted,
    ) -> Result<Self, DemoError> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|error| DemoError::because("no socket pair can be made", error))?;
        let (shutdown, asked_to_end) = oneshot::channel();
        let agent = thread::Builder::new()
            .name("agent".to_owned())
            .spawn(move || serve(theirs, guardian, gate, asked_to_end))
            .map_err(|error| DemoError::because("no thread can be started", error))?;
        let host = Self {
            fd: ours,
            shutdown: Some(shutdown),
            agent: Some(agent),
            interrupted: interrupted.clone(),
        };
        let registration = host.receive().and_then(|bytes| {
            let request = Request::decode(&bytes);
            request.ok_or_else(|| DemoError::new("the agent sent no registration"))
        })?;
        if registration.operation != Operation::REGISTER1 {
            return Err(DemoError::new(format!(
                "the agent registers with {} where the driver wants REGISTER1",
                registration.operation
            )));
        }
        host.send(&u32::from(Operation::REGISTER1.0).to_ne_bytes())?;
        Ok(host)
    }

    /// Asks, and waits for the answer.
    pub(super) fn request(&mut self, operation: Operation) -> Result<Answer, DemoError> {
        let started = Instant::now();
        self.send(Request::new(operation).as_bytes())?;
        let bytes = self.receive()?;
        let reply = Reply::decode(&bytes).ok_or_else(|| {
            DemoError::new(format!(
                "the agent answered {} bytes, not {MESSAGE_SIZE}",
                bytes.len()
            ))
        })?;
        let status = [Status::Ok, Status::Fail]
            .into_iter()
            .find(|status| status.code() == reply.code())
            .ok_or_else(|| {
                DemoError::new(format!(
                    "the agent answered {:#x}, which no host knows",
                    reply.code()
                ))
            })?;
        Ok(Answer {
            status,
            took: started.elapsed(),
        })
    }

    /// Ends the agent as SIGTERM would.
    pub(super) fn stop(self) {}

    fn send(&self, bytes: &[u8]) -> Result<(), DemoError> {
        nix::unistd::write(&self.fd, bytes)
            .map(drop)
            .map_err(|error| DemoError::because("the agent has closed the channel", error))
    }

    fn receive(&self) -> Result<Vec<u8>, DemoError> {
        let started = Instant::now();
        loop {
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(100_u8)) {
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => break,
                Err(error) => {
                    return Err(DemoError::because("the channel cannot be polled", error));
                }
            }
            if self.interrupted.load(Ordering::SeqCst) {
                return Err(DemoError::new(
                    "interrupted: everything is thawed and removed",
                ));
            }
            if started.elapsed() > LIMIT {
                return Err(DemoError::new(format!(
                    "the agent did not answer within {} s",
                    LIMIT.as_secs()
                )));
            }
        }
        let mut buffer = [0; 64];
        match nix::unistd::read(&self.fd, &mut buffer) {
            Ok(0) => Err(DemoError::new("the agent has closed the channel")),
            Ok(length) => Ok(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(error) => Err(DemoError::because("the channel cannot be read", error)),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            let _ = shutdown.send(());
        }
        if let Some(agent) = self.agent.take() {
            match agent.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("the agent ended with an error: {error}"),
                Err(_) => tracing::error!("the agent's thread has died"),
            }
        }
    }
}

fn serve(
    fd: OwnedFd,
    guardian: Guardian,
    gate: Gate,
    asked_to_end: oneshot::Receiver<()>,
) -> Result<(), String> {
    let limits = Limits {
        flush: LIMIT / 4,
        freeze: LIMIT / 4,
        hold: LIMIT,
    };
    let session_limits = session::Limits {
        freeze_request: LIMIT / 2,
        hold: LIMIT,
    };
    let mut fd = Some(fd);
    let opener = Box::new(move || match fd.take() {
        Some(fd) => Ok(Channel::from_fd(fd)),
        None => Channel::open(std::path::Path::new("/nonexistent")),
    });
    let engine = Engine::new(Kernel::of_own_namespace().expedited(), limits, gate)
        .guarded(Box::new(guardian), Place::Memory);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let agent =
            Agent::start(engine, session_limits, opener).map_err(|error| error.to_string())?;
        let ended = agent.run(async { drop(asked_to_end.await) }).await;
        ended.map_err(|error| error.to_string())
    })
}
