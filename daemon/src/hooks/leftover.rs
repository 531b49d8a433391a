//! What a call of a hook has left running, and how that is ended.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::record::Trace;
use super::unit;

/// systemd answers within milliseconds, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The processes of one call; they may have ended.
#[derive(Debug)]
pub(super) struct Leftover {
    trace: Trace,
    /// The process that we started; unburied, so that its number stays taken.
    child: Option<Child>,
}

impl Leftover {
    /// The process group that `child` leads.
    pub(super) fn group(child: Child) -> Self {
        let id = pid_of(&child).as_raw();
        let born = born(id).unwrap_or_default();
        Self {
            trace: Trace::Group { id, born },
            child: Some(child),
        }
    }

    /// The unit that `child` waits for.
    pub(super) fn unit(name: &str, child: Child) -> Self {
        Self {
            trace: Trace::Unit(name.to_owned()),
            child: Some(child),
        }
    }

    /// What an earlier agent has on record.
    pub(super) fn found(trace: Trace) -> Self {
        Self { trace, child: None }
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Asks all of them to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends all of them.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Ends all of them, and buries the one that we started.
    pub(super) fn end(mut self) {
        self.kill();
        let Some(mut child) = self.child.take() else {
            return;
        };
        // Of systemd-run, which waits for the unit.
        let _ = child.kill();
        if !ends_within(&mut child, PATIENCE) {
            // It sleeps in the kernel.
            let _ = thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || child.wait());
        }
    }

    fn signal(&self, signal: Signal) {
        match &self.trace {
            Trace::Unit(name) => quietly(unit::signal_unit(name, signal.as_str())),
            Trace::Group { id, born: then } => {
                // Without a first process any member is ours: the number is taken as long as one is there.
                let is_ours = self.child.is_some() || born(*id).is_none_or(|now| now == *then);
                // 0 would be our own group, 1 everybody.
                if *id > 1 && is_ours {
                    let _ = killpg(Pid::from_raw(*id), signal);
                }
            }
        }
    }
}

/// Its number; one that no process can have stands for one that does not fit.
pub(super) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// A unit that has gone is no news.
fn quietly(mut command: Command) {
    if let Ok(mut child) = command.spawn() {
        if !ends_within(&mut child, PATIENCE) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// When a process was started; `None` when there is no such process.
fn born(id: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in brackets may hold anything, brackets too; state is the third field, the start the 22nd.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    #[test]
    fn a_process_is_known_by_its_start_and_a_number_taken_anew_is_left_alone() {
        let child = Command::new("sleep").arg("60").process_group(0).spawn();
        let mut child = child.unwrap();
        let id = pid_of(&child).as_raw();
        let then = born(id).unwrap();
        Leftover::found(Trace::Group { id, born: then + 1 }).kill();
        assert!(!ends_within(&mut child, Duration::from_millis(200)));
        Leftover::found(Trace::Group { id, born: then }).kill();
        assert!(ends_within(&mut child, Duration::from_secs(20)));
        assert_eq!(born(id), None);
    }
}
