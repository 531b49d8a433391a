//! The guardian's own side: one thread that waits, and thaws when the agent dies or the limit passes.
//!
//! While armed it allocates nothing, opens nothing and writes nothing. A thaw may block for ever on a dead device, so
//! each is made in a child of its own; the next stage does not wait for it longer than a moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hvutil_sys::child::{self, Unfrozen};
use hvutil_sys::shared::SharedBytes;
use hvutil_sys::{freeze, socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getppid};

use super::wire::{ARMED, LONGEST, Order, READY};
use crate::filesystems::text::printable;
use crate::quiesce::expedite::Expedite;
use crate::quiesce::ledger::{self, Mark};
use crate::quiesce::report;

/// The signal of the agent's death. The end of the socket alone would come too late: a thread of the agent's that is
/// stuck in a freeze keeps it open.
const AGENT_DIED: Signal = Signal::SIGUSR1;

/// How long a stage's thaws are waited for before the next stage's begin.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the guardian watches over.
struct Watch {
    ledger: File,
    marks: SharedBytes,
    handles: Vec<Guarded>,
    expected: usize,
    acknowledged: bool,
    /// The switch that the agent uses in the freeze, as it was before.
    was_expedited: Option<bool>,
    deadline: Option<Instant>,
}

struct Guarded {
    fd: OwnedFd,
    stage: u32,
    offset: usize,
}

/// Why the guardian acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    AgentDied,
    LimitPassed,
}

/// Serves the agent at the other end of `socket` until it is gone and nothing is left to thaw.
///
/// # Errors
/// What the kernel says to the set-up; once it serves, it only ends well.
pub fn run(socket: OwnedFd, agent: i32) -> io::Result<()> {
    let mut signals = SigSet::all();
    signals.remove(Signal::SIGCHLD);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    set_pdeathsig(AGENT_DIED)?;
    if getppid() != Pid::from_raw(agent) {
        return Ok(());
    }
    let expedite = Expedite::open();
    socket::send(&socket, &[READY], &[])?;
    let mut watch: Option<Watch> = None;
    let mut buffer = vec![0; LONGEST];
    loop {
        match wait(
            &socket,
            &signals,
            watch.as_ref().and_then(|watch| watch.deadline),
        )? {
            Wake::Signal(Some(signal)) if signal == AGENT_DIED => break,
            // A stop of the service must not end the one that thaws.
            Wake::Signal(signal) if watch.is_none() && signal.is_some_and(ends) => return Ok(()),
            Wake::Signal(_) => {}
            Wake::Limit => {
                if let Some(watch) = &mut watch {
                    watch.deadline = None;
                    watch.rescue(Cause::LimitPassed, &socket);
                }
            }
            Wake::Socket => match socket::receive(&socket, &mut buffer) {
                Ok((0, _)) => break,
                Ok((length, descriptors)) => {
                    let order = buffer.get(..length).and_then(Order::decode);
                    let arming = matches!(order, Some(Order::Arm { .. }));
                    if !obey(order, descriptors, &mut watch)? {
                        return Ok(());
                    }
                    if let Some(watch) = watch.as_mut().filter(|_| arming) {
                        watch.was_expedited = expedite.as_ref().and_then(Expedite::is_on);
                    }
                    if let Some(watch) = watch.as_mut().filter(|watch| watch.is_newly_complete()) {
                        watch.acknowledged = true;
                        socket::send(&socket, &[ARMED], &[])?;
                    }
                }
                Err(_) => break,
            },
        }
    }
    if let Some(mut watch) = watch {
        // The agent has it on in the moment of the freeze only; nobody else in a guest has it on at all.
        if let Some(expedite) = expedite.filter(|_| watch.was_expedited == Some(false)) {
            expedite.set(false);
        }
        watch.rescue(Cause::AgentDied, &socket);
    }
    Ok(())
}

const fn ends(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP)
}

enum Wake {
    Socket,
    Signal(Option<Signal>),
    Limit,
}

fn wait(socket: &OwnedFd, signals: &SignalFd, deadline: Option<Instant>) -> io::Result<Wake> {
    loop {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spent in a busy loop.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if fds.first().and_then(PollFd::any) == Some(true) {
            let signal = signals.read_signal()?;
            let number = signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok());
            return Ok(Wake::Signal(
                number.and_then(|number| Signal::try_from(number).ok()),
            ));
        }
        if fds.get(1).and_then(PollFd::any) == Some(true) {
            return Ok(Wake::Socket);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Wake::Limit);
        }
    }
}

/// `false`: an agent that sends garbage is none.
fn obey(
    order: Option<Order>,
    descriptors: Vec<OwnedFd>,
    watch: &mut Option<Watch>,
) -> io::Result<bool> {
    match (order, watch) {
        (Some(Order::Arm { handles, limit }), watch) => {
            let Some(ledger) = descriptors.into_iter().next().map(File::from) else {
                return Ok(false);
            };
            let expected = usize::try_from(handles).map_err(io::Error::other)?;
            *watch = Some(Watch {
                marks: SharedBytes::map(&ledger)?,
                ledger,
                handles: Vec::with_capacity(expected),
                expected,
                acknowledged: false,
                was_expedited: None,
                deadline: Instant::now().checked_add(limit),
            });
        }
        (Some(Order::Handles(places)), Some(watch)) if places.len() == descriptors.len() => {
            let handles = places.iter().zip(descriptors).map(|(place, fd)| Guarded {
                fd,
                stage: place.stage,
                offset: place.offset as usize,
            });
            watch.handles.extend(handles);
        }
        (Some(Order::Hold { limit }), Some(watch)) => {
            watch.deadline = Instant::now().checked_add(limit);
        }
        (Some(Order::Disarm), watch) => *watch = None,
        _ => return Ok(false),
    }
    Ok(true)
}

impl Watch {
    fn is_newly_complete(&self) -> bool {
        !self.acknowledged && self.handles.len() == self.expected
    }

    fn mark(&self, handle: &Guarded) -> Mark {
        self.marks
            .load(handle.offset)
            .map_or(Mark::Freezing, Mark::from_byte)
    }

    /// Thaws what the agent has frozen, in reverse; after its death also what it was freezing. Then says so.
    fn rescue(&mut self, cause: Cause, socket: &OwnedFd) {
        let started = Instant::now();
        let last = self.handles.last().map_or(0, |handle| handle.stage);
        let mut count = 0;
        // What failed at the limit is tried again after the agent's death.
        let wanted = |mark: Mark| {
            mark == Mark::Frozen || (mark == Mark::Failed && cause == Cause::AgentDied)
        };
        for stage in (0..=last).rev() {
            let frozen =
                |handle: &&Guarded| handle.stage == stage && self.mark(handle) == Mark::Frozen;
            let to_thaw = |handle: &&Guarded| handle.stage == stage && wanted(self.mark(handle));
            for handle in self.handles.iter().filter(to_thaw) {
                self.marks.store(handle.offset, Mark::Frozen.byte());
                self.thaw(handle, Unfrozen::Done);
                count += 1;
            }
            let patience = Instant::now() + PATIENCE;
            while Instant::now() < patience && self.handles.iter().any(|handle| frozen(&handle)) {
                pause();
            }
        }
        if cause == Cause::AgentDied {
            // Their freeze may have succeeded unseen, or may still be at work in a thread that cannot be killed.
            let unknown = |handle: &&Guarded| self.mark(handle) == Mark::Freezing;
            for handle in self.handles.iter().filter(unknown) {
                self.thaw(handle, Unfrozen::RetryUntilClosed(socket.as_fd()));
                count += 1;
            }
            let patience = Instant::now() + PATIENCE;
            while Instant::now() < patience
                && self
                    .handles
                    .iter()
                    .any(|handle| self.mark(handle).wants_thaw())
            {
                pause();
            }
        }
        self.report(cause, count, started.elapsed());
        // What does not return is waited for by its child; this process stays, so that its service stays.
        while cause == Cause::AgentDied
            && self
                .handles
                .iter()
                .any(|handle| matches!(self.mark(handle), Mark::Freezing | Mark::Frozen))
        {
            sleep(Duration::from_millis(50));
            reap();
        }
    }

    fn thaw(&self, handle: &Guarded, unfrozen: Unfrozen<'_>) {
        let mark = child::Mark {
            bytes: &self.marks,
            index: handle.offset,
            thawed: Mark::Thawed.byte(),
            failed: Mark::Failed.byte(),
        };
        if child::thaw(handle.fd.as_fd(), mark, unfrozen).is_err() {
            // No process to be had: better to risk waiting than to leave it frozen.
            let mark = match freeze::thaw(&handle.fd) {
                Ok(()) => Mark::Thawed,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Mark::Thawed,
                Err(_) => Mark::Failed,
            };
            self.marks.store(handle.offset, mark.byte());
        }
    }

    fn report(&self, cause: Cause, count: usize, took: Duration) {
        let cause = match cause {
            Cause::AgentDied => "the agent died in a checkpoint",
            Cause::LimitPassed => "the agent did not thaw within its limit",
        };
        tracing::warn!(
            "guardian: {cause}: {} to thaw, done in {} ms",
            report::count(count, "file system"),
            took.as_millis()
        );
        let entries = self
            .ledger
            .try_clone()
            .and_then(ledger::read_from)
            .unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry.mark.wants_thaw()) {
            tracing::error!(
                "guardian: {} ({}) is not thawed: its device may be stuck; the attempt goes on",
                printable(&entry.mount_point),
                entry.dev
            );
        }
    }
}

fn pause() {
    sleep(Duration::from_millis(1));
    reap();
}

fn reap() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some())
    {
    }
}
