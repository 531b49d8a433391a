//! Making a thread leave its system call, and begin it again.
//!
//! While the thread is out of the call it has given up its write access; when it begins again, it waits for the thaw like any other writer.
//! Opens nothing, and looks up no path.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use hvutil_sys::ptrace::{self, Stop};

use super::sleep::{Look, Sleep, SleepState};

/// How long all of them together may take to stop. It takes one of them some microseconds.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// How long a process may stay stopped, where there is no way but to stop it.
const SIGNAL_DEADLINE: Duration = Duration::from_millis(250);

const POLL_INTERVAL: Duration = Duration::from_micros(500);

/// Enough for what [`interrupt_one`] calls.
const STACK: usize = 64 << 10;

/// What became of a writer that was to be interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterruptOutcome {
    /// It has left its system call, and begins it again; nobody saw it.
    Interrupted,
    /// The same, but by SIGSTOP and SIGCONT, which its parent may have seen.
    StoppedAndContinued,
    /// It had left its system call by itself, or has ended.
    Gone,
    /// It is in its system call and waits for the thaw: it does not hold up a freeze.
    WaitsForThaw,
    /// It sleeps uninterruptibly, or did not stop in time.
    Uninterruptible,
    /// Nothing was done to it, for this reason.
    LeftAlone(LeftAlone),
    /// The kernel does not allow it.
    Refused(Refusal),
}

/// Why nothing was done to a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAlone {
    /// `exclude_processes` names it.
    Excluded,
    /// `interrupt_writers = false`.
    SwitchedOff,
    /// It is stopped already, and holds nothing.
    Stopped,
    /// Its system call would not begin again.
    NoRestart,
}

/// What the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is traced already, or may be neither traced nor sent a signal.
    NotPermitted,
    /// There is no thread to do it with.
    NoThread,
    /// Another error number.
    Other(i32),
}

impl Refusal {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            Some(number) => Self::Other(number),
            None => Self::Other(0),
        }
    }
}

/// Interrupts each of them, all at the same time: an outcome for each, in their order.
///
/// Each has a thread of its own, whose end lets go of whatever it still has attached. One that waits for its turn to attach, for which there is no
/// limit (execve(2) of another thread of that process), is left behind, and does nothing when its turn comes.
pub(super) fn interrupt(sleeps: &[Arc<Sleep>]) -> Vec<InterruptOutcome> {
    let deadline = Instant::now() + STOP_DEADLINE;
    let late = Arc::new(AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    let mut outcomes: Vec<Option<InterruptOutcome>> = vec![None; sleeps.len()];
    for (index, (sleep, outcome)) in sleeps.iter().zip(&mut outcomes).enumerate() {
        *outcome = without_touching(sleep);
        if outcome.is_none() {
            *outcome = start(index, sleep, deadline, &late, &tell);
        }
    }
    drop(tell);
    // Ends also when the last of them has told its outcome.
    while let Ok((index, outcome)) =
        told.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        if let Some(place) = outcomes.get_mut(index) {
            *place = Some(outcome);
        }
    }
    late.store(true, Ordering::SeqCst);
    let missing = InterruptOutcome::Uninterruptible;
    outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or(missing.clone()))
        .collect()
}

/// What is to be said of one that needs no interruption, or cannot be interrupted.
fn without_touching(sleep: &Sleep) -> Option<InterruptOutcome> {
    match sleep.look() {
        Look::Holds(SleepState::Interruptible) => None,
        Look::Holds(SleepState::Uninterruptible) => Some(InterruptOutcome::Uninterruptible),
        Look::Holds(SleepState::Stopped) => Some(InterruptOutcome::LeftAlone(LeftAlone::Stopped)),
        Look::Waits => Some(InterruptOutcome::WaitsForThaw),
        Look::Left => Some(InterruptOutcome::Gone),
    }
}

fn start(
    index: usize,
    sleep: &Arc<Sleep>,
    deadline: Instant,
    late: &Arc<AtomicBool>,
    tell: &Sender<(usize, InterruptOutcome)>,
) -> Option<InterruptOutcome> {
    let (sleep, late, tell) = (Arc::clone(sleep), Arc::clone(late), tell.clone());
    let thread = thread::Builder::new()
        .name("interrupt".to_owned())
        .stack_size(STACK);
    let started = thread.spawn(move || {
        let outcome = interrupt_one(&sleep, deadline, &late);
        let _ = tell.send((index, outcome));
    });
    match started {
        Ok(_) => None,
        Err(_) => Some(InterruptOutcome::Refused(Refusal::NoThread)),
    }
}

/// The thread that calls this must end soon after: that detaches what could not be detached.
fn interrupt_one(sleep: &Sleep, deadline: Instant, late: &AtomicBool) -> InterruptOutcome {
    match ptrace::seize(sleep.tid) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return InterruptOutcome::Gone,
        Err(error) => return stop_and_continue(sleep, &error),
    }
    // It may have waited for its turn; and the number may be another thread's by now.
    if late.load(Ordering::SeqCst) || !sleep.is_in_call() {
        return InterruptOutcome::Gone;
    }
    if ptrace::interrupt(sleep.tid).is_err() {
        return InterruptOutcome::Gone;
    }
    while Instant::now() < deadline {
        match ptrace::stopped(sleep.tid) {
            Ok(None) => thread::sleep(POLL_INTERVAL),
            Ok(Some(Stop::Interrupted)) => {
                return detached(ptrace::detach(sleep.tid, None));
            }
            // A signal came at the same time: it has left the call as well, and is given its signal.
            Ok(Some(Stop::Signal(signal))) => {
                return detached(ptrace::detach(sleep.tid, Some(signal)));
            }
            Ok(Some(Stop::Ended)) | Err(_) => return InterruptOutcome::Gone,
        }
    }
    InterruptOutcome::Uninterruptible
}

fn detached(result: io::Result<()>) -> InterruptOutcome {
    match result {
        Ok(()) => InterruptOutcome::Interrupted,
        // It was killed while it was stopped.
        Err(_) => InterruptOutcome::Gone,
    }
}

/// For a thread that may not be traced, for `why`: its process is stopped for a moment.
fn stop_and_continue(sleep: &Sleep, why: &io::Error) -> InterruptOutcome {
    let refused = InterruptOutcome::Refused(Refusal::of(why));
    // The first process pays no heed to it.
    if sleep.pid == 1 {
        return refused;
    }
    if let Some(outcome) = without_touching(sleep) {
        return outcome;
    }
    if ptrace::signal(sleep.pid, sleep.tid, libc::SIGSTOP).is_err() {
        return refused;
    }
    let deadline = Instant::now() + SIGNAL_DEADLINE;
    // Stopped; or told to go on by whoever traces it, and waiting for the thaw by now.
    let has_left = || match sleep.look() {
        Look::Holds(state) => state == SleepState::Stopped,
        Look::Waits => true,
        Look::Left => sleep.is_gone(),
    };
    let mut left = has_left();
    while !left && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
        left = has_left();
    }
    // Also where it did not stop: this takes back a SIGSTOP that has had no effect yet.
    let _ = ptrace::signal(sleep.pid, sleep.tid, libc::SIGCONT);
    match left {
        true => InterruptOutcome::StoppedAndContinued,
        false => InterruptOutcome::Uninterruptible,
    }
}
