//! A process for each file system of a checkpoint, which makes the calls on it: `FIFREEZE` and `FITHAW`.
//!
//! A thread that dies in a call tells nobody how the call went, and whether what is frozen then is ours cannot be found out any
//! more. So the calls are made by children of the guardian: whichever of agent and guardian dies, even with SIGKILL, the
//! call is ended and noted in the ledger. When both are gone, the child thaws by itself.
//!
//! It makes system calls and sets its mark, and does nothing else: no allocation, no open, no log.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use hvutil_sys::{child, freeze, memory};
use nix::unistd::{Pid, getppid};

use crate::quiesce::ledger;
use crate::quiesce::protocol::{
    By, Call, End, FreezePart, Known, MarkCell, RescuePart, ThawPart, carry_out,
};

/// Which call is wanted, as one byte.
const FREEZE: u8 = b'F';
const THAW: u8 = b'T';

/// How often a process without an agent looks whether its guardian has thawed.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Errors of ours, in place of the kernel's.
const WITHDRAWN: i32 = libc::ECANCELED;
const TAKEN: i32 = libc::EALREADY;

/// The agent's end of such a process.
#[derive(Debug)]
pub struct Freezer(File);

/// The process has died: how its last call went is not known.
#[derive(Debug, thiserror::Error)]
#[error("the process that makes its calls has died")]
pub struct Died;

impl Freezer {
    /// Two ends of a connection: the agent's, and that of the process to come.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(OwnedFd::from(ours).into()), theirs.into()))
    }

    /// Has a call made, and waits for its return, however long that takes. `Ok` with the error of the call, or with one of ours: the freeze
    /// was given up meanwhile (`ECANCELED`), or the guardian thaws (`EALREADY`).
    ///
    /// # Errors
    /// [`Died`].
    pub fn call(&self, call: Call) -> Result<io::Result<()>, Died> {
        let wanted = match call {
            Call::Freeze => FREEZE,
            Call::Thaw => THAW,
        };
        let mut socket = &self.0;
        let mut answer = [0; 4];
        socket
            .write_all(&[wanted])
            .and_then(|()| socket.read_exact(&mut answer))
            .map_err(|_| Died)?;
        Ok(match i32::from_ne_bytes(answer) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        })
    }
}

/// The file system is not to be frozen any more: it was given up, or the guardian has acted.
pub(in crate::quiesce) fn withdrawn() -> io::Error {
    io::Error::from_raw_os_error(WITHDRAWN)
}

/// Whether a freeze came to nothing because of that.
pub(in crate::quiesce) fn is_withdrawn(error: &io::Error) -> bool {
    error.raw_os_error() == Some(WITHDRAWN)
}

/// The guardian thaws it, or has.
pub(in crate::quiesce) fn taken() -> io::Error {
    io::Error::from_raw_os_error(TAKEN)
}

/// Whether a thaw came to nothing because of that.
pub(in crate::quiesce) fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(TAKEN)
}

/// What a part came to, as its caller wants to know it: the kernel's error, or one of ours.
pub(in crate::quiesce) fn outcome(end: End, error: Option<io::Error>) -> io::Result<()> {
    match end {
        End::Frozen | End::Thawed => Ok(()),
        End::Withdrawn => Err(withdrawn()),
        End::Taken | End::InCall => Err(taken()),
        End::NotFrozen | End::WasNotFrozen | End::Failed => Err(error.unwrap_or_else(taken)),
    }
}

/// Starts such a process, for the file system of `handle` with this mark, at the other end of `socket`. Gives its process id.
pub(super) fn start(
    handle: BorrowedFd<'_>,
    mark: ledger::Cell<'_>,
    socket: OwnedFd,
) -> io::Result<i32> {
    let guardian = Pid::this();
    let socket = File::from(socket);
    child::run(&[handle, socket.as_fd()], || {
        // As far as it goes: it inherits no lock.
        let _ = memory::lock_touched();
        if serve(handle, mark, &socket) {
            outlive(handle, mark, guardian);
        }
    })
}

/// Until the agent is gone, or has done with it. Whether this process has frozen anything.
fn serve(handle: BorrowedFd<'_>, mark: ledger::Cell<'_>, mut socket: &File) -> bool {
    let mut wanted = [0];
    let mut has_frozen = false;
    while socket.read_exact(&mut wanted).is_ok() {
        let (end, error) = match wanted {
            [FREEZE] => carry_out(FreezePart::default(), &mark, |call| make(call, handle)),
            [THAW] => carry_out(ThawPart::new(By::Freezer), &mark, |call| make(call, handle)),
            _ => break,
        };
        has_frozen |= end == End::Frozen;
        let errno = match outcome(end, error) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        if socket.write_all(&errno.to_ne_bytes()).is_err() {
            break;
        }
    }
    has_frozen
}

/// The guardian thaws in its order, as long as it is there; without it everything is thawed at once.
fn outlive(handle: BorrowedFd<'_>, mark: ledger::Cell<'_>, guardian: Pid) {
    while mark.load().wants_thaw() {
        if getppid() != guardian {
            let known = Known {
                // It is in no call itself.
                freezer: false,
                agent: true,
                // A child of it may have outlived it, in a thaw.
                guardian: true,
                start: true,
                failed_too: true,
            };
            carry_out(RescuePart::new(By::Freezer, known), &mark, |call| {
                make(call, handle)
            });
            return;
        }
        sleep(POLL_INTERVAL);
    }
}

/// Makes a call.
pub(super) fn make(call: Call, handle: BorrowedFd<'_>) -> io::Result<()> {
    match call {
        Call::Freeze => freeze::freeze(handle),
        Call::Thaw => freeze::thaw(handle),
    }
}
