//! One call of a hook: started, watched, and ended when its time is up.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};

use super::discover::Refusal;
use super::leftover::{Leftover, pid_of};
use super::output::Output;
use super::unit::{Call, Way};

/// Between the polite signal and the other.
const GRACE: Duration = Duration::from_secs(2);

/// How often an abort and the end of the process are looked for, while a hook is at work.
const TICK: Duration = Duration::from_millis(20);

/// A flood is taken in portions, so that limits are kept.
const PORTIONS: usize = 64;

/// Why a call counts as failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was not started.
    #[error("it cannot be started: {0}")]
    Start(io::Error),
    /// It may not be run any more.
    #[error("it must not be run: {0}")]
    Refused(Refusal),
    /// It says so itself.
    #[error("it ended with exit status {0}")]
    Exit(i32),
    /// Something ended it.
    #[error("it was ended by signal {0}")]
    Signal(i32),
    /// It was ended, with all that it had started.
    #[error("it was not done within {secs} s, and was ended", secs = .0.as_secs())]
    Late(Duration),
    /// The checkpoint was given up meanwhile.
    #[error("the checkpoint was given up meanwhile")]
    Aborted,
}

/// How a call went.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) result: Result<(), Failure>,
    pub(super) output: Output,
    /// What it left running.
    pub(super) leftover: Option<Leftover>,
}

/// Runs a call to its end, at most for its limit. `started` hears how its processes are found, as soon as that is known.
pub(super) fn run(
    call: &Call<'_>,
    way: &Way,
    aborted: &dyn Fn() -> bool,
    started: &mut dyn FnMut(&Leftover),
) -> Ended {
    let deadline = Instant::now() + call.limit;
    let mut ended = Ended {
        result: Ok(()),
        output: Output::default(),
        leftover: None,
    };
    let command = call.command(way).map_err(Failure::Start);
    let (child, mut pipe) = match command.and_then(|command| start(command, deadline, aborted)) {
        Ok(both) => both,
        Err(failure) => {
            ended.result = Err(match failure {
                Failure::Late(_) => Failure::Late(call.limit),
                other => other,
            });
            return ended;
        }
    };
    let process = pid_of(&child);
    let leftover = match way {
        Way::Unit => Leftover::unit(&call.unit, child),
        Way::Direct(_) => Leftover::group(child),
    };
    started(&leftover);
    let mut open = true;
    let mut ending: Option<(Failure, Instant, bool)> = None;
    let status = loop {
        open = open && drain(&mut pipe, &mut ended.output);
        if let Some(status) = has_ended(process) {
            break Some(status);
        }
        let now = Instant::now();
        match &mut ending {
            None if aborted() => {
                leftover.terminate();
                ending = Some((Failure::Aborted, now + GRACE, false));
            }
            None if now >= deadline => {
                leftover.terminate();
                ending = Some((Failure::Late(call.limit), now + GRACE, false));
            }
            Some((_, at, killed)) if now >= *at => {
                if *killed {
                    // It sleeps in the kernel, or systemd does not answer: nobody waits for it any longer.
                    break None;
                }
                leftover.kill();
                (*at, *killed) = (Instant::now() + GRACE, true);
            }
            _ => {}
        }
        wait(open.then_some(&pipe));
    };
    drain(&mut pipe, &mut ended.output);
    ended.result = match ending {
        Some((failure, ..)) => Err(failure),
        None => judge(status),
    };
    if ended.result.is_err() {
        leftover.kill();
    }
    ended.leftover = Some(leftover);
    ended
}

/// Starts it in a thread: whoever listens to what is executed (fanotify) may hold it up for ever.
fn start(
    mut command: Command,
    deadline: Instant,
    aborted: &dyn Fn() -> bool,
) -> Result<(Child, File), Failure> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| Failure::Start(errno.into()))?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map_err(|errno| Failure::Start(errno.into()))?;
    let errors = writer.try_clone().map_err(Failure::Start)?;
    command.stdout(writer).stderr(errors);
    let (done, result) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("hook".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            let child = command.spawn();
            drop(command);
            if let Err(mpsc::SendError(Ok(late))) = done.send(child) {
                Leftover::group(late).end();
            }
        })
        .map_err(Failure::Start)?;
    loop {
        match result.recv_timeout(TICK) {
            Ok(child) => return Ok((child.map_err(Failure::Start)?, File::from(reader))),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure::Start(io::ErrorKind::BrokenPipe.into()));
            }
            Err(mpsc::RecvTimeoutError::Timeout) if aborted() => return Err(Failure::Aborted),
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                return Err(Failure::Late(Duration::ZERO));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Takes what there is; `false` once nobody has the other end any more.
fn drain(pipe: &mut File, output: &mut Output) -> bool {
    let mut portion = [0; 4096];
    for _ in 0..PORTIONS {
        match pipe.read(&mut portion) {
            Ok(0) => return false,
            Ok(length) => output.push(portion.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// Until there is output, or for a moment.
fn wait(pipe: Option<&File>) {
    let Some(pipe) = pipe else {
        return thread::sleep(TICK / 4);
    };
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let tick = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
    if poll(&mut fds, tick).is_err() {
        thread::sleep(TICK);
    }
}

/// Its end, without burying it: as long as it lies there, no other process group gets its number.
fn has_ended(process: Pid) -> Option<WaitStatus> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(process), flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => None,
        Ok(status) => Some(status),
        // Nobody else waits for our children: it cannot be known how it ended.
        Err(_) => Some(WaitStatus::StillAlive),
    }
}

fn judge(status: Option<WaitStatus>) -> Result<(), Failure> {
    match status {
        Some(WaitStatus::Exited(_, 0)) => Ok(()),
        Some(WaitStatus::Exited(_, status)) => Err(Failure::Exit(status)),
        Some(WaitStatus::Signaled(_, signal, _)) => Err(Failure::Signal(signal as i32)),
        _ => Err(Failure::Start(io::ErrorKind::NotFound.into())),
    }
}
