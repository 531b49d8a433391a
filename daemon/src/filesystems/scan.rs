//! Reads what a plan is made of: the mount table, the kernel's file system types, and the block devices beneath.
//!
//! Nothing is opened outside `/proc` and `/sys` but nodes of loop devices in `/dev`, and outside them only paths below `/dev` are looked up, so that nobody but
//! root says where to. A dead server or process behind a mount point cannot block it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::blockdev::{BlockDevice, Sysfs, is_numbered};
use super::device::DeviceNumber;
pub use super::error::ScanError;
use super::identity::Identities;
use super::kinds::{Kind, Kinds};
use super::live::{self, LiveSuperblock};
use super::mount_table::MountTable;
use super::mountinfo::{self, Mount};
use super::namespaces::{Namespace, Others, UnreadTables, read_others};
use super::nodes::{Behind, LOOPS_TIMEOUT};
use super::roots::Roots;
use super::tree::MountTree;
use super::watch::OtherTables;

/// Everything a plan is made from, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The mount table, in its order.
    pub mounts: MountTable,
    /// Types without a device (`nodev` in /proc/filesystems, `man 5 filesystems`).
    pub nodev: BTreeSet<String>,
    /// For each superblock with blocks of its own the devices these are on; none where they could not be found out.
    pub members: BTreeMap<DeviceNumber, Vec<DeviceNumber>>,
    /// The block devices that [`Scan::members`] names, and all beneath those. A device that is missing here is unknown.
    pub devices: BTreeMap<DeviceNumber, BlockDevice>,
    /// The mount namespaces of other processes, those that tell anything new.
    pub namespaces: Vec<Namespace>,
    /// Mount points of all other namespaces, as far as ours does not have them, with the superblocks mounted there. An image set up in a container has a path
    /// as of that container's root, and nothing tells which container that is.
    pub elsewhere: BTreeMap<PathBuf, BTreeSet<DeviceNumber>>,
    /// The numbers that stand for one superblock. In all of the above the first of them stands for it.
    pub identities: Identities,
    /// The superblocks that are live as sysfs shows them, whether a mount table has them or not; none where only our own namespace is meant.
    pub live: Vec<LiveSuperblock>,
    /// sysfs shows block devices, so that one it does not show is not there.
    pub has_sysfs: bool,
    /// Processes whose mount namespace could not be found out or not be read: without CAP_SYS_PTRACE all that are more privileged than we are.
    pub unread_processes: usize,
    /// Mount tables that were too long to be read to their end, or too many.
    pub unread_tables: Vec<UnreadTables>,
    /// A number that stays the same as long as all other namespaces of the system have the mounts they have ([`OtherTables::fingerprint`]).
    pub others_fingerprint: u64,
}

impl Scan {
    /// All mounts: ours, and those of the other namespaces that tell anything new.
    pub fn all_mounts(&self) -> impl Iterator<Item = Mount<'_>> {
        self.tables().flat_map(MountTable::iter)
    }

    /// Whether there are mounts that nobody has looked at.
    pub(crate) fn has_unseen(&self) -> bool {
        self.unread_processes > 0 || !self.unread_tables.is_empty()
    }

    /// With the numbers of their superblocks for all mounts, whatever the kernel prints ([`Identities`]).
    #[must_use]
    pub fn identified(mut self) -> Self {
        let mut identities = Identities::default();
        self.tables().for_each(|table| identities.note(table));
        identities.apply(&mut self.mounts);
        for other in &mut self.namespaces {
            identities.apply(&mut other.mounts);
        }
        let renumbered = identities.renumbered();
        if !renumbered.is_empty() {
            let number = |dev: DeviceNumber| renumbered.get(&dev).copied().unwrap_or(dev);
            for devs in self.elsewhere.values_mut() {
                *devs = devs.iter().copied().map(number).collect();
            }
        }
        self.identities = identities;
        self
    }

    fn tables(&self) -> impl Iterator<Item = &MountTable> {
        let others = self.namespaces.iter().map(|other| &other.mounts);
        std::iter::once(&self.mounts).chain(others)
    }

    /// Whether all devices beneath a superblock are in memory alone (drivers/block/{zram,brd.c}): no image of the machine's disks has them.
    pub(crate) fn is_in_memory(&self, dev: DeviceNumber) -> bool {
        let mut todo = self.members.get(&dev).cloned().unwrap_or_default();
        let mut seen = BTreeSet::new();
        let mut found = false;
        while let Some(dev) = todo.pop() {
            if !seen.insert(dev) {
                continue;
            }
            let Some(device) = self.devices.get(&dev).filter(|device| !device.incomplete) else {
                return false;
            };
            let is_leaf = device.below.is_empty();
            if is_leaf
                && !["zram", "ram"]
                    .iter()
                    .any(|driver| is_numbered(&device.name, driver))
            {
                return false;
            }
            found |= is_leaf;
            todo.extend(&device.below);
        }
        found
    }

    /// The live superblocks that no mount table shows.
    pub(crate) fn out_of_sight(&self) -> Vec<&LiveSuperblock> {
        let mut left: Vec<&LiveSuperblock> = self.live.iter().collect();
        let mut last = None;
        for mount in self.all_mounts() {
            // Neighbours in the table are often mounts of one superblock.
            if left.is_empty()
                || last.replace((mount.dev, mount.fstype)) == Some((mount.dev, mount.fstype))
            {
                continue;
            }
            let members = self.members.get(&mount.dev).map_or(&[][..], Vec::as_slice);
            let is_unknown = mount.dev.is_anonymous() && members.is_empty();
            left.retain(|live| {
                let is_shown = live.devices.contains(&mount.dev)
                    || live.devices.iter().any(|dev| members.contains(dev))
                    // A disk that was pulled has no number any more.
                    || live.devices.is_empty() && live.source == mount.source
                    // A btrfs whose devices are not known may be any of them, and none is frozen twice.
                    || is_unknown;
                !(is_shown && live.types().contains(&mount.fstype))
            });
        }
        left
    }

    pub(crate) fn kind_of(&self, fstype: &str) -> Kind {
        Kind::of(fstype, |name| self.nodev.contains(name))
    }

    pub(crate) fn kinds(&self, table: &MountTable) -> Kinds {
        Kinds::of(table, |fstype| self.kind_of(fstype))
    }
}

/// Reads the mount tables of this process and of all other namespaces, and the devices beneath them, in time linear in the number of mounts and processes.
///
/// # Errors
/// When a mount table or the list of types cannot be read in full. A process that is gone, or may not be looked into, is no error ([`Scan::unread_processes`]);
/// neither is what is missing in sysfs: the plan then places the superblock with care.
pub fn scan() -> Result<Scan, ScanError> {
    scan_below(&Roots::default())
}

/// [`scan`] of our own mount namespace alone: for a process that has left the machine's mounts, so that it touches none of them.
///
/// # Errors
/// As for [`scan`].
pub fn scan_own_namespace() -> Result<Scan, ScanError> {
    scan_below(&Roots {
        other_namespaces: false,
        ..Roots::default()
    })
}

/// [`scan`] of what stands below other roots.
///
/// # Errors
/// As for [`scan`].
pub fn scan_below(roots: &Roots) -> Result<Scan, ScanError> {
    gather(roots, &mut |_| {})
}

/// [`scan`], and the tables of the other namespaces still open: what changes in them from the moment they were read is told.
///
/// # Errors
/// As for [`scan`].
pub fn scan_and_watch() -> Result<(Scan, OtherTables), ScanError> {
    let mut tables = Vec::new();
    let scan = gather(&Roots::default(), &mut |table| tables.push(table))?;
    let others = OtherTables::new(tables, scan.others_fingerprint);
    Ok((scan, others))
}

/// `keep` gets the open table of each other namespace of the system.
fn gather(roots: &Roots, keep: &mut dyn FnMut(File)) -> Result<Scan, ScanError> {
    // Before the tables: what is unmounted in between is then found to be gone when it is opened, and what is mounted is in a table.
    let live = match roots.other_namespaces {
        true => live::all(&roots.sys),
        false => Vec::new(),
    };
    let table = roots.proc.join("self/mountinfo");
    let bytes = read(&table)?;
    let mounts = mountinfo::parse_owned(bytes).map_err(|source| ScanError::Mountinfo {
        path: table.clone(),
        source,
    })?;
    if mounts.is_empty() {
        return Err(ScanError::NoMounts { path: table });
    }
    let nodev = nodev_types(&read(&roots.proc.join("filesystems"))?);
    let kind_of = |fstype: &str| Kind::of(fstype, |name| nodev.contains(name));
    let others = match roots.other_namespaces {
        true => read_others(&roots.proc, &mounts, &kind_of, keep)?,
        false => Others::default(),
    };
    let mut scan = Scan {
        mounts,
        namespaces: others.namespaces,
        elsewhere: others.elsewhere,
        unread_processes: others.unread_processes,
        unread_tables: others.unread_tables,
        others_fingerprint: others.fingerprint,
        live,
        has_sysfs: fs::read_dir(roots.sys.join("dev/block"))
            .is_ok_and(|mut devices| devices.next().is_some()),
        nodev,
        ..Scan::default()
    }
    .identified();
    (scan.members, scan.devices) = block_devices(&scan, roots);
    Ok(scan)
}

/// The devices of each superblock, and what is beneath them.
fn block_devices(
    scan: &Scan,
    roots: &Roots,
) -> (
    BTreeMap<DeviceNumber, Vec<DeviceNumber>>,
    BTreeMap<DeviceNumber, BlockDevice>,
) {
    let kinds = scan.kinds(&scan.mounts);
    let unsafe_places: Vec<&Path> = scan
        .mounts
        .iter()
        .enumerate()
        .filter(|(index, _)| kinds.may_block(&scan.mounts, *index))
        .map(|(_, mount)| mount.mount_point)
        .filter(|place| place.starts_with("/dev"))
        .collect();
    let resolve = |path: &Path| match unsafe_places.iter().any(|place| path.starts_with(place)) {
        true => None,
        false => roots.dev.resolve(path),
    };
    let tree = MountTree::new(&scan.mounts, |index| kinds.may_block(&scan.mounts, index));
    let deadline = Instant::now() + LOOPS_TIMEOUT;
    let behind_loop = |name: &str, dev: DeviceNumber, path: &Path| {
        let mount = tree.holders(path).first().copied();
        // Whoever asks for the file would wait for its server.
        if mount.is_some_and(|index| kinds.may_block(&scan.mounts, index)) {
            return Behind::File(None);
        }
        // By number alone; only where nobody tells that, by name.
        let told = roots.dev.behind_loop(name, dev, path, deadline);
        let named = || {
            let mount = mount.and_then(|index| scan.mounts.get(index))?;
            resolve(path).or_else(|| node_at(mount, path).and_then(|node| resolve(&node)))
        };
        match told {
            Behind::Device(_) => told,
            told => named().map_or(told, Behind::Device),
        }
    };
    let mut sysfs = Sysfs::new(&roots.sys, &behind_loop);
    let mut members = BTreeMap::new();
    for table in scan.tables() {
        let kinds = scan.kinds(table);
        let mut last = None;
        for (index, mount) in table.iter().enumerate() {
            // Neighbours in the table are often mounts of one superblock.
            let superblock = Some((mount.dev, table.type_of(index)));
            if std::mem::replace(&mut last, superblock) == superblock
                || !kinds.kind(table, index).has_blocks()
                || members.contains_key(&mount.dev)
            {
                continue;
            }
            let on = devices_of(mount, &mut sysfs, &resolve);
            for dev in &on {
                sysfs.load(*dev);
            }
            members.insert(mount.dev, on);
        }
    }
    for live in &scan.live {
        for dev in &live.devices {
            sysfs.load(*dev);
        }
        // A number that no mount has but for this very superblock.
        if let Some(dev) = live.dev() {
            members.entry(dev).or_insert_with(|| live.devices.clone());
        }
    }
    (members, sysfs.into_devices())
}

/// The block devices a superblock lies on.
fn devices_of(
    mount: Mount<'_>,
    sysfs: &mut Sysfs<'_>,
    resolve: &dyn Fn(&Path) -> Option<DeviceNumber>,
) -> Vec<DeviceNumber> {
    let mut on: Vec<DeviceNumber> = if mount.dev.is_anonymous() {
        let named: Vec<_> = named_devices(mount).map(resolve).collect();
        let first = named.iter().flatten().next().copied();
        let pool = first.and_then(|first| match mount.fstype {
            "btrfs" => sysfs.btrfs_members(first),
            "bcachefs" => sysfs.bcachefs_members(first),
            _ => None,
        });
        match (pool, first) {
            (Some(pool), _) => pool,
            (None, Some(_)) => named.into_iter().map(or_unknown).collect(),
            (None, None) => Vec::new(),
        }
    } else {
        vec![mount.dev]
    };
    // XFS keeps its journal and its real-time files on devices of their own, if told so (man 5 xfs).
    for option in ["logdev", "rtdev"] {
        let path = mount.super_option(option);
        on.extend(path.map(|path| or_unknown(resolve(Path::new(&path)))));
    }
    on
}

/// A device that could not be found goes under a number that none has.
fn or_unknown(device: Option<DeviceNumber>) -> DeviceNumber {
    device.unwrap_or(DeviceNumber::new(0, 0))
}

/// The name in `/dev` of a node that is bound to exactly this path, as Kubernetes does it for raw block volumes.
fn node_at(mount: Mount<'_>, path: &Path) -> Option<PathBuf> {
    let is_bound = mount.fstype == "devtmpfs" && mount.mount_point == path;
    let name = mount.root.strip_prefix("/").ok().filter(|_| is_bound)?;
    Some(Path::new("/dev").join(name))
}

/// The devices a source names; bcachefs names all of its members, with colons between.
fn named_devices(mount: Mount<'_>) -> impl Iterator<Item = &Path> {
    let several = mount.fstype == "bcachefs";
    mount
        .source
        .as_bytes()
        .split(move |byte| several && *byte == b':')
        .map(|name| Path::new(OsStr::from_bytes(name)))
}

/// The second column of the lines whose first is `nodev`.
fn nodev_types(filesystems: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(filesystems)
        .lines()
        .filter_map(|line| line.strip_prefix("nodev"))
        .map(|name| name.trim().to_owned())
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, ScanError> {
    fs::read(path).map_err(|source| ScanError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
