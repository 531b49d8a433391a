//! The guardian: a second process that thaws what the agent froze, should the agent die or hang.
//!
//! It has copies of all handles before the first freeze, and shares the ledger's marks, so it knows what the agent has
//! frozen at the moment of its death. See [`process`] for its own side. Its children make the calls: see [`freezer`].

pub mod freezer;
pub mod process;
mod rehearsal;
mod rescue;
mod wire;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hvutil_sys::socket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair};
use nix::sys::time::{TimeVal, TimeValLike};

use self::freezer::Freezer;
use self::wire::{ARMED, MAX_HANDLES, Order, Place, READY};
use super::ledger::Ledger;

/// A guardian that does not answer in this time is replaced.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// So much longer it has for each handle: it starts a process for it.
const FREEZER_TIMEOUT: Duration = Duration::from_millis(50);

/// Why no guardian watches over a freeze.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// It cannot be started.
    #[error("the guardian process cannot be started")]
    Start(#[source] io::Error),
    /// It has died, and cannot be replaced here.
    #[error("the guardian process has died")]
    Died,
    /// A handle has no descriptor that could be handed over.
    #[error("a file system has no descriptor for the guardian")]
    Unguarded,
    /// It did not take the handles.
    #[error("the guardian process does not take the handles")]
    Arm(#[source] io::Error),
}

/// Whoever thaws should the engine's process not.
pub trait Guard: std::fmt::Debug + Send {
    /// Makes sure that it is there; one that died is replaced.
    ///
    /// # Errors
    /// [`GuardianError`]: without it nothing may be frozen.
    fn check(&mut self) -> Result<(), GuardianError>;

    /// Hands over the handles of all stages, in freeze order, with their place in the ledger. Thaws after `limit`. Gives what makes
    /// the calls on each, in the same order; nothing where the engine is to make them itself.
    ///
    /// # Errors
    /// [`GuardianError`]: nothing may be frozen.
    fn arm(
        &mut self,
        ledger: &Ledger,
        stages: &[Vec<(BorrowedFd<'_>, usize)>],
        limit: Duration,
    ) -> Result<Vec<Freezer>, GuardianError>;

    /// The next part of the checkpoint begins: it thaws after this time from now instead.
    fn renew(&mut self, limit: Duration);

    /// Nothing is left to thaw.
    fn disarm(&mut self);

    /// Its process id, if it is a process and there.
    fn pid(&self) -> Option<u32> {
        None
    }
}

/// The guardian process, seen from the agent.
#[derive(Debug)]
pub struct Guardian {
    process: Option<Process>,
    program: PathBuf,
    replace: bool,
}

#[derive(Debug)]
struct Process {
    socket: OwnedFd,
    child: Child,
}

impl Guardian {
    /// Starts the process. It is tied to the calling thread: when that ends, the guardian acts.
    ///
    /// `replace`: one that died is started anew when next needed, by whichever thread then asks.
    ///
    /// # Errors
    /// [`GuardianError::Start`].
    pub fn start(replace: bool) -> Result<Self, GuardianError> {
        // The running binary itself, also when a package upgrade has put another in its place.
        Self::start_program(Path::new("/proc/self/exe"), replace)
    }

    /// As [`Guardian::start`], for a process that is not the `hv-vssd` binary itself: `program` is.
    ///
    /// # Errors
    /// [`GuardianError::Start`].
    pub fn start_program(program: &Path, replace: bool) -> Result<Self, GuardianError> {
        let process = Process::start(program).map_err(GuardianError::Start)?;
        Ok(Self {
            process: Some(process),
            program: program.to_owned(),
            replace,
        })
    }

    fn process(&self) -> Result<&Process, GuardianError> {
        self.process.as_ref().ok_or(GuardianError::Died)
    }
}

impl Guard for Guardian {
    fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    fn check(&mut self) -> Result<(), GuardianError> {
        if self.process.as_mut().is_some_and(Process::is_alive) {
            return Ok(());
        }
        self.process = None;
        if !self.replace {
            return Err(GuardianError::Died);
        }
        self.process = Some(Process::start(&self.program).map_err(GuardianError::Start)?);
        tracing::warn!("the guardian had died and was replaced");
        Ok(())
    }

    fn arm(
        &mut self,
        ledger: &Ledger,
        stages: &[Vec<(BorrowedFd<'_>, usize)>],
        limit: Duration,
    ) -> Result<Vec<Freezer>, GuardianError> {
        let armed = self.process()?.arm(ledger, stages, limit);
        armed.map_err(|error| {
            // A late answer of it would be taken for that to the next arming.
            if let Some(mut process) = self.process.take() {
                process.kill();
            }
            GuardianError::Arm(error)
        })
    }

    fn renew(&mut self, limit: Duration) {
        // One that has just died is noticed when it is disarmed.
        if let Ok(process) = self.process() {
            let _ = process.send(&Order::Limit(limit), &[]);
        }
    }

    fn disarm(&mut self) {
        let Some(process) = &self.process else {
            return;
        };
        if process.send(&Order::Disarm, &[]).is_err() {
            tracing::warn!("the guardian died during the hold; the agent thawed by itself");
        }
    }
}

impl Process {
    fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        // A guardian that is stopped, with its queue full, must not stop the agent.
        let timeout = ANSWER_TIMEOUT.as_secs().try_into().unwrap_or(5);
        setsockopt(&ours, SendTimeout, &TimeVal::seconds(timeout))?;
        let child = Command::new(program)
            .arg0("hv-vssd")
            .args(["guardian", "--agent", &std::process::id().to_string()])
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .current_dir("/")
            .spawn()?;
        let mut process = Self {
            socket: ours,
            child,
        };
        if let Err(error) = process.expect(READY, ANSWER_TIMEOUT) {
            process.kill();
            return Err(error);
        }
        Ok(process)
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn arm(
        &self,
        ledger: &Ledger,
        stages: &[Vec<(BorrowedFd<'_>, usize)>],
        limit: Duration,
    ) -> io::Result<Vec<Freezer>> {
        let too_many = |_| io::Error::other("too many file systems");
        let handles = stages.iter().map(Vec::len).sum::<usize>();
        let count = u32::try_from(handles).map_err(too_many)?;
        let order = Order::Arm {
            handles: count,
            limit,
        };
        self.send(&order, &[ledger.file().as_fd()])?;
        let mut places = Vec::with_capacity(handles);
        let mut freezers = Vec::with_capacity(handles);
        for (stage, handles) in stages.iter().enumerate() {
            for (fd, index) in handles {
                let offset = ledger.offset(*index).unwrap_or_default();
                let place = Place {
                    stage: stage.try_into().map_err(too_many)?,
                    offset: offset.try_into().map_err(too_many)?,
                };
                let (freezer, theirs) = Freezer::pair()?;
                freezers.push(freezer);
                places.push((place, *fd, theirs));
            }
        }
        for part in places.chunks(MAX_HANDLES) {
            let numbers = part.iter().map(|(place, ..)| *place).collect();
            let descriptors: Vec<_> = part
                .iter()
                .flat_map(|(_, fd, theirs)| [*fd, theirs.as_fd()])
                .collect();
            self.send(&Order::Handles(numbers), &descriptors)?;
        }
        self.expect(ARMED, ANSWER_TIMEOUT + FREEZER_TIMEOUT * count)?;
        Ok(freezers)
    }

    fn send(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send(&self.socket, &order.encode(), descriptors)
    }

    fn expect(&self, answer: u8, timeout: Duration) -> io::Result<()> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut buffer = [0];
        match socket::receive(&self.socket, &mut buffer)? {
            (1, _) if buffer == [answer] => Ok(()),
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(io::Error::other("it answered something else")),
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends by itself when the socket closes, after it has thawed what is left; only one that has ended
        // already is waited for.
        let _ = self.child.try_wait();
    }
}
