//! Who has the driver's device open, who waits for a thaw, and which agent runs. Read from /proc alone, and nothing of a process's memory, which a stuck
//! one may keep locked.

use std::fs;
use std::path::{Path, PathBuf};

use super::facts::{Agent, Guardian};
use super::halted::Halted;
use crate::filesystems::Process;

/// In the kernel's stack of a task that waits for a thaw (`sb_start_write` in include/linux/fs.h).
const WAITS: [&str; 2] = ["percpu_rwsem_wait", "__percpu_down_read"];

/// Others that wait in the same way, for something else.
const WAITS_ELSE: [&str; 3] = ["cgroup_", "copy_process", "cpus_read_lock"];

/// All processes below `proc`, lowest first.
pub(super) fn all(proc: &Path) -> Vec<u32> {
    let mut pids = numbers(proc);
    pids.sort_unstable();
    pids
}

fn numbers(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Those that have `device` open; only root sees all of them.
pub(super) fn holders(proc: &Path, pids: &[u32], device: &Path) -> Vec<Process> {
    let holds = |pid: &&u32| {
        let descriptors = fs::read_dir(proc.join(pid.to_string()).join("fd"));
        descriptors
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == device))
    };
    named(proc, pids.iter().filter(holds))
}

/// Those of which a thread sleeps in a write until some file system is thawed. Which one it is the kernel does not tell.
pub(super) fn waiting(proc: &Path, pids: &[u32]) -> Vec<Process> {
    let waits = |pid: &&u32| {
        let threads = proc.join(pid.to_string()).join("task");
        numbers(&threads)
            .into_iter()
            .any(|thread| waits_for_thaw(&threads.join(thread.to_string())))
    };
    named(proc, pids.iter().filter(waits))
}

fn waits_for_thaw(task: &Path) -> bool {
    if Stat::read(task).is_none_or(|stat| stat.state != 'D') {
        return false;
    }
    match fs::read_to_string(task.join("stack")) {
        Ok(stack) if !stack.is_empty() => {
            WAITS.iter().any(|frame| stack.contains(frame))
                && !WAITS_ELSE.iter().any(|frame| stack.contains(frame))
        }
        _ => {
            fs::read_to_string(task.join("wchan")).is_ok_and(|place| WAITS.contains(&place.trim()))
        }
    }
}

fn named<'a>(proc: &Path, pids: impl Iterator<Item = &'a u32>) -> Vec<Process> {
    pids.map(|pid| Process::read(proc, *pid)).collect()
}

/// The agent that holds the lock; what it is doing is to be asked of itself.
pub(super) fn agent(root: &Path, pids: &[u32], holders: &[Process]) -> Option<Agent> {
    let proc = root.join("proc");
    let pid = lock_holder(root)?;
    let is_guardian = |child: &&u32| {
        let stat = Stat::read(&proc.join(child.to_string()));
        // One that has ended stays on the list until its parent asks for its status. Hooks are children of the agent's as well, of other programs.
        stat.is_some_and(|stat| stat.parent == pid && !matches!(stat.state, 'Z' | 'X'))
            && program(&proc, **child) == program(&proc, pid)
    };
    Some(Agent {
        pid,
        registered: holders.iter().any(|holder| holder.pid == pid),
        guardian: match pids.iter().any(|child| is_guardian(&child)) {
            true => Guardian::Alive,
            false => Guardian::Missing,
        },
        busy: false,
        halted: Halted::of(root, pid),
        silent: None,
    })
}

/// The file that a process runs, which may have been replaced since.
fn program(proc: &Path, pid: u32) -> Option<PathBuf> {
    fs::read_link(proc.join(pid.to_string()).join("exe")).ok()
}

/// Whoever has written its number into the lock file, if the kernel says that it holds the lock (`man 5 proc`, /proc/locks).
pub(super) fn lock_holder(root: &Path) -> Option<u32> {
    let file = root.join(
        Path::new(crate::agent::single::DEFAULT_PATH)
            .strip_prefix("/")
            .ok()?,
    );
    let pid: u32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let locks = fs::read_to_string(root.join("proc/locks")).ok()?;
    let holds = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.contains(&"FLOCK") && fields.get(4).and_then(|field| field.parse().ok()) == Some(pid)
    };
    locks.lines().any(holds).then_some(pid)
}

/// What `/proc/PID/stat` tells.
pub(super) struct Stat {
    state: char,
    parent: u32,
}

impl Stat {
    /// By a signal or a debugger.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    pub(super) fn read(process: &Path) -> Option<Self> {
        let stat: PathBuf = process.join("stat");
        let text = fs::read(stat).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        // The name may have anything in it, also brackets.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        Some(Self {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
        })
    }
}
