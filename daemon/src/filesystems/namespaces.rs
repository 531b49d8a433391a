//! The mount tables of other processes: what is mounted only in a container, in a service's namespace or in somebody's `unshare`
//! (`man 7 mount_namespaces`).
//!
//! A server runs thousands of processes in few namespaces, most of which repeat what ours has. Each process costs one `readlink`, each namespace one read of a
//! mountinfo, and only what is new is looked at in full. A namespace is seen from the root directory of one of its processes; one without any process (kept
//! by a bind mount of its file alone) and one that a single thread made for itself are not seen.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hashbrown::{HashMap, HashSet};

use super::device::DeviceNumber;
use super::error::ScanError;
use super::kinds::{Kind, Kinds};
use super::mount_table::MountTable;
use super::mountinfo::{self, skim, unescape};
use super::processes::{self, Process, file_of};
use super::tree::MountTree;

/// A mount namespace other than ours that has something ours has not, or has something within reach that ours only has hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The process through which it is seen.
    pub process: Process,
    /// Its mount table, in its order, as seen from that process's root directory.
    pub mounts: MountTable,
}

/// What all other namespaces tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Others {
    pub(crate) namespaces: Vec<Namespace>,
    /// As [`super::Scan::elsewhere`].
    pub(crate) elsewhere: BTreeMap<PathBuf, BTreeSet<DeviceNumber>>,
    /// As [`super::Scan::unread_processes`].
    pub(crate) unread_processes: usize,
    /// As [`super::Scan::others_fingerprint`].
    pub(crate) fingerprint: u64,
}

/// Reads the namespaces of all processes but our own; `own` is our mount table. `keep` gets each table's open file.
pub(crate) fn read_others(
    proc: &Path,
    own: &MountTable,
    kind_of: &dyn Fn(&str) -> Kind,
    keep: &mut dyn FnMut(File),
) -> Result<Others, ScanError> {
    let listed = processes::list(proc)?;
    let mut unread = listed.unread;
    let mut others = Others::default();
    // Not made for a machine without any other namespace.
    let mut own_known: Option<(Known<'_>, Places<'_>)> = None;
    for pids in listed.namespaces {
        let Some((pid, file, table)) = processes::table(proc, pids, &mut unread) else {
            continue;
        };
        keep(file);
        let (known, places) = own_known.get_or_insert_with(|| {
            let mut known = Known::new(kind_of);
            known.take(own);
            (known, Places::new(own))
        });
        others.fingerprint = others.fingerprint.wrapping_add(fingerprint(&table));
        places.add(&table);
        if !known.may_gain_from(&table) {
            continue;
        }
        let mounts = mountinfo::parse_owned(table).map_err(|source| ScanError::Mountinfo {
            path: file_of(proc, pid, "mountinfo"),
            source,
        })?;
        if known.take(&mounts) {
            let process = Process::read(proc, pid);
            others.namespaces.push(Namespace { process, mounts });
        }
    }
    if let Some((_, places)) = own_known {
        others.elsewhere = places.elsewhere();
    }
    others.unread_processes = unread;
    others.fingerprint = others.fingerprint.wrapping_add(unread as u64);
    Ok(others)
}

/// Of one table; those of several are added up, because namespaces come in no order. Never 0, so that an empty one counts.
pub(crate) fn fingerprint(table: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default()
        .hash_one(table)
        .max(1)
}

/// The superblocks seen so far.
struct Known<'a> {
    kind_of: &'a dyn Fn(&str) -> Kind,
    seen: HashSet<DeviceNumber>,
    /// Those about which no other table can tell more: a way to open them is known, or they are never opened.
    settled: HashSet<DeviceNumber>,
}

impl<'a> Known<'a> {
    fn new(kind_of: &'a dyn Fn(&str) -> Kind) -> Self {
        Self {
            kind_of,
            seen: HashSet::new(),
            settled: HashSet::new(),
        }
    }

    fn may_gain_from(&self, table: &[u8]) -> bool {
        skim(table).any(|line| line.is_none_or(|(dev, _)| !self.settled.contains(&dev)))
    }

    /// Whether the table told anything new.
    fn take(&mut self, mounts: &MountTable) -> bool {
        let kinds = Kinds::of(mounts, self.kind_of);
        let tree = MountTree::new(mounts, |index| kinds.may_block(mounts, index));
        let mut gained = false;
        for (index, mount) in mounts.iter().enumerate() {
            gained |= self.seen.insert(mount.dev);
            if tree.is_open(index) || !kinds.kind(mounts, index).has_blocks() {
                gained |= self.settled.insert(mount.dev);
            }
        }
        gained
    }
}

/// Mount points with the superblocks mounted there, apart from those of our own table.
struct Places<'a> {
    own: HashSet<(&'a [u8], DeviceNumber)>,
    others: HashMap<Vec<u8>, BTreeSet<DeviceNumber>>,
}

impl<'a> Places<'a> {
    fn new(own: &'a MountTable) -> Self {
        let place = |mount: super::Mount<'a>| (mount.mount_point.as_os_str().as_bytes(), mount.dev);
        Self {
            own: own.iter().map(place).collect(),
            others: HashMap::new(),
        }
    }

    fn add(&mut self, table: &[u8]) {
        for (dev, point) in skim(table).flatten() {
            let point = match point.contains(&b'\\') {
                false => Cow::Borrowed(OsStr::from_bytes(point)),
                true => Cow::Owned(unescape(point)),
            };
            let point = point.as_bytes();
            if self.own.contains(&(point, dev)) {
                continue;
            }
            match self.others.get_mut(point) {
                Some(devs) => drop(devs.insert(dev)),
                None => drop(self.others.insert(point.to_owned(), [dev].into())),
            }
        }
    }

    fn elsewhere(self) -> BTreeMap<PathBuf, BTreeSet<DeviceNumber>> {
        self.others
            .into_iter()
            .map(|(point, devs)| (OsStr::from_bytes(&point).into(), devs))
            .collect()
    }
}

#[cfg(test)]
#[path = "namespaces_tests.rs"]
mod tests;
