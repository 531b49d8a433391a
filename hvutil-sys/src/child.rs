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
    /// A freeze may still be on its way: try again, until the other end of the socket is closed, then once more; or
    /// until the mark is another than `still`, because whoever froze has come to an end with it.
    RetryUntilClosed {
        /// Its other end is the process that froze.
        socket: BorrowedFd<'a>,
        /// The mark of a freeze that has not returned.
        still: u8,
    },
}

/// Starts a child that thaws the file system `fd` lies on, and marks the outcome. Gives the child's
/// process id; it is not waited for.
///
/// The child allocates nothing, opens nothing and runs nothing; it ends with the one call it was made for. SIGCHLD is
/// best ignored by the caller, so that no zombie stays.
///
/// # Errors
/// What the kernel says to `fork`.
pub fn thaw(fd: BorrowedFd<'_>, mark: Mark<'_>, unfrozen: Unfrozen<'_>) -> io::Result<libc::pid_t> {
    // SAFETY: the child makes system calls and atomic stores only, takes no lock, and leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let marked = mark.bytes.load(mark.index);
            if let Some(thawed) = thaw_at_last(fd, mark, unfrozen) {
                let outcome = if thawed { mark.thawed } else { mark.failed };
                // Not where the agent has had the last word meanwhile.
                let _ = marked.is_some_and(|old| mark.bytes.swap_if(mark.index, old, outcome));
            }
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(pid),
    }
}

/// Whether it is thawed; `None` when it is no longer this child's to thaw.
fn thaw_at_last(fd: BorrowedFd<'_>, mark: Mark<'_>, unfrozen: Unfrozen<'_>) -> Option<bool> {
    loop {
        let closed = match unfrozen {
            Unfrozen::Done => true,
            Unfrozen::RetryUntilClosed { still, .. }
                if mark.bytes.load(mark.index) != Some(still) =>
            {
                return None;
            }
            // Looked at before the thaw: what is closed now will freeze nothing afterwards.
            Unfrozen::RetryUntilClosed { socket, .. } => is_closed(socket),
        };
        match freeze::thaw(fd) {
            Ok(()) => return Some(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && closed => {
                return Some(true);
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return Some(false),
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
