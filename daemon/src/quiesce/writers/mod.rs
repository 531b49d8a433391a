//! Programs that hold a superblock's write access while they sleep, and so hold up its freeze without writing anything.
//!
//! FIFREEZE waits until everyone who has begun to write has ended it (`sb_wait_write` in fs/super.c), uninterruptibly, and every new writer waits
//! behind it. A thread that sleeps in splice(2) from a pipe into a file has begun, and ends when somebody writes into the pipe: perhaps never. Rust's
//! `io::copy`, `pv` and newer coreutils are such programs; an ordinary user's is enough.
//!
//! ```text
//! before the first freeze:          Search ─ Writers::gather() → Writers
//! when a freeze does not return:    Writers::interrupt(dev) → what became of each
//! ```
//!
//! An interruption makes the system call return and begin again, with no signal that anyone sees (man 2 ptrace); then it waits for the thaw like any
//! other writer, and the program goes on undisturbed.
//!
//! What is not found: threads of io_uring's own, which are in no system call; a program that falls asleep after the search; 32-bit programs of x32;
//! and with `kernel.yama.ptrace_scope = 3` nobody at all ([`Writers::unread`]).

mod call;
mod freezers;
mod interrupt;
mod place;
mod sleep;
mod threads;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use call::Meaning;
pub use freezers::{FreezeCall, Freezer, freezers};
pub use interrupt::{InterruptOutcome, LeftAlone, Refusal};
use place::{Place, Places};
pub use sleep::SleepState;
use sleep::{Look, Sleep};
use threads::{Missed, More, Thread};

use crate::config::Config;
use crate::filesystems::{DeviceNumber, Process};

/// How long the threads of the machine are looked through.
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);

/// How many writers are kept; each takes three descriptors.
pub const MAX_WRITERS: usize = 256;

/// The kernel keeps so much of a process's name (`TASK_COMM_LEN` in include/linux/sched.h).
const MAX_NAME: usize = 15;

/// What an administrator wants to be done about writers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterRules {
    /// They are interrupted at all.
    pub interrupt: bool,
    /// Names of processes, and paths of executables, that are left alone.
    pub excluded: Vec<String>,
}

impl Default for WriterRules {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl From<&Config> for WriterRules {
    fn from(config: &Config) -> Self {
        Self {
            interrupt: config.interrupt_writers,
            excluded: config.exclude_processes.clone(),
        }
    }
}

impl WriterRules {
    fn exclude(&self, process: &Path, name: &[u8]) -> bool {
        let executable = || {
            let path = fs::read_link(process.join("exe")).ok()?;
            let path = path.into_os_string().into_encoded_bytes();
            // Of one that was replaced by an upgrade.
            Some(
                path.strip_suffix(b" (deleted)")
                    .map(<[u8]>::to_vec)
                    .unwrap_or(path),
            )
        };
        self.excluded.iter().any(|excluded| {
            let excluded = excluded.as_bytes();
            match excluded.contains(&b'/') {
                true => executable().as_deref() == Some(excluded),
                false => name == excluded.get(..MAX_NAME).unwrap_or(excluded),
            }
        })
    }
}

/// Which writers are looked for.
#[derive(Clone, Debug)]
pub struct Search<'a> {
    /// Where the proc file system is.
    pub proc: &'a Path,
    /// The superblocks that are to be frozen.
    pub devices: &'a [DeviceNumber],
    /// Processes that are never looked at, such as the guardian; this one never is.
    pub spared: &'a [u32],
    /// What is done about them.
    pub rules: WriterRules,
    /// When the search ends at the latest.
    pub deadline: Instant,
    /// How many are kept.
    pub most: usize,
}

impl<'a> Search<'a> {
    /// For those that would hold up a freeze of `devices`, within the usual bounds.
    #[must_use]
    pub fn of(devices: &'a [DeviceNumber], rules: WriterRules) -> Self {
        Self {
            proc: Path::new("/proc"),
            devices,
            spared: &[],
            rules,
            deadline: Instant::now() + SEARCH_TIMEOUT,
            most: MAX_WRITERS,
        }
    }
}

/// A thread that sleeps in a system call with which it holds, or may hold, a superblock's write access.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Its process.
    pub process: Process,
    /// The thread.
    pub tid: u32,
    /// The system call, as its manual page names it.
    pub call: &'static str,
    /// The path of the file that it writes to, safe to print; empty where the kernel does not tell.
    pub file: String,
    /// The superblock; `None` where that could not be found out.
    pub device: Option<DeviceNumber>,
    /// How it slept when it was found.
    pub state: SleepState,
    /// An administrator wants it left alone.
    pub is_excluded: bool,
    restarts: bool,
    sleep: Arc<Sleep>,
}

impl Writer {
    /// Whether it is in that system call still, or again, and asleep. Opens nothing.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        matches!(self.sleep.look(), Look::Holds(_))
    }

    /// Whether it has been asleep without a break since it was found. Opens nothing.
    #[must_use]
    pub fn has_not_stirred(&self) -> bool {
        self.sleep.goes_on()
    }

    /// Whether an interruption can be expected to end its hold on the superblock, and is wanted.
    fn left_alone(&self, interrupt: bool) -> Option<LeftAlone> {
        if !interrupt {
            Some(LeftAlone::SwitchedOff)
        } else if self.is_excluded {
            Some(LeftAlone::Excluded)
        } else if !self.restarts {
            Some(LeftAlone::NoRestart)
        } else {
            None
        }
    }

    /// Whether [`Writers::interrupt`] would do anything about it, as it was found.
    #[must_use]
    pub fn can_be_interrupted(&self, rules: &WriterRules) -> bool {
        self.state == SleepState::Interruptible && self.left_alone(rules.interrupt).is_none()
    }
}

impl fmt::Display for Writer {
    /// Such as `process 123 (pv) sleeps in splice(2) to /mnt/a/out`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_thread(f, &self.process, self.tid)?;
        f.write_str(match self.state {
            SleepState::Interruptible => " sleeps in ",
            SleepState::Uninterruptible => " sleeps uninterruptibly in ",
            SleepState::Stopped => " is stopped in ",
        })?;
        write!(f, "{}(2)", self.call)?;
        let preposition = match self.call {
            "ioctl" => "on",
            "fallocate" | "ftruncate" | "ftruncate64" => "of",
            _ => "to",
        };
        match self.file.as_str() {
            "" => Ok(()),
            file => write!(f, " {preposition} {file}"),
        }
    }
}

fn write_thread(f: &mut fmt::Formatter<'_>, process: &Process, tid: u32) -> fmt::Result {
    if tid != process.pid {
        write!(f, "thread {tid} of ")?;
    }
    write!(f, "process {}", process.pid)?;
    match process.name.as_str() {
        "" => Ok(()),
        name => write!(f, " ({name})"),
    }
}

/// A writer, and what became of it.
#[derive(Clone, Debug)]
pub struct InterruptedWriter<'a> {
    /// Which.
    pub writer: &'a Writer,
    /// What became of it.
    pub outcome: InterruptOutcome,
}

impl fmt::Display for InterruptOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::StoppedAndContinued => f.write_str("stopped and continued"),
            Self::Gone => f.write_str("it had left that call"),
            Self::WaitsForThaw => f.write_str("it waits for the thaw"),
            Self::Uninterruptible => f.write_str("it cannot be interrupted"),
            Self::LeftAlone(LeftAlone::Excluded) => {
                f.write_str("left alone, because exclude_processes names it")
            }
            Self::LeftAlone(LeftAlone::SwitchedOff) => {
                f.write_str("left alone, because of interrupt_writers = false")
            }
            Self::LeftAlone(LeftAlone::Stopped) => f.write_str("left alone, because it is stopped"),
            Self::LeftAlone(LeftAlone::NoRestart) => {
                f.write_str("left alone, because that call would not begin again")
            }
            Self::Refused(Refusal::NotPermitted) => {
                f.write_str("not interrupted, because the kernel does not permit it")
            }
            Self::Refused(Refusal::NoThread) => {
                f.write_str("not interrupted, because no thread can be started")
            }
            Self::Refused(Refusal::Other(number)) => {
                let why = nix::errno::Errno::from_raw(*number).desc();
                write!(f, "not interrupted: {why}")
            }
        }
    }
}

impl fmt::Display for InterruptedWriter<'_> {
    /// Such as `process 123 (pv) sleeps in splice(2) to /mnt/a/out: interrupted`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.writer, self.outcome)
    }
}

/// Why a search ended before it had seen everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchBound {
    /// Its deadline.
    Time,
    /// As many as are kept, or as descriptors can be had for.
    Number,
}

impl fmt::Display for SearchBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "not all processes could be looked at in time",
            Self::Number => "there were more writers than are kept",
        })
    }
}

/// The writers that were found, each with what it takes to look at it again.
#[derive(Debug, Default)]
pub struct Writers {
    all: Vec<Writer>,
    interrupt: bool,
    bound: Option<SearchBound>,
    unread: usize,
}

impl Writers {
    /// Looks through all threads of the machine but our own. Opens nothing outside of `/proc`, and waits for no file system.
    #[must_use]
    pub fn gather(search: &Search<'_>) -> Self {
        if search.devices.is_empty() || search.most == 0 {
            return Self::default();
        }
        let mut spared = search.spared.to_vec();
        spared.push(std::process::id());
        let mut places = Places::new(search.proc);
        let mut all = Vec::new();
        let missed = threads::each(search.proc, &spared, search.deadline, &mut |thread| {
            all.extend(writer(search, &mut places, thread));
            match all.len() < search.most {
                true => More::Wanted,
                false => More::Enough,
            }
        });
        let Missed { late, full, unread } = missed;
        Self {
            all,
            interrupt: search.rules.interrupt,
            bound: match (late, full) {
                (true, _) => Some(SearchBound::Time),
                (false, true) => Some(SearchBound::Number),
                (false, false) => None,
            },
            unread,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Writer> {
        self.all.iter()
    }

    /// Those of this superblock.
    pub fn of(&self, dev: DeviceNumber) -> impl Iterator<Item = &Writer> {
        self.all
            .iter()
            .filter(move |writer| writer.device == Some(dev))
    }

    /// Those that may be of any superblock.
    pub fn unplaced(&self) -> impl Iterator<Item = &Writer> {
        self.all.iter().filter(|writer| writer.device.is_none())
    }

    /// Why there may be more.
    #[must_use]
    pub fn bound(&self) -> Option<SearchBound> {
        self.bound
    }

    /// How many threads or processes could not be looked into.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread
    }

    /// Keeps those alone that have been asleep without a break since they were found.
    pub fn retain_asleep(&mut self) {
        self.all.retain(Writer::has_not_stirred);
    }

    /// Interrupts the writers of this superblock that are in the same system call still: those by which a freeze of it is held up. Where there is none
    /// of them that sleeps, those of an unknown superblock.
    ///
    /// To be called while a FIFREEZE of it waits. Takes 1 s at most, usually a millisecond; opens nothing and looks up no path; starts one thread for
    /// each writer that it interrupts. One that was excluded, or is not to be interrupted, is told with that.
    #[must_use]
    pub fn interrupt(&self, dev: DeviceNumber) -> Vec<InterruptedWriter<'_>> {
        let placed: Vec<&Writer> = self.of(dev).collect();
        let explains = placed.iter().any(|writer| writer.is_asleep());
        let mut outcomes = self.interrupt_these(placed);
        if !explains {
            outcomes.extend(self.interrupt_these(self.unplaced().collect()));
        }
        outcomes
    }

    fn interrupt_these<'a>(&self, writers: Vec<&'a Writer>) -> Vec<InterruptedWriter<'a>> {
        let wanted = |writer: &&&Writer| writer.left_alone(self.interrupt).is_none();
        let sleeps: Vec<_> = writers
            .iter()
            .filter(wanted)
            .map(|writer| Arc::clone(&writer.sleep))
            .collect();
        let mut outcomes = interrupt::interrupt(&sleeps).into_iter();
        let outcome = |writer: &'a Writer| InterruptedWriter {
            writer,
            outcome: match writer.left_alone(self.interrupt) {
                Some(_) if !writer.sleep.is_in_call() => InterruptOutcome::Gone,
                Some(why) => InterruptOutcome::LeftAlone(why),
                None => outcomes.next().unwrap_or(InterruptOutcome::Gone),
            },
        };
        writers.into_iter().map(outcome).collect()
    }
}

/// The thread as a writer, if it is one.
fn writer(search: &Search<'_>, places: &mut Places<'_>, thread: Thread) -> Option<Writer> {
    let (pid, tid) = (thread.pid, thread.tid);
    let (call, restarts, device, fd) = match thread.call.meaning()? {
        Meaning::Writes { name, fd, restarts } => {
            let device = match places.of(pid, tid, fd) {
                Place::On(dev) if search.devices.contains(&dev) => Some(dev),
                // Of pipes, sockets and the like there is no path.
                Place::Unlisted if places.path(pid, tid, fd).starts_with('/') => None,
                _ => return None,
            };
            // A pipe or a device may have its name on it, which is all it has there. An ioctl may be one of a directory.
            if device.is_some() && restarts && !places.is_regular(pid, tid, fd) {
                return None;
            }
            (name, restarts, device, Some(fd))
        }
        Meaning::MayWrite { name } => (name, true, None, None),
        Meaning::Freezes(_) | Meaning::Thaws(_) => return None,
    };
    let sleep = Sleep::open(search.proc, thread).ok()?;
    if fd.is_none() && !sleep.breaks_lease() {
        return None;
    }
    // It may have gone to sleep elsewhere while its descriptor was looked at.
    let Look::Holds(state) = sleep.look() else {
        return None;
    };
    let process: PathBuf = search.proc.join(pid.to_string());
    let name = fs::read(process.join("comm")).unwrap_or_default();
    Some(Writer {
        process: Process::read(search.proc, pid),
        tid,
        call,
        file: fd.map_or_else(String::new, |fd| places.path(pid, tid, fd)),
        device,
        state,
        is_excluded: search.rules.exclude(&process, name.trim_ascii_end()),
        restarts,
        sleep: Arc::new(sleep),
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
