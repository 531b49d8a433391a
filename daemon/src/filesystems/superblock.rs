//! The parts of a plan: a superblock to freeze, one left out, and the mounts through which each may be opened.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::device::DeviceNumber;
use super::processes::Process;
use super::reason::Reason;
use super::served::ServedBy;

/// A file system instance to freeze, however often it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Its identity.
    pub dev: DeviceNumber,
    /// The type, as mountinfo names it.
    pub fstype: String,
    /// The source of its best mount; the kernel's path of its device where no mount is in sight.
    pub source: OsString,
    /// All of its mounts, the best to open it through first; empty for a [live](super::live) superblock that no mount table shows.
    pub mounts: Vec<Candidate>,
    /// The server its blocks come from; such superblocks are frozen before all local ones.
    pub served_by: Option<ServedBy>,
    /// The superblocks that hold its image, directly; frozen after it, unless left out.
    pub stacked_on: Vec<DeviceNumber>,
    /// Something beneath it could not be found out; such superblocks are frozen before all others, but for what a server's blocks lie on.
    pub beneath_unknown: bool,
}

/// A mount through which a superblock may be opened: only by [`Candidate::path`], and only if it is neither [hidden](Candidate::hidden) nor
/// [behind a server](Candidate::through_server). Check the [`Candidate::id`] of what was opened: the mount may have gone since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidate {
    /// The mount's id (`stx_mnt_id` of `man 2 statx`), unique in all namespaces.
    pub id: u64,
    /// Its path, as whoever is in its namespace knows it.
    pub mount_point: PathBuf,
    /// What of the file system is mounted there: for anything but `/` it may be a file, a socket or a device.
    pub root: PathBuf,
    /// Another mount covers it: its path leads elsewhere.
    pub hidden: bool,
    /// Its path leads over a network, FUSE or autofs mount: opening it could wait for ever for a dead server.
    pub through_server: bool,
    /// The process in whose mount namespace it is; `None` for ours.
    pub via: Option<Process>,
}

impl Candidate {
    /// The path to open (`/proc/PID/root` of `man 5 proc` for another namespace, which asks for CAP_SYS_PTRACE).
    #[must_use]
    pub fn path(&self) -> Cow<'_, Path> {
        let Some(process) = &self.via else {
            return Cow::Borrowed(&self.mount_point);
        };
        let mut path = OsString::from(format!("/proc/{}/root", process.pid));
        path.push(&self.mount_point);
        Cow::Owned(path.into())
    }

    /// Whether it can be opened by its path, and without waiting for anybody.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.hidden && !self.through_server
    }
}

/// A file system that is not frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its identity.
    pub dev: DeviceNumber,
    /// The type, as mountinfo names it.
    pub fstype: String,
    /// As [`Superblock::source`].
    pub source: OsString,
    /// All of its mounts, the best first; empty as in [`Superblock::mounts`].
    pub mounts: Vec<Candidate>,
    /// Why.
    pub reason: Reason,
    /// Whether `syncfs` is called on it before the freeze. Nothing that is not flushed may be opened.
    pub flush: bool,
}

impl Superblock {
    /// The path by which an operator knows it: its device where no mount is in sight.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        best_path(&self.mounts, &self.source)
    }
}

impl LeftOut {
    /// One of the plan that turned out, when it was opened, not to be held.
    #[must_use]
    pub fn from_plan(superblock: &Superblock, reason: Reason) -> Self {
        Self {
            dev: superblock.dev,
            fstype: superblock.fstype.clone(),
            source: superblock.source.clone(),
            mounts: superblock.mounts.clone(),
            reason,
            flush: false,
        }
    }

    /// As [`Superblock::mount_point`].
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        best_path(&self.mounts, &self.source)
    }
}

fn best_path<'a>(mounts: &'a [Candidate], source: &'a OsStr) -> &'a Path {
    mounts
        .first()
        .map_or(Path::new(source), |best| &best.mount_point)
}
