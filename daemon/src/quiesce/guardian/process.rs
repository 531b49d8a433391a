//! The guardian's own side: one thread that waits, and thaws when the agent dies or the limit passes.
//!
//! While armed it allocates nothing, opens nothing and writes nothing. A thaw may block for ever on a dead device, so
//! each is made in a child of its own; the next stage does not wait for it longer than a moment.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hvutil_sys::shared::SharedBytes;
use hvutil_sys::socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid};

use super::rehearsal::rehearse;
use super::rescue::{Cause, Guarded, Watch, reap};
use super::wire::{ARMED, LONGEST, Order, READY};
use crate::quiesce::expedite::Expedite;

/// The signal of the agent's death. The end of the socket alone would come too late: a thread of the agent's that is
/// stuck in a freeze keeps it open.
const AGENT_DIED: Signal = Signal::SIGUSR1;

/// After the limit the guardian looks again as often as this, as long as the agent has not said that all is thawed.
const AFTER_LIMIT: Duration = Duration::from_secs(10);

/// Serves the agent at the other end of `socket` until it is gone and nothing is left to thaw.
///
/// # Errors
/// What the kernel says to the set-up; once it serves, it only ends well.
pub fn run(socket: OwnedFd, agent: i32) -> io::Result<()> {
    let signals = SigSet::all();
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    set_pdeathsig(AGENT_DIED)?;
    if getppid() != Pid::from_raw(agent) {
        return Ok(());
    }
    let expedite = Expedite::open();
    socket::send(&socket, &[READY], &[])?;
    // The agent goes on meanwhile, but freezes nothing before this process has answered that it is armed.
    if let Err(error) = rehearse(&socket) {
        tracing::warn!("guardian: the rehearsal of a thaw has failed: {error}");
    }
    let mut watch = None;
    let served = serve(&socket, &signals, expedite.as_ref(), &mut watch);
    // However it ended: what is frozen is thawed before this process goes.
    if let Some(mut watch) = watch {
        end_hurry(expedite.as_ref(), &watch);
        watch.rescue(Cause::AgentDied, &socket);
    }
    served
}

/// Until the agent is gone, or speaks as no agent does; or until a stop while nothing is watched over.
fn serve(
    socket: &OwnedFd,
    signals: &SignalFd,
    expedite: Option<&Expedite>,
    watch: &mut Option<Watch>,
) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    let mut asked_to_end = false;
    loop {
        // A stop of the service must not end the one that thaws; it counts once nothing is left to thaw.
        if asked_to_end && watch.is_none() {
            return Ok(());
        }
        let deadline = watch.as_ref().and_then(|watch| watch.deadline);
        match wait(socket, signals, deadline)? {
            Wake::Signal(Some(signal)) if signal == AGENT_DIED => return Ok(()),
            Wake::Signal(Some(Signal::SIGCHLD)) => reap(),
            Wake::Signal(signal) => asked_to_end |= signal.is_some_and(ends),
            Wake::Limit => {
                if let Some(watch) = watch {
                    end_hurry(expedite, watch);
                    let again = std::mem::replace(&mut watch.limit_passed, true);
                    let cause = if again {
                        Cause::StillNotThawed
                    } else {
                        Cause::LimitPassed
                    };
                    watch.rescue(cause, socket);
                    watch.deadline = Instant::now().checked_add(AFTER_LIMIT);
                }
            }
            Wake::Socket => {
                let (length, descriptors) = socket::receive(socket, &mut buffer)?;
                let order = buffer.get(..length).and_then(Order::decode);
                let arming = matches!(order, Some(Order::Arm { .. }));
                if length == 0 || !obey(order, descriptors, watch)? {
                    return Ok(());
                }
                let Some(watch) = watch.as_mut() else {
                    continue;
                };
                if arming {
                    watch.was_expedited = expedite.and_then(Expedite::is_on);
                }
                if watch.is_newly_complete() {
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
                limit_passed: false,
                was_expedited: None,
                deadline: Instant::now().checked_add(limit),
            });
        }
        (Some(Order::Handles(places)), Some(watch)) if places.len() == descriptors.len() => {
            let handles = places.iter().zip(descriptors).map(|(place, fd)| Guarded {
                fd,
                stage: place.stage,
                offset: place.offset as usize,
                child: Cell::new(None),
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
