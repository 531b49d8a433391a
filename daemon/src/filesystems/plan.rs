//! What is frozen, in which order, and what is left out and why. Pure: a scan and a policy in, a plan out.

use std::path::PathBuf;

use super::found;
use super::kinds::Kind;
use super::namespaces::UnreadTables;
use super::policy::Policy;
use super::scan::Scan;
use super::stacking::{Node, Stacking};
pub use super::superblock::{Candidate, LeftOut, Superblock};
use super::tree::MountTree;

/// What a freeze does. Every superblock of the mount tables is in it exactly once, and so is every [live](super::live) one that no table shows, with no mounts.
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
///   "unread_processes": 0,
///   "unread_tables": [{"uid": 1000, "namespaces": 3, "process": {"pid": 4321, "name": "sh"}}]
/// }
/// ```
/// `unread_tables` is there when a table was too long or there were too many; without `uid` they are the system's own.
/// Superblocks come in the order of freezing, and `stage` counts from 1. `namespace_of` is a process whose mount
/// namespace has the mount, if ours has it not. Bytes that are not UTF-8 are replaced by U+FFFD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Frozen one stage after the other, each stage in parallel; thawed in exact reverse.
    pub stages: Vec<Vec<Superblock>>,
    /// Not frozen, in the order of [`super::Reason`] and of mount points.
    pub left_out: Vec<LeftOut>,
    /// As [`Scan::unread_processes`]: what is mounted only in their namespaces is missing here.
    pub unread_processes: usize,
    /// As [`Scan::unread_tables`]: the same.
    pub unread_tables: Vec<UnreadTables>,
}

impl Plan {
    /// Plans the freeze of what was scanned.
    #[must_use]
    pub fn new(scan: &Scan, policy: &Policy) -> Self {
        Self::with_mounts(scan, policy, usize::MAX)
    }

    /// [`Plan::new`], but of each superblock no more than its `most` best mounts; linear in the number of mounts.
    #[must_use]
    pub fn with_mounts(scan: &Scan, policy: &Policy, most: usize) -> Self {
        let kinds = scan.kinds(&scan.mounts);
        let tree = MountTree::new(&scan.mounts, |index| kinds.may_block(&scan.mounts, index));
        let found = found::superblocks(scan, &tree, policy, most);
        let mut reasons = Vec::with_capacity(found.len());
        let mut nodes = Vec::with_capacity(found.len());
        for superblock in &found {
            let kind = scan.kind_of(superblock.best.fstype);
            let reason = superblock.reason(kind, scan, policy);
            let layer = match kind {
                Kind::Layered(Some(option)) => {
                    superblock.best.super_option(option).map(PathBuf::from)
                }
                Kind::Layered(None) => Some(PathBuf::from(superblock.best.source)),
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
                out_of_sight: superblock.is_out_of_sight(),
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
            unread_tables: scan.unread_tables.clone(),
        }
    }

    /// All superblocks to freeze, in order.
    pub fn superblocks(&self) -> impl DoubleEndedIterator<Item = &Superblock> {
        self.stages.iter().flatten()
    }

    /// The file systems that are writable and local, and cannot be frozen: the image has them as after a power cut, and nobody asked for that.
    pub fn gaps(&self) -> impl Iterator<Item = &LeftOut> {
        self.left_out
            .iter()
            .filter(|left_out| left_out.reason.is_a_gap())
    }

    /// What could not be looked at, so that a file system mounted only there is missing here; a sentence for each.
    pub fn unseen(&self) -> impl Iterator<Item = String> {
        let processes = match self.unread_processes {
            0 => None,
            1 => Some("the mount namespace of 1 process could not be looked into".to_owned()),
            many => Some(format!(
                "the mount namespaces of {many} processes could not be looked into"
            )),
        };
        let tables = self.unread_tables.iter().map(ToString::to_string);
        processes.into_iter().chain(tables)
    }

    /// The file systems that are flushed and not frozen.
    pub fn flushed(&self) -> impl Iterator<Item = &LeftOut> {
        self.left_out.iter().filter(|left_out| left_out.flush)
    }
}

#[cfg(test)]
#[path = "plan_tests/mod.rs"]
mod tests;
