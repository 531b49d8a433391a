//! The guardian as a real process on scratch disks: what it thaws, when, in which order, and what it leaves alone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod death;
mod limit;
mod replacement;
#[path = "../scratch/mod.rs"]
mod scratch;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hv_vssd::quiesce::backend::Target;
use hv_vssd::quiesce::guardian::freezer::Freezer;
use hv_vssd::quiesce::guardian::{Guard, Guardian};
use hv_vssd::quiesce::ledger::{Ledger, Mark, Place};
use hv_vssd::quiesce::protocol::Call;
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

/// What an agent has: the ledger, and for each line of it a handle of its own and what makes the calls on it.
struct Checkpoint {
    ledger: Ledger,
    stages: Vec<Vec<(OwnedFd, usize)>>,
    freezers: Mutex<Vec<Arc<Freezer>>>,
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
        Self {
            ledger,
            stages,
            freezers: Mutex::default(),
        }
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
        let freezers = guardian.arm(&self.ledger, &stages, limit).unwrap();
        *self.freezers.lock().unwrap() = freezers.into_iter().map(Arc::new).collect();
    }

    fn call(&self, index: usize, call: Call) -> io::Result<()> {
        let freezer = Arc::clone(&self.freezers.lock().unwrap()[index]);
        freezer.call(call).unwrap()
    }

    /// As the agent does it.
    fn freeze(&self, index: usize) {
        self.call(index, Call::Freeze).unwrap();
        assert_eq!(self.mark(index), Mark::Frozen);
    }

    /// A freeze that does not return until something else happens; what comes of it.
    fn begin_freeze(&self, index: usize) -> JoinHandle<io::Result<()>> {
        let freezer = Arc::clone(&self.freezers.lock().unwrap()[index]);
        let thread = std::thread::spawn(move || freezer.call(Call::Freeze).unwrap());
        until("the call", || self.mark(index) == Mark::Freezing);
        thread
    }

    /// The agent's ends close, as at its death; the guardian does what is left to do, and ends.
    fn agent_dies(&self, guardian: Guardian) {
        let pid = pid(&guardian);
        self.freezers.lock().unwrap().clear();
        drop(guardian);
        ends(pid);
    }

    fn mark(&self, index: usize) -> Mark {
        self.ledger.get(index).unwrap()
    }

    fn until_marked(&self, index: usize, mark: Mark) {
        until(&format!("{mark:?}"), || self.mark(index) == mark);
    }

    fn until_thawed(&self, index: usize) {
        self.until_marked(index, Mark::Thawed);
    }
}

/// A guardian that watches over these for `limit`; nothing is frozen yet.
fn armed(stages: &[&[&Disk]], limit: Duration) -> (Checkpoint, Guardian) {
    let checkpoint = Checkpoint::new(stages);
    let mut guardian = start(false);
    checkpoint.arm(&mut guardian, limit);
    (checkpoint, guardian)
}

/// A disk, and one whose image lies on it: frozen first, it keeps every freeze of the other from returning.
fn stacked(place: &Path) -> (Disk, Disk) {
    let outer = Disk::new(place, "outer", "xfs");
    let inner = Disk::with_image(&outer.mount_point, place, "inner", "ext4");
    // Something to write, which waits for the outer one.
    std::fs::write(inner.mount_point.join("dirty"), [1; 65536]).unwrap();
    (outer, inner)
}

/// Someone else's freeze, thawed on drop.
struct Foreign(File);

impl Foreign {
    fn of(disk: &Disk) -> Self {
        let place = File::open(&disk.mount_point).unwrap();
        freeze::freeze(&place).unwrap();
        Self(place)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = freeze::thaw(&self.0);
    }
}
