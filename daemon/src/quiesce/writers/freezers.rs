//! Who is in a freeze or a thaw right now.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::call::Meaning;
use super::place::{Place, Places};
use super::threads::{self, More};
use crate::filesystems::{DeviceNumber, Process};

/// How long they are looked for.
const SEARCH_DEADLINE: Duration = Duration::from_secs(2);

/// More than this are not of interest.
const MAX_FREEZERS: usize = 256;

/// A thread that has called FIFREEZE or FITHAW, and waits for it to return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freezer {
    /// Its process; also this one.
    pub process: Process,
    /// The thread.
    pub tid: u32,
    /// What it waits for.
    pub call: FreezeCall,
    /// The superblock; `None` where the kernel does not tell: a btrfs that is held by a detached mount.
    pub device: Option<DeviceNumber>,
}

/// Which call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeCall {
    /// FIFREEZE.
    Freeze,
    /// FITHAW.
    Thaw,
}

impl Freezer {
    /// Whether it is, or for all that is known may be, at work on this superblock.
    #[must_use]
    pub fn may_be_on(&self, dev: DeviceNumber) -> bool {
        self.device.is_none_or(|device| device == dev)
    }
}

impl fmt::Display for FreezeCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Freeze => "FIFREEZE",
            Self::Thaw => "FITHAW",
        })
    }
}

impl fmt::Display for Freezer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::write_thread(f, &self.process, self.tid)?;
        write!(f, " waits in {}", self.call)?;
        match self.device {
            Some(dev) => write!(f, " of {dev}"),
            None => Ok(()),
        }
    }
}

/// Everyone below `proc` who is in a freeze or thaw, as far as that can be found out within 2 s.
#[must_use]
pub fn freezers(proc: &Path) -> Vec<Freezer> {
    let mut places = None;
    let mut found = Vec::new();
    let deadline = Instant::now() + SEARCH_DEADLINE;
    threads::each(proc, &[], deadline, &mut |thread| {
        let (fd, call) = match thread.call.meaning() {
            Some(Meaning::Freezes(fd)) => (fd, FreezeCall::Freeze),
            Some(Meaning::Thaws(fd)) => (fd, FreezeCall::Thaw),
            _ => return More::Wanted,
        };
        let (pid, tid) = (thread.pid, thread.tid);
        let places = places.get_or_insert_with(|| Places::new(proc));
        let device = match places.of(pid, tid, fd) {
            Place::On(dev) => Some(dev),
            // A detached mount. What FIFREEZE waits on is a local file system: nobody else would have let it begin.
            Place::Unlisted => places.block_device(pid, tid, fd),
            Place::Gone => return More::Wanted,
        };
        found.push(Freezer {
            process: Process::read(proc, pid),
            tid,
            call,
            device,
        });
        match found.len() < MAX_FREEZERS {
            true => More::Wanted,
            false => More::Enough,
        }
    });
    found
}
