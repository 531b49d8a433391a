//! What is frozen, in which order, and what is left out and why. Pure: a scan and a policy in, a plan out.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::device::DeviceNumber;
use super::found;
use super::kinds::Kind;
use super::policy::Policy;
use super::processes::Process;
use super::reason::Reason;
use super::scan::Scan;
use super::served::ServedBy;
use super::stacking::{Node, Stacking};
use super::tree::MountTree;

/// What a freeze does. Every superblock of the mount tables is in it exactly once.
///
/// As JSON:
/// ```json
/// {
///   "superblocks": [
///     {"stage": 1, "dev": "253:0", "fstype": "ext4", "source": "/dev/mapper/vg-root", "served_by": null, "stacked_on": [],
///      "beneath_unknown": false,
///      "mounts": [{"id": 27, "mount_point": "/", "root": "/", "hidden": false, "through_server": false, "namespace_of": null}]}
///   ],
///   "left_out": [
///     {"dev": "8:1", "fstype": "vfat", "source": "/dev/sda1", "reason": "cannot-freeze", "explanation": "…", "flush": true,
///      "mounts": [{"id": 31, "mount_point": "/data", "root": "/", "hidden": false, "through_server": false,
///                  "namespace_of": {"pid": 1234, "name": "httpd"}}]}
///   ],
///   "unread_processes": 0
/// }
/// ```
/// Superblocks come in the order of freezing, and `stage` counts from 1. `namespace_of` is a process whose mount
/// namespace has the mount, if ours has it not. Bytes that are not UTF-8 are replaced by U+FFFD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Frozen one stage after the other, each stage in parallel; thawed in exact reverse.
    pub stages: Vec<Vec<Superblock>>,
    /// Not frozen, in the order of [`Reason`] and of mount points.
    pub left_out: Vec<LeftOut>,
    /// As [`Scan::unread_processes`]: what is mounted only in their namespaces is missing here.
    pub unread_processes: usize,
}

/// A file system instance to freeze, however often it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Its identity.
    pub dev: DeviceNumber,
    /// The type, as mountinfo names it.
    pub fstype: String,
    /// The source of its best mount.
    pub source: OsString,
    /// All of its mounts, the best to open it through first; never empty.
    pub mounts: Vec<Candidate>,
    /// The server its blocks come from; such superblocks are frozen first.
    pub served_by: Option<ServedBy>,
    /// The superblocks that hold its image, directly; frozen after it, unless left out.
    pub stacked_on: Vec<DeviceNumber>,
    /// Something beneath it could not be found out; such superblocks are frozen before all other local ones.
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
    /// The source of its best mount.
    pub source: OsString,
    /// All of its mounts, the best first; never empty.
    pub mounts: Vec<Candidate>,
    /// Why.
    pub reason: Reason,
    /// Whether `syncfs` is called on it before the freeze. Nothing that is not flushed may be opened.
    pub flush: bool,
}

impl Plan {
    /// Plans the freeze of what was scanned; linear in the number of mounts.
    #[must_use]
    pub fn new(scan: &Scan, policy: &Policy) -> Self {
        let tree = MountTree::new(&scan.mounts, |mount| scan.may_block(mount));
        let found = found::superblocks(scan, &tree);
        let mut reasons = Vec::with_capacity(found.len());
        let mut nodes = Vec::with_capacity(found.len());
        for superblock in &found {
            let kind = scan.kind_of(superblock.best);
            let reason = superblock.reason(kind, scan, policy);
            let layer = match kind {
                Kind::Layered(Some(option)) => {
                    superblock.best.super_option(option).map(PathBuf::from)
                }
                Kind::Layered(None) => Some(PathBuf::from(&superblock.best.source)),
                _ => None,
            };
            reasons.push(reason);
            nodes.push((kind, reason.is_none(), layer));
        }
        let nodes: Vec<Node<'_>> = found
            .iter()
            .zip(&nodes)
            .map(|(superblock, (kind, staged, layer))| Node {
                dev: superblock.best.dev,
                kind: *kind,
                staged: *staged,
                layer: layer.as_deref(),
            })
            .collect();
        let stacking = Stacking::new(scan, &nodes, &tree);
        let root = found.iter().position(|superblock| superblock.is_root);
        let stages = stacking
            .stages(root)
            .iter()
            .map(|stage| {
                let frozen = |index: &usize| {
                    Some(
                        found
                            .get(*index)?
                            .frozen(stacking.facts.get(*index)?, &nodes),
                    )
                };
                stage.iter().filter_map(frozen).collect()
            })
            .collect();
        let mut left_out: Vec<LeftOut> = found
            .iter()
            .zip(reasons)
            .filter_map(|(superblock, reason)| Some(superblock.left_out(reason?)))
            .collect();
        left_out.sort_by_key(|left_out| left_out.reason);
        Self {
            stages,
            left_out,
            unread_processes: scan.unread_processes,
        }
    }

    /// All superblocks to freeze, in order.
    pub fn superblocks(&self) -> impl DoubleEndedIterator<Item = &Superblock> {
        self.stages.iter().flatten()
    }

    /// The file systems that are flushed because they cannot be frozen.
    pub fn flushed(&self) -> impl Iterator<Item = &LeftOut> {
        self.left_out.iter().filter(|left_out| left_out.flush)
    }
}

impl Superblock {
    /// The path by which an operator knows it.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        best_path(&self.mounts)
    }
}

impl LeftOut {
    /// The path by which an operator knows it.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        best_path(&self.mounts)
    }
}

fn best_path(mounts: &[Candidate]) -> &Path {
    mounts
        .first()
        .map_or(Path::new(""), |best| &best.mount_point)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
