//! Interrupting the system call of another process's thread, without a signal that anyone sees (man 2 ptrace; `kernel/ptrace.c`).
//!
//! [`seize`], [`interrupt`], wait for the stop with [`stopped`], [`detach`]: the thread's system call returns, and an interrupted one that can be
//! restarted is, when the thread goes on. The kernel knows the calling *thread* as the tracer: all four must be called from the same one, and when
//! that ends, whatever it still has attached goes on as if it had never been.

use std::io;

/// A thread that has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// By [`interrupt`], or with its process by a signal that stops it.
    Interrupted,
    /// To be given this signal, which is lost unless [`detach`] passes it on.
    Signal(i32),
    /// It has ended.
    Ended,
}

/// Attaches to the thread `tid` without stopping it (`PTRACE_SEIZE`, Linux 3.4). From now on a signal sent to it stops it until [`detach`].
///
/// May wait as long as another thread of its process is in execve(2), for which there is no limit.
///
/// # Errors
/// `EPERM` when it is traced already, is the kernel's, or may not be traced; `ESRCH` when it is gone.
pub fn seize(tid: u32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, tid, 0)
}

/// Makes a seized thread stop (`PTRACE_INTERRUPT`): at once when it sleeps interruptibly, else when it next returns from the kernel.
///
/// # Errors
/// `ESRCH` when it is gone, or was not seized by this thread.
pub fn interrupt(tid: u32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, tid, 0)
}

/// Whether a seized thread has stopped, or ended; `None` while it has not. Does not wait.
///
/// # Errors
/// `ECHILD` when this thread has not seized it.
pub fn stopped(tid: u32) -> io::Result<Option<Stop>> {
    let mut status: libc::c_int = 0;
    let flags = libc::__WALL | libc::WNOHANG;
    // SAFETY: `status` is ours to be written for the call.
    match unsafe { libc::waitpid(number(tid)?, &raw mut status, flags) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => Ok(Some(what_happened(status))),
    }
}

/// Lets a stopped thread go on, and go: with the signal that it was to be given, or none.
///
/// # Errors
/// `ESRCH` when it is gone, or is not stopped.
pub fn detach(tid: u32, signal: Option<i32>) -> io::Result<()> {
    request(libc::PTRACE_DETACH, tid, signal.unwrap_or(0))
}

fn what_happened(status: libc::c_int) -> Stop {
    if !libc::WIFSTOPPED(status) {
        return Stop::Ended;
    }
    match status >> 16 {
        0 => Stop::Signal(libc::WSTOPSIG(status)),
        _ => Stop::Interrupted,
    }
}

fn number(tid: u32) -> io::Result<libc::pid_t> {
    // 0 and negative ones would mean others.
    match libc::pid_t::try_from(tid) {
        Ok(tid) if tid > 0 => Ok(tid),
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// One of the requests whose last argument is a number, and which take no address.
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;
#[cfg(target_env = "musl")]
type Request = libc::c_int;

fn request(request: Request, tid: u32, data: i32) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    let data = std::ptr::without_provenance_mut::<libc::c_void>(usize::try_from(data).unwrap_or(0));
    // SAFETY: the requests used here read and write no memory of this process: both pointers are a null and a number.
    match unsafe { libc::ptrace(request, number(tid)?, none, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Sends a signal to one thread of a process (man 2 tgkill); to nobody when the two do not belong together.
///
/// # Errors
/// `EPERM`, or `ESRCH` when there is no such thread.
pub fn signal(pid: u32, tid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: three integers.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, number(pid)?, number(tid)?, signal) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    fn stop_of(tid: u32) -> Stop {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(stop) = stopped(tid).unwrap() {
                return stop;
            }
            assert!(Instant::now() < deadline, "it did not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn an_interrupted_process_goes_on_when_it_is_detached() {
        let mut child = sleeper();
        seize(child.id()).unwrap();
        interrupt(child.id()).unwrap();
        assert_eq!(stop_of(child.id()), Stop::Interrupted);
        detach(child.id(), None).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_signal_that_comes_meanwhile_is_passed_on() {
        let mut child = sleeper();
        seize(child.id()).unwrap();
        signal(child.id(), child.id(), libc::SIGTERM).unwrap();
        let stop = stop_of(child.id());
        assert_eq!(stop, Stop::Signal(libc::SIGTERM));
        detach(child.id(), Some(libc::SIGTERM)).unwrap();
        let status = child.wait().unwrap();
        let by = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(by, Some(libc::SIGTERM));
    }

    #[test]
    fn nobody_is_traced_twice_and_no_group_is_meant() {
        let mut child = sleeper();
        let pid = child.id();
        std::thread::spawn(move || {
            seize(pid).unwrap();
            std::thread::scope(|scope| {
                let other = scope.spawn(move || seize(pid).unwrap_err().raw_os_error());
                assert_eq!(other.join().unwrap(), Some(libc::EPERM));
            });
        })
        .join()
        .unwrap();
        // The thread that had it has ended.
        seize(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for tid in [0, u32::MAX] {
            assert_eq!(seize(tid).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        }
    }
}
