//! The superblocks of a mount table, each with its mounts, and why it is left out. Pure.

use std::collections::HashMap;
use std::path::Path;

use super::device::DeviceNumber;
use super::kinds::Kind;
use super::mountinfo::Mount;
use super::policy::Policy;
use super::processes::Process;
use super::reason::Reason;
use super::scan::Scan;
use super::stacking::{Facts, Node};
use super::superblock::{Candidate, LeftOut, Superblock};
use super::tree::MountTree;

/// A superblock of a mount table.
pub(crate) struct Found<'a> {
    pub(crate) best: &'a Mount,
    /// The best first.
    mounts: Vec<Seen<'a>>,
    /// Paths that no other mount catches begin on it.
    pub(crate) is_root: bool,
}

/// A mount, and how it can be reached.
struct Seen<'a> {
    mount: &'a Mount,
    hidden: bool,
    through_server: bool,
    /// The process in whose namespace it is; `None` for ours.
    via: Option<&'a Process>,
}

/// All superblocks, in the order of their best mount points.
pub(crate) fn superblocks<'a>(scan: &'a Scan, tree: &MountTree<'_>) -> Vec<Found<'a>> {
    let mut by_dev: HashMap<DeviceNumber, Vec<Seen<'_>>> = HashMap::new();
    for seen in look_at(&scan.mounts, tree, None) {
        by_dev.entry(seen.mount.dev).or_default().push(seen);
    }
    // Other namespaces add to our own superblocks only what opens those that cannot be opened here.
    let own: HashMap<DeviceNumber, bool> = by_dev
        .iter()
        .map(|(dev, mounts)| (*dev, mounts.iter().any(Seen::is_open)))
        .collect();
    for namespace in &scan.namespaces {
        let tree = MountTree::new(&namespace.mounts, |mount| scan.may_block(mount));
        for seen in look_at(&namespace.mounts, &tree, Some(&namespace.process)) {
            let adds = match own.get(&seen.mount.dev) {
                Some(can_be_opened) => !can_be_opened && seen.is_open(),
                None => true,
            };
            if adds {
                by_dev.entry(seen.mount.dev).or_default().push(seen);
            }
        }
    }
    let mut found: Vec<Found<'_>> = by_dev
        .into_values()
        .filter_map(|mut mounts| {
            mounts.sort_by(|a, b| a.rank().cmp(&b.rank()));
            let is_root = mounts.iter().any(Seen::is_root);
            let best = mounts.first()?.mount;
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

fn look_at<'a>(
    mounts: &'a [Mount],
    tree: &MountTree<'_>,
    via: Option<&'a Process>,
) -> impl Iterator<Item = Seen<'a>> {
    mounts.iter().enumerate().map(move |(index, mount)| Seen {
        mount,
        hidden: tree.is_hidden(index),
        through_server: tree.is_through_server(index),
        via,
    })
}

impl Seen<'_> {
    fn is_open(&self) -> bool {
        !self.hidden && !self.through_server
    }

    fn is_root(&self) -> bool {
        self.via.is_none() && !self.hidden && self.mount.mount_point == Path::new("/")
    }

    /// Least is best: can be reached by its path, here and without a server, is a whole file system and so a directory, is short.
    fn rank(&self) -> impl Ord + '_ {
        (
            self.through_server,
            self.hidden,
            self.via,
            self.mount.root != Path::new("/"),
            self.mount.mount_point.as_os_str().len(),
            &self.mount.mount_point,
            self.mount.id,
        )
    }
}

impl Found<'_> {
    /// Why a superblock is left out; `None` for one to freeze.
    pub(crate) fn reason(&self, kind: Kind, scan: &Scan, policy: &Policy) -> Option<Reason> {
        let members = || scan.members.get(&self.best.dev).into_iter().flatten();
        let excluded = || {
            self.mounts
                .iter()
                .any(|seen| policy.excludes(seen.mount, seen.via.is_none()))
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
            .map(|seen| Candidate {
                id: seen.mount.id,
                mount_point: seen.mount.mount_point.clone(),
                root: seen.mount.root.clone(),
                hidden: seen.hidden,
                through_server: seen.through_server,
                via: seen.via.cloned(),
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
