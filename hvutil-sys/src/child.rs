//! A thaw in a process of its own: it may block for ever on a dead device, and its parent must not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::freeze;
use crate::shared::SharedBytes;

/// Where a child tells how its thaw went.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// The bytes shared with the parent.
    pub bytes: &'a SharedBytes,
    /// Which of them is this thaw's.
    pub index: usize,
    /// Stored when the file system is thawed, or was not frozen.
    pub thawed: u8,
    /// Stored when it cannot be thawed.
    pub failed: u8,
}

/// What a child does about a file system that is not frozen.
#[derive(Clone, Copy, Debug)]
pub enum Unfrozen<'a> {
    /// That is as good as thawed.
    Done,
    /// A freeze may still be on its way: try again, until the other end of this socket is closed, then once more.
    RetryUntilClosed(BorrowedFd<'a>),
}

/// Starts a child that thaws the file system `fd` lies on, and marks the outcome. The child is not waited for.
///
/// The child allocates nothing, opens nothing and runs nothing; it ends with the one call it was made for. SIGCHLD is
/// best ignored by the caller, so that no zombie stays.
///
/// # Errors
/// What the kernel says to `fork`.
pub fn thaw(fd: BorrowedFd<'_>, mark: Mark<'_>, unfrozen: Unfrozen<'_>) -> io::Result<()> {
    // SAFETY: the child makes system calls and atomic stores only, takes no lock, and leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let outcome = if thaw_at_last(fd, unfrozen) {
                mark.thawed
            } else {
                mark.failed
            };
            mark.bytes.store(mark.index, outcome);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

fn thaw_at_last(fd: BorrowedFd<'_>, unfrozen: Unfrozen<'_>) -> bool {
    loop {
        let closed = match unfrozen {
            Unfrozen::Done => true,
            // Looked at before the thaw: what is closed now will freeze nothing afterwards.
            Unfrozen::RetryUntilClosed(socket) => is_closed(socket),
        };
        match freeze::thaw(fd) {
            Ok(()) => return true,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && closed => return true,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return false,
        }
    }
}

/// Whether the other end of a socket is gone, and so the process that had it.
fn is_closed(socket: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd, ours for the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & (libc::POLLHUP | libc::POLLERR) != 0
}
