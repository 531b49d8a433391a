//! The guardian as a real process on scratch disks: what it thaws, when, in which order, and what it leaves alone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod death;
mod limit;
mod replacement;
#[path = "../scratch/mod.rs"]
mod scratch;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use hv_vssd::quiesce::backend::Target;
use hv_vssd::quiesce::guardian::{Guard, Guardian};
use hv_vssd::quiesce::ledger::{Ledger, Mark, Place};
use hvutil_sys::{freeze, mount};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use scratch::{Disk, until};

/// Far more than any test takes.
const NEVER: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(100);

fn start(replace: bool) -> Guardian {
    Guardian::start_program(Path::new(env!("CARGO_BIN_EXE_hv-vssd")), replace).unwrap()
}

fn pid(guardian: &Guardian) -> Pid {
    Pid::from_raw(guardian.pid().unwrap().try_into().unwrap())
}

/// The end of a process that this one has started, and nobody has waited for.
fn ends(pid: Pid) {
    until("the guardian to end", || {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => false,
            // It was waited for when it was dropped.
            Err(Errno::ECHILD) => true,
            Ok(WaitStatus::Exited(_, 0)) => true,
            other => panic!("{other:?}"),
        }
    });
}

/// Whether a signal has reached it and it goes on. Only for a process that handles its signals in order.
fn lives(pid: Pid) -> bool {
    matches!(
        waitpid(pid, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive)
    )
}

/// Those of all threads of a process, also the dead that nobody has waited for.
fn children(pid: Pid) -> Vec<Pid> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let list = std::fs::read_to_string(task.unwrap().path().join("children"));
        // A thread that has just ended has none.
        for pid in list.unwrap_or_default().split_whitespace() {
            children.push(Pid::from_raw(pid.parse().unwrap()));
        }
    }
    children
}

/// What an agent has: the ledger, and a handle of its own for each line of it.
struct Checkpoint {
    ledger: Ledger,
    stages: Vec<Vec<(OwnedFd, usize)>>,
}

impl Checkpoint {
    fn new(stages: &[&[&Disk]]) -> Self {
        let targets: Vec<Target> = stages
            .iter()
            .copied()
            .flatten()
            .map(|disk| disk.target(&[&disk.mount_point]))
            .collect();
        let ledger = Ledger::create(&Place::Memory, targets.iter()).unwrap();
        let mut index = 0;
        let mut handle = |disk: &&Disk| {
            let place = File::open(&disk.mount_point).unwrap();
            let root = mount::open_root(mount::clone_mount(&place).unwrap()).unwrap();
            index += 1;
            (root, index - 1)
        };
        let stages = stages
            .iter()
            .map(|stage| stage.iter().map(&mut handle).collect())
            .collect();
        Self { ledger, stages }
    }

    fn arm(&self, guardian: &mut Guardian, limit: Duration) {
        let stages: Vec<Vec<(BorrowedFd<'_>, usize)>> = self
            .stages
            .iter()
            .map(|stage| {
                stage
                    .iter()
                    .map(|(fd, index)| (fd.as_fd(), *index))
                    .collect()
            })
            .collect();
        guardian.arm(&self.ledger, &stages, limit).unwrap();
    }

    /// As the agent does it.
    fn freeze(&self, index: usize) {
        self.ledger.set(index, Mark::Freezing);
        let (fd, _) = self
            .stages
            .iter()
            .flatten()
            .find(|(_, place)| *place == index)
            .unwrap();
        freeze::freeze(fd).unwrap();
        self.ledger.set(index, Mark::Frozen);
    }

    fn mark(&self, index: usize) -> Mark {
        self.ledger.get(index).unwrap()
    }

    fn until_thawed(&self, index: usize) {
        until("the guardian to thaw", || self.mark(index) == Mark::Thawed);
    }
}

/// A guardian that watches over these for `limit`; nothing is frozen yet.
fn armed(stages: &[&[&Disk]], limit: Duration) -> (Checkpoint, Guardian) {
    let checkpoint = Checkpoint::new(stages);
    let mut guardian = start(false);
    checkpoint.arm(&mut guardian, limit);
    (checkpoint, guardian)
}

/// The agent's end of the socket closes, as at its death; the guardian does what is left to do, and ends.
fn agent_dies(guardian: Guardian) {
    let pid = pid(&guardian);
    drop(guardian);
    ends(pid);
}
