//! The guardian's own side: one thread that waits, and thaws when the agent dies or the limit passes.
//!
//! While armed it allocates nothing, opens nothing and writes nothing. A thaw may block for ever on a dead device, so
//! each is made in a child of its own; the next stage does not wait for it longer than a moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use hvutil_sys::shared::SharedBytes;
use hvutil_sys::socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{Pid, getppid, setsid};

use super::rehearsal::rehearse;
use super::rescue::{Cause, Guarded, RETRY_INTERVAL, Watch, reap};
use super::wire::{ARMED, LONGEST, Order, READY};
use crate::quiesce::expedite::Expedite;

/// The signal of the agent's death. The end of the socket alone would come too late: a thread of the agent's that is
/// stuck in a call keeps it open.
const AGENT_DIED: Signal = Signal::SIGUSR1;

/// So long the agent is looked at after such a signal that may be someone else's, which the kernel may have merged with its own.
const DOUBT: Duration = Duration::from_secs(1);

/// How often.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Serves the agent at the other end of `socket` until it is gone and nothing is left to thaw.
///
/// # Errors
/// What the kernel says to the set-up; once it serves, it only ends well.
pub fn run(socket: OwnedFd, agent: i32) -> io::Result<()> {
    // None of them ends or stops it: it ends with its agent. Whoever signals every process of the name means the agent.
    let signals = SigSet::all();
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // Whoever kills the agent's process group, or hangs up its terminal, does not reach this process.
    let _ = setsid();
    set_pdeathsig(AGENT_DIED)?;
    let agent = Agent::watch(Pid::from_raw(agent));
    if agent.is_gone() {
        return Ok(());
    }
    let expedite = Expedite::open();
    socket::send(&socket, &[READY], &[])?;
    // The agent goes on meanwhile, but freezes nothing before this process has answered that it is armed.
    if let Err(error) = rehearse() {
        tracing::warn!("guardian: the rehearsal of a thaw has failed: {error}");
    }
    let mut watch = None;
    let served = serve(&socket, &signals, &agent, expedite.as_ref(), &mut watch);
    // However it ended: what is frozen is thawed before this process goes.
    if let Some(watch) = watch {
        end_hurry(expedite.as_ref(), &watch);
        watch.rescue(Cause::AgentDied);
    }
    served
}

/// The process that started this one.
struct Agent {
    pid: Pid,
    /// What the kernel tells of it, open from the start.
    stat: Option<File>,
}

impl Agent {
    fn watch(pid: Pid) -> Self {
        Self {
            pid,
            stat: File::open(format!("/proc/{pid}/stat")).ok(),
        }
    }

    /// Its last thread has ended.
    fn is_gone(&self) -> bool {
        getppid() != self.pid
    }

    /// It has ended, or has been killed and waits for a thread of it that is stuck in a call.
    fn is_dead(&self) -> bool {
        if self.is_gone() {
            return true;
        }
        let mut stat = [0; 128];
        let read = self.stat.as_ref().map(|file| file.read_at(&mut stat, 0));
        // The name before the state has at most 15 bytes, and may have brackets in it.
        match read {
            Some(Ok(length)) => {
                let stat = stat.get(..length).unwrap_or_default();
                let name = stat.iter().rposition(|byte| *byte == b')');
                let state = name.and_then(|end| stat.get(end + 2));
                matches!(state, Some(b'Z' | b'X'))
            }
            Some(Err(error)) => error.raw_os_error() == Some(libc::ESRCH),
            None => false,
        }
    }

    /// Whether the kernel tells of its death, or of that of the thread that started this process; and not whoever sends the same signal.
    fn is_sender(&self, signal: &siginfo) -> bool {
        const SI_USER: i32 = 0;
        signal.ssi_code == SI_USER && i32::try_from(signal.ssi_pid) == Ok(self.pid.as_raw())
    }
}

/// Until the agent is gone, or speaks as no agent does.
fn serve(
    socket: &OwnedFd,
    signals: &SignalFd,
    agent: &Agent,
    expedite: Option<&Expedite>,
    watch: &mut Option<Watch>,
) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    let mut doubt_until = None;
    loop {
        let now = Instant::now();
        if doubt_until.is_some() && agent.is_dead() {
            return Ok(());
        }
        doubt_until = doubt_until.filter(|until| now < *until);
        let look = doubt_until.map(|_| now + LOOK_INTERVAL);
        let limit = watch.as_ref().and_then(|watch| watch.deadline);
        let next = [look, limit].into_iter().flatten().min();
        match wait(socket, signals, next)? {
            Wake::Signal(signal) => {
                reap();
                let died = i32::try_from(signal.ssi_signo) == Ok(AGENT_DIED as i32);
                if died && agent.is_sender(&signal) {
                    return Ok(());
                }
                if died {
                    doubt_until = Some(now + DOUBT);
                }
            }
            Wake::Time => {
                if let Some(watch) = watch.as_mut().filter(|watch| watch.is_late()) {
                    end_hurry(expedite, watch);
                    let again = std::mem::replace(&mut watch.limit_passed, true);
                    let cause = if again {
                        Cause::StillNotThawed
                    } else {
                        Cause::LimitPassed
                    };
                    watch.rescue(cause);
                    watch.deadline = Instant::now().checked_add(RETRY_INTERVAL);
                }
            }
            Wake::Socket => {
                let (length, descriptors) = socket::receive(socket, &mut buffer)?;
                let order = buffer.get(..length).and_then(Order::decode);
                let arming = matches!(order, Some(Order::Arm { .. }));
                if length == 0 || !obey(order, descriptors, agent.pid, watch)? {
                    return Ok(());
                }
                let Some(watch) = watch.as_mut() else {
                    continue;
                };
                if arming {
                    watch.was_expedited = expedite.and_then(Expedite::is_on);
                }
                if watch.is_newly_complete() {
                    watch.start_freezers()?;
                    watch.acknowledged = true;
                    socket::send(socket, &[ARMED], &[])?;
                }
            }
        }
    }
}

/// The agent has the switch on in the moment of the freeze only; nobody else in a guest has it on at all.
fn end_hurry(expedite: Option<&Expedite>, watch: &Watch) {
    if let Some(expedite) = expedite.filter(|_| watch.was_expedited == Some(false)) {
        expedite.set(false);
    }
}

enum Wake {
    Socket,
    Signal(siginfo),
    /// Or nothing.
    Time,
}

fn wait(socket: &OwnedFd, signals: &SignalFd, until: Option<Instant>) -> io::Result<Wake> {
    let timeout = until.map_or(PollTimeout::NONE, |until| {
        let left = until.saturating_duration_since(Instant::now());
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
        return Ok(signals.read_signal()?.map_or(Wake::Time, Wake::Signal));
    }
    if fds.get(1).and_then(PollFd::any) == Some(true) {
        return Ok(Wake::Socket);
    }
    Ok(Wake::Time)
}

/// `false`: an agent that sends garbage is none.
fn obey(
    order: Option<Order>,
    descriptors: Vec<OwnedFd>,
    agent: Pid,
    watch: &mut Option<Watch>,
) -> io::Result<bool> {
    match (order, watch) {
        (Some(Order::Arm { handles, limit }), watch) => {
            let Some(ledger) = descriptors.into_iter().next().map(File::from) else {
                return Ok(false);
            };
            let expected = usize::try_from(handles).map_err(io::Error::other)?;
            *watch = Some(Watch {
                agent,
                marks: SharedBytes::map(&ledger)?,
                ledger,
                handles: Vec::with_capacity(expected),
                expected,
                acknowledged: false,
                limit_passed: false,
                was_expedited: None,
                deadline: Instant::now().checked_add(limit),
            });
        }
        // For each place a handle, and the socket of the process that makes its calls.
        (Some(Order::Handles(places)), Some(watch)) if 2 * places.len() == descriptors.len() => {
            let mut descriptors = descriptors.into_iter();
            for place in places {
                if let (Some(fd), socket) = (descriptors.next(), descriptors.next()) {
                    let offset = place.offset as usize;
                    watch
                        .handles
                        .push(Guarded::new(fd, place.stage, offset, socket));
                }
            }
        }
        (Some(Order::Limit(limit)), Some(watch)) => {
            watch.deadline = Instant::now().checked_add(limit);
        }
        (Some(Order::Disarm), watch) => *watch = None,
        _ => return Ok(false),
    }
    Ok(true)
}
