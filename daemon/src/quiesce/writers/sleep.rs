//! One sleeping thread, to be looked at again and again with no open and no path looked up: three files of `/proc/PID/task/TID`, held open.
//!
//! The kernel binds an open file there to its thread, and says ESRCH when that has ended, whoever has its number then.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::call::Call;
use super::threads::{self, Thread};

/// What matters of `status` is in its first part; the rest is for `man 5 proc`.
const STATUS: usize = 4096;

/// How a thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepState {
    /// `S`: a signal would wake it.
    Interruptible,
    /// `D`: nothing but what it waits for wakes it.
    Uninterruptible,
    /// `T` or `t`: stopped by a signal or by whoever traces it. It holds nothing meanwhile.
    Stopped,
}

/// Where in the kernel a thread sleeps that is in its system call by number alone: it waits for a thaw, that is for the write access and has none
/// (`sb_start_write` in include/linux/fs.h), or has left the call and is about to begin it again (a frozen control group).
const HOLDS_NOTHING: [&str; 3] = ["percpu_rwsem_wait", "__percpu_down_read", "do_freezer_trap"];

/// Where it sleeps that has write access and waits for a lease to be given up (fs/locks.c).
const BREAKS_LEASE: &str = "__break_lease";

/// What a look tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is in the same system call, sleeps, and may have the write access.
    Holds(SleepState),
    /// It is in that system call and has no write access yet, or none any more.
    Waits,
    /// It has left the system call, runs, or is gone.
    Left,
}

#[derive(Debug)]
pub(super) struct Sleep {
    pub(super) pid: u32,
    pub(super) tid: u32,
    call: Call,
    /// How often it had gone to sleep.
    sleeps: u64,
    syscall: File,
    status: File,
    wchan: File,
}

impl Sleep {
    pub(super) fn open(proc: &Path, thread: Thread) -> std::io::Result<Self> {
        let task = proc.join(thread.pid.to_string()).join("task");
        let task = task.join(thread.tid.to_string());
        let mut sleep = Self {
            pid: thread.pid,
            tid: thread.tid,
            call: thread.call,
            sleeps: 0,
            syscall: thread.file,
            status: File::open(task.join("status"))?,
            wchan: File::open(task.join("wchan"))?,
        };
        sleep.sleeps = sleep.status().map_or(0, |(_, sleeps)| sleeps);
        Ok(sleep)
    }

    /// How it is now.
    pub(super) fn look(&self) -> Look {
        if !self.is_in_call() {
            return Look::Left;
        }
        let Some((state, _)) = self.status() else {
            return Look::Left;
        };
        match self.wchan(|place| HOLDS_NOTHING.contains(&place)) {
            true => Look::Waits,
            false => Look::Holds(state),
        }
    }

    /// Whether it waits for a lease.
    pub(super) fn breaks_lease(&self) -> bool {
        self.wchan(|place| place == BREAKS_LEASE)
    }

    /// Whether it has been asleep all the time since it was first looked at.
    pub(super) fn goes_on(&self) -> bool {
        self.is_in_call()
            && self
                .status()
                .is_some_and(|(_, sleeps)| sleeps == self.sleeps)
    }

    /// Whether the thread has ended.
    pub(super) fn is_gone(&self) -> bool {
        threads::read(&self.syscall).is_err()
    }

    pub(super) fn is_in_call(&self) -> bool {
        matches!(threads::read(&self.syscall), Ok(Some(call)) if call == self.call)
    }

    /// `None` for one that runs or is gone.
    fn status(&self) -> Option<(SleepState, u64)> {
        let mut text = [0; STATUS];
        let length = self.status.read_at(&mut text, 0).ok()?;
        let mut lines = text.get(..length)?.split(|byte| *byte == b'\n');
        let mut value = |name: &[u8]| lines.find_map(|line| line.strip_prefix(name));
        let state = match value(b"State:")?.trim_ascii().first()? {
            b'S' => SleepState::Interruptible,
            b'D' => SleepState::Uninterruptible,
            b'T' | b't' => SleepState::Stopped,
            _ => return None,
        };
        let sleeps = value(b"voluntary_ctxt_switches:").and_then(|sleeps| {
            let sleeps = std::str::from_utf8(sleeps.trim_ascii()).ok()?;
            sleeps.parse().ok()
        });
        Some((state, sleeps.unwrap_or(0)))
    }

    fn wchan(&self, is: impl Fn(&str) -> bool) -> bool {
        let mut text = [0; 128];
        let length = self.wchan.read_at(&mut text, 0).unwrap_or(0);
        let text = std::str::from_utf8(text.get(..length).unwrap_or_default());
        text.is_ok_and(|text| is(text.trim()))
    }
}
