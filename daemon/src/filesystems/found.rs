//! The superblocks of a mount table, each with its mounts, and why it is left out. Pure.

use std::collections::HashMap;
use std::path::Path;

use super::device::DeviceNumber;
use super::kinds::Kind;
use super::mountinfo::Mount;
use super::plan::{Candidate, LeftOut, Superblock};
use super::policy::Policy;
use super::reason::Reason;
use super::scan::Scan;
use super::stacking::{Facts, Node};
use super::tree::MountTree;

/// A superblock of the mount table.
pub(crate) struct Found<'a> {
    pub(crate) best: &'a Mount,
    /// The best first, each with whether it is hidden.
    mounts: Vec<(&'a Mount, bool)>,
    /// Paths that no other mount catches begin on it.
    pub(crate) is_root: bool,
}

/// All superblocks, in the order of their best mount points.
pub(crate) fn superblocks<'a>(scan: &'a Scan, tree: &MountTree<'_>) -> Vec<Found<'a>> {
    let mut by_dev: HashMap<DeviceNumber, Vec<(&Mount, bool)>> = HashMap::new();
    for (index, mount) in scan.mounts.iter().enumerate() {
        by_dev
            .entry(mount.dev)
            .or_default()
            .push((mount, tree.is_hidden(index)));
    }
    let mut found: Vec<Found<'_>> = by_dev
        .into_values()
        .filter_map(|mut mounts| {
            mounts.sort_by(|(a, a_hidden), (b, b_hidden)| {
                rank(a, *a_hidden).cmp(&rank(b, *b_hidden))
            });
            let is_root = mounts
                .iter()
                .any(|(mount, hidden)| !hidden && mount.mount_point == Path::new("/"));
            let best = mounts.first()?.0;
            Some(Found {
                best,
                mounts,
                is_root,
            })
        })
        .collect();
    found.sort_by(|a, b| (&a.best.mount_point, a.best.dev).cmp(&(&b.best.mount_point, b.best.dev)));
    found
}

/// Least is best: can be reached by its path, is a whole file system and so a directory, is short.
fn rank(mount: &Mount, hidden: bool) -> impl Ord + '_ {
    let partial = mount.root != Path::new("/");
    (
        hidden,
        partial,
        mount.mount_point.as_os_str().len(),
        &mount.mount_point,
        mount.id,
    )
}

impl Found<'_> {
    /// Why a superblock is left out; `None` for one to freeze.
    pub(crate) fn reason(&self, kind: Kind, scan: &Scan, policy: &Policy) -> Option<Reason> {
        let members = || scan.members.get(&self.best.dev).into_iter().flatten();
        let excluded = || {
            self.mounts.iter().any(|(mount, _)| policy.excludes(mount))
                || members().any(|dev| policy.names(*dev, scan.devices.get(dev)))
        };
        match kind {
            Kind::Remote => Some(Reason::Remote),
            Kind::Fuse => Some(Reason::Fuse),
            Kind::Pseudo => Some(Reason::Pseudo),
            _ if excluded() => Some(Reason::Excluded),
            _ if self.best.superblock_is_read_only() => Some(Reason::ReadOnly),
            Kind::Layered(_) => Some(Reason::Layered),
            Kind::CannotFreeze => Some(Reason::CannotFreeze),
            Kind::Freezable => None,
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.mounts
            .iter()
            .map(|(mount, hidden)| Candidate {
                id: mount.id,
                mount_point: mount.mount_point.clone(),
                root: mount.root.clone(),
                hidden: *hidden,
            })
            .collect()
    }

    pub(crate) fn frozen(&self, facts: &Facts, nodes: &[Node<'_>]) -> Superblock {
        Superblock {
            dev: self.best.dev,
            fstype: self.best.fstype.clone(),
            source: self.best.source.clone(),
            mounts: self.candidates(),
            served_by: facts.served,
            stacked_on: facts
                .on
                .iter()
                .filter_map(|index| Some(nodes.get(*index)?.dev))
                .collect(),
            beneath_unknown: facts.unknown,
        }
    }

    pub(crate) fn left_out(&self, reason: Reason) -> LeftOut {
        LeftOut {
            dev: self.best.dev,
            fstype: self.best.fstype.clone(),
            source: self.best.source.clone(),
            mounts: self.candidates(),
            reason,
            flush: reason.is_flushed(),
        }
    }
}
