//! The superblocks of a mount table, each with its mounts, and why it is left out. Pure.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hashbrown::HashMap;

use super::device::DeviceNumber;
use super::kinds::Kind;
use super::live::LiveSuperblock;
use super::mount_table::MountTable;
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
    pub(crate) best: Mount<'a>,
    /// The best first.
    mounts: Vec<Seen<'a>>,
    /// Paths that no other mount catches begin on it.
    pub(crate) is_root: bool,
    /// The policy names one of its mounts.
    is_excluded: bool,
    /// The policy's lists of what to include do.
    is_included: bool,
}

/// A mount, and how it can be reached.
struct Seen<'a> {
    mount: Mount<'a>,
    hidden: bool,
    through_server: bool,
    /// The process in whose namespace it is; `None` for ours.
    via: Option<&'a Process>,
}

/// All superblocks, in the order of their best mount points, each with its best mounts, `most` at most.
pub(crate) fn superblocks<'a>(
    scan: &'a Scan,
    tree: &MountTree<'_>,
    policy: &Policy,
    most: usize,
) -> Vec<Found<'a>> {
    let mut groups = Groups::default();
    for seen in look_at(&scan.mounts, tree, None) {
        groups.add(seen, policy, most);
    }
    // Other namespaces add to our own superblocks only what opens those that cannot be opened here.
    let own: Vec<bool> = groups.all.iter().map(|group| group.is_open).collect();
    for namespace in &scan.namespaces {
        let kinds = scan.kinds(&namespace.mounts);
        let tree = MountTree::new(&namespace.mounts, |index| {
            kinds.may_block(&namespace.mounts, index)
        });
        for seen in look_at(&namespace.mounts, &tree, Some(&namespace.process)) {
            let adds = match own.get(groups.place(seen.mount.dev)) {
                Some(can_be_opened) => !can_be_opened && seen.is_open(),
                None => true,
            };
            if adds {
                groups.add(seen, policy, most);
            }
        }
    }
    let mut found: Vec<Found<'_>> = groups.all.into_iter().filter_map(Group::finish).collect();
    found.sort_by(|a, b| (a.best.mount_point, a.best.dev).cmp(&(b.best.mount_point, b.best.dev)));
    let out_of_sight = scan.out_of_sight();
    found.extend(out_of_sight.into_iter().map(|live| unseen(live, policy)));
    found
}

/// A superblock that is mounted nowhere in sight, taken for writable: whether it is, its opening tells.
fn unseen<'a>(live: &'a LiveSuperblock, policy: &Policy) -> Found<'a> {
    let best = Mount {
        id: 0,
        parent: 0,
        dev: live.dev().unwrap_or_default(),
        root: Path::new("/"),
        mount_point: Path::new(""),
        options: OsStr::new("rw"),
        fstype: live.driver,
        source: &live.source,
        super_options: OsStr::new("rw"),
    };
    Found {
        is_root: false,
        is_excluded: policy.excludes(&best, false),
        is_included: policy.includes(&best, false),
        mounts: Vec::new(),
        best,
    }
}

fn look_at<'a>(
    mounts: &'a MountTable,
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

/// The superblocks met so far.
#[derive(Default)]
struct Groups<'a> {
    all: Vec<Group<'a>>,
    by_dev: HashMap<DeviceNumber, usize>,
    /// Neighbours in the table are often mounts of one superblock.
    last: Option<(DeviceNumber, usize)>,
}

/// What is gathered about a superblock.
#[derive(Default)]
struct Group<'a> {
    /// In order as soon as there are as many as are wanted.
    mounts: Vec<Seen<'a>>,
    is_root: bool,
    is_excluded: bool,
    is_included: bool,
    is_open: bool,
}

impl<'a> Groups<'a> {
    /// The place of a superblock's group; the number of all groups for one that has none yet.
    fn place(&mut self, dev: DeviceNumber) -> usize {
        match self.last {
            Some((last, place)) if last == dev => return place,
            _ => {}
        }
        let place = self.by_dev.get(&dev).copied();
        if let Some(place) = place {
            self.last = Some((dev, place));
        }
        place.unwrap_or(self.all.len())
    }

    fn add(&mut self, seen: Seen<'a>, policy: &Policy, most: usize) {
        let dev = seen.mount.dev;
        let place = self.place(dev);
        match self.all.get_mut(place) {
            Some(group) => group.add(seen, policy, most),
            None => {
                self.by_dev.insert(dev, place);
                let mut group = Group::default();
                group.add(seen, policy, most);
                self.all.push(group);
            }
        }
    }
}

impl<'a> Group<'a> {
    /// Keeps the best: in time linear in the number of mounts, as long as `most` is a constant.
    fn add(&mut self, seen: Seen<'a>, policy: &Policy, most: usize) {
        self.is_root |= seen.is_root();
        self.is_open |= seen.is_open();
        let here = seen.via.is_none();
        self.is_excluded = self.is_excluded || policy.excludes(&seen.mount, here);
        self.is_included = self.is_included || policy.includes(&seen.mount, here);
        if self.mounts.len() < most {
            self.mounts.push(seen);
            if self.mounts.len() == most {
                self.mounts.sort_by(Seen::compare);
            }
            return;
        }
        let is_worse = |known: &Seen<'_>| known.compare(&seen) != Ordering::Greater;
        if self.mounts.last().is_some_and(|worst| !is_worse(worst)) {
            let place = self.mounts.partition_point(is_worse);
            self.mounts.pop();
            self.mounts.insert(place, seen);
        }
    }

    fn finish(mut self) -> Option<Found<'a>> {
        self.mounts.sort_by(Seen::compare);
        Some(Found {
            best: self.mounts.first()?.mount,
            mounts: self.mounts,
            is_root: self.is_root,
            is_excluded: self.is_excluded,
            is_included: self.is_included,
        })
    }
}

impl Seen<'_> {
    fn is_open(&self) -> bool {
        !self.hidden && !self.through_server
    }

    fn is_root(&self) -> bool {
        self.via.is_none() && !self.hidden && bytes(self.mount.mount_point) == b"/"
    }

    /// Least is best: can be reached by its path, here and without a server, is a whole file system and so a directory, is short.
    fn compare(&self, other: &Self) -> Ordering {
        let reach = |seen: &Self| (seen.through_server, seen.hidden);
        let part = |seen: &Self| {
            (
                bytes(seen.mount.root) != b"/",
                bytes(seen.mount.mount_point).len(),
            )
        };
        reach(self)
            .cmp(&reach(other))
            .then_with(|| self.via.cmp(&other.via))
            .then_with(|| part(self).cmp(&part(other)))
            .then_with(|| bytes(self.mount.mount_point).cmp(bytes(other.mount.mount_point)))
            .then_with(|| self.mount.id.cmp(&other.mount.id))
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

impl Found<'_> {
    /// Why a superblock is left out; `None` for one to freeze.
    pub(crate) fn reason(&self, kind: Kind, scan: &Scan, policy: &Policy) -> Option<Reason> {
        let members = || scan.members.get(&self.best.dev).into_iter().flatten();
        let excluded = || {
            self.is_excluded
                || members().any(|dev| policy.excludes_device(*dev, scan.devices.get(dev)))
        };
        let included = || {
            policy.includes_all()
                || self.is_included
                || members().any(|dev| policy.includes_device(*dev, scan.devices.get(dev)))
        };
        match kind {
            Kind::Remote if self.is_cluster_on_a_disk() && !excluded() && included() => {
                Some(Reason::ClusterOnDisk)
            }
            Kind::Remote => Some(Reason::Remote),
            // Never opened in any case; but on a disk of this guest, and so in its image.
            Kind::Fuse if self.is_fuse_on_a_disk() && !excluded() && included() => {
                Some(Reason::FuseOnDisk)
            }
            Kind::Fuse => Some(Reason::Fuse),
            Kind::Pseudo => Some(Reason::Pseudo),
            _ if excluded() => Some(Reason::Excluded),
            _ if !included() => Some(Reason::NotIncluded),
            _ if self.best.superblock_is_read_only() => Some(Reason::ReadOnly),
            Kind::Layered(_) => Some(Reason::Layered),
            _ if scan.is_in_memory(self.best.dev) => Some(Reason::InMemory),
            Kind::CannotFreeze => Some(Reason::CannotFreeze),
            Kind::Freezable if self.has_lost_its_device(scan) => Some(Reason::DeviceGone),
            Kind::Freezable if self.is_shut_down() => Some(Reason::ShutDown),
            Kind::Freezable if policy.flush_only => Some(Reason::FlushOnly),
            Kind::Freezable => None,
        }
    }

    /// No mount table shows it.
    pub(crate) fn is_out_of_sight(&self) -> bool {
        self.mounts.is_empty()
    }

    /// Its disk was pulled: nothing can be written to it any more.
    fn has_lost_its_device(&self, scan: &Scan) -> bool {
        let dev = self.best.dev;
        let is_pulled = !dev.is_anonymous() && !scan.devices.contains_key(&dev);
        // One that sysfs alone tells of has no number then.
        let was_pulled = self.is_out_of_sight() && dev == DeviceNumber::default();
        scan.has_sysfs && (is_pulled || was_pulled)
    }

    /// Its driver says so (`ext4_show_options` in fs/ext4/super.c, Linux 6.15).
    fn is_shut_down(&self) -> bool {
        let options = self.best.super_options.as_bytes();
        let mut options = options.split(|byte| *byte == b',');
        options.any(|option| matches!(option, b"shutdown" | b"emergency_ro"))
    }

    /// Such as ntfs-3g: the kernel mounts its device for it.
    fn is_fuse_on_a_disk(&self) -> bool {
        let base = self.best.fstype.split('.').next();
        base == Some("fuseblk") && !self.best.superblock_is_read_only()
    }

    /// A server of Lustre's, ACFS and others have their device for a source; GPFS never tells whether its disks are those of this guest.
    fn is_cluster_on_a_disk(&self) -> bool {
        let has_disk =
            self.best.fstype == "gpfs" || self.best.source.as_bytes().starts_with(b"/dev/");
        has_disk && !self.best.superblock_is_read_only()
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.mounts
            .iter()
            .map(|seen| Candidate {
                id: seen.mount.id,
                mount_point: seen.mount.mount_point.to_owned(),
                root: seen.mount.root.to_owned(),
                hidden: seen.hidden,
                through_server: seen.through_server,
                via: seen.via.cloned(),
            })
            .collect()
    }

    pub(crate) fn frozen(&self, facts: &Facts, nodes: &[Node<'_>]) -> Superblock {
        Superblock {
            dev: self.best.dev,
            fstype: self.best.fstype.to_owned(),
            source: self.best.source.to_owned(),
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
            fstype: self.best.fstype.to_owned(),
            source: self.best.source.to_owned(),
            mounts: self.candidates(),
            reason,
            flush: reason.is_flushed(),
        }
    }
}
