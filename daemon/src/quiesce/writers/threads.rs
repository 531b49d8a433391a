//! All threads of the machine that sleep in a system call: cheaply, for a server has ten thousand.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::call::Call;

/// How long a line of `/proc/PID/syscall` is at most: nine numbers.
const LINE: usize = 256;

/// A thread that sleeps in a system call.
pub(super) struct Thread {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) call: Call,
    /// Its `syscall` file, open.
    pub(super) file: File,
}

/// What was not looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missed {
    /// The deadline passed.
    pub(super) late: bool,
    /// The one that looks wanted no more.
    pub(super) full: bool,
    /// Threads that may not be looked into.
    pub(super) unread: usize,
}

/// Whether more threads are wanted.
pub(super) enum More {
    Wanted,
    Enough,
}

/// Shows every thread below `proc` that sleeps in a system call, but those of the processes `spared`, to `look`; until the deadline.
pub(super) fn each(
    proc: &Path,
    spared: &[u32],
    deadline: Instant,
    look: &mut dyn FnMut(Thread) -> More,
) -> Missed {
    let mut walk = Walk {
        missed: Missed::default(),
        path: String::with_capacity(64),
        look,
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let (Ok(base), Ok(entries)) = (open(proc, flags, Mode::empty()), fs::read_dir(proc)) else {
        walk.missed.unread = 1;
        return walk.missed;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if spared.contains(&pid) {
            continue;
        }
        if Instant::now() >= deadline {
            walk.missed.late = true;
            break;
        }
        walk.process(&base, proc, pid);
        if walk.missed.full {
            break;
        }
    }
    walk.missed
}

struct Walk<'a> {
    missed: Missed,
    path: String,
    look: &'a mut dyn FnMut(Thread) -> More,
}

impl Walk<'_> {
    fn process(&mut self, base: &OwnedFd, proc: &Path, pid: u32) {
        let tasks = proc.join(pid.to_string()).join("task");
        // The kernel counts a process's threads there (proc_task_getattr in fs/proc/base.c); most have one.
        let is_alone = fs::symlink_metadata(&tasks).is_ok_and(|tasks| tasks.nlink() == 3);
        if is_alone && self.thread(base, pid, pid) {
            return;
        }
        for task in fs::read_dir(&tasks).into_iter().flatten().flatten() {
            let name = task.file_name();
            if let Some(tid) = name.to_str().and_then(|name| name.parse().ok()) {
                self.thread(base, pid, tid);
            }
            if self.missed.full {
                return;
            }
        }
    }

    /// `false` when there is no such thread.
    fn thread(&mut self, base: &OwnedFd, pid: u32, tid: u32) -> bool {
        self.path.clear();
        // Writing to a string does not fail.
        let _ = write!(self.path, "{pid}/task/{tid}/syscall");
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let opened = openat(base.as_fd(), self.path.as_str(), flags, Mode::empty());
        let file = match opened {
            Ok(file) => File::from(file),
            Err(nix::Error::ENOENT | nix::Error::ESRCH) => return false,
            Err(nix::Error::EMFILE | nix::Error::ENFILE) => {
                self.missed.full = true;
                return true;
            }
            Err(_) => {
                self.missed.unread += 1;
                return true;
            }
        };
        match read(&file) {
            Ok(Some(call)) => {
                let thread = Thread {
                    pid,
                    tid,
                    call,
                    file,
                };
                if matches!((self.look)(thread), More::Enough) {
                    self.missed.full = true;
                }
            }
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(_) => self.missed.unread += 1,
        }
        true
    }
}

/// The system call that the thread of this `syscall` file sleeps in now; `None` when it sleeps in none. Opens nothing.
pub(super) fn read(file: &File) -> std::io::Result<Option<Call>> {
    let mut line = [0; LINE];
    let length = file.read_at(&mut line, 0)?;
    Ok(Call::parse(line.get(..length).unwrap_or_default()))
}
