//! Calls in a process of their own: one that blocks for ever on a dead device must not keep its parent, and one whose
//! caller dies must still be noted (man 2 fork).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sched::{CloneFlags, unshare};

/// Runs `work` in a child of this process, which has no descriptors but those of `keep`, and ends with it. Gives the child's
/// process id; it is not waited for. SIGCHLD is best ignored by the caller, so that no zombie stays.
///
/// The parent's signal mask is the child's; its locks of memory are not.
///
/// # Errors
/// `EINVAL` in a process of several threads, or what the kernel says to `fork`.
pub fn run(keep: &[BorrowedFd<'_>], work: impl FnOnce()) -> io::Result<libc::pid_t> {
    // Changes nothing: the kernel refuses it to a process of several threads (check_unshare_flags in kernel/fork.c). Another
    // thread could hold a lock, of the heap for one, that nobody would ever let go of in the child.
    unshare(CloneFlags::CLONE_VM)?;
    // SAFETY: this thread is the only one, so the child's memory is as consistent as the parent's; it leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            close_all_but(keep);
            let status = i32::from(catch_unwind(AssertUnwindSafe(work)).is_err());
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// The most descriptors that are looked for on a kernel without `close_range` (Linux 5.9).
const MOST: RawFd = 65536;

/// Closes every descriptor of this process but these. For a child, which drops nothing of what it has inherited.
fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut first: RawFd = 0;
    loop {
        // Without a list in order: that would have to be kept somewhere.
        let later = keep.iter().map(AsRawFd::as_raw_fd);
        let next = later.filter(|fd| *fd >= first).min();
        match next {
            Some(next) if next == first => {}
            Some(next) => close_from(first, next - 1),
            None => return close_from(first, RawFd::MAX),
        }
        first = next.unwrap_or(first) + 1;
    }
}

fn close_from(first: RawFd, last: RawFd) {
    // SAFETY: nothing in this process uses these descriptors any more, and nothing of the parent's is dropped here.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed != 0 {
        for fd in first..=last.min(MOST) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_several_threads_is_refused() {
        let (stop, waits) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || waits.recv().is_err());
        let error = run(&[], || {}).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        drop(stop);
        thread.join().unwrap();
    }
}
