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
use std::time::Instant;

use hashbrown::{HashMap, HashSet};

pub use super::budget::UnreadTables;
use super::budget::{Budget, Owner};
use super::device::DeviceNumber;
use super::error::ScanError;
use super::kinds::{Kind, Kinds};
use super::mount_table::MountTable;
use super::mountinfo::{self, skim, unescape};
use super::processes::{self, Process, Table, file_of};
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
    /// As [`super::Scan::unread_tables`].
    pub(crate) unread_tables: Vec<UnreadTables>,
    /// As [`super::Scan::others_fingerprint`].
    pub(crate) fingerprint: u64,
}

/// The tables of all other namespaces, one after the other, within a [`Budget`]: the system's first. How many tables ordinary users have and
/// how long these are costs no more than that.
struct Tables<'a> {
    proc: &'a Path,
    namespaces: std::vec::IntoIter<Vec<u32>>,
    ours: Option<File>,
    budget: Budget,
    /// Those of users are passed over.
    system_only: bool,
    /// Processes that could not be looked into.
    unread: usize,
    cut: BTreeMap<Option<u32>, UnreadTables>,
    /// As [`super::Scan::others_fingerprint`], of what was read so far. Tables are added up, because namespaces come in no order.
    ///
    /// Those of ordinary users do not count: they cannot mount a disk, and must not be able to have every plan made anew.
    fingerprint: u64,
}

impl<'a> Tables<'a> {
    fn list(proc: &'a Path, system_only: bool) -> Result<Self, ScanError> {
        let listed = processes::list(proc)?;
        Ok(Self {
            proc,
            namespaces: listed.namespaces.into_iter(),
            ours: File::open(proc.join("self/ns/user")).ok(),
            budget: Budget::default(),
            system_only,
            unread: listed.unread,
            cut: BTreeMap::new(),
            fingerprint: listed.unread as u64,
        })
    }

    fn note_cut(&mut self, owner: Owner, pid: u32) {
        let uid = match owner {
            Owner::System => None,
            Owner::User(uid) => Some(uid),
        };
        let cut = self.cut.entry(uid).or_insert_with(|| UnreadTables {
            uid,
            namespaces: 0,
            process: Process::read(self.proc, pid),
        });
        cut.namespaces += 1;
    }
}

impl Iterator for Tables<'_> {
    type Item = (Owner, Table);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let pids = self.namespaces.next()?;
            let started = Instant::now();
            let owner = processes::owner(self.proc, &pids, self.ours.as_ref());
            let is_system = owner == Owner::System;
            if self.system_only && !is_system {
                continue;
            }
            let first = pids.first().copied().unwrap_or_default();
            let Some(grant) = self.budget.grant(owner) else {
                self.note_cut(owner, first);
                continue;
            };
            let unread = self.unread;
            let table = processes::table(self.proc, pids, grant, &mut self.unread);
            let bytes = table.as_ref().map_or(0, |table| table.text.len());
            self.budget.spend(owner, bytes, started);
            if is_system {
                // Never 0 for a table, so that an empty one counts.
                let hash = |table: &Table| hash_of(&table.text).max(1);
                let told = table.as_ref().map_or(0, hash);
                let refused = (self.unread - unread) as u64;
                self.fingerprint = self.fingerprint.wrapping_add(told).wrapping_add(refused);
            }
            if let Some(table) = table {
                if table.is_cut {
                    self.note_cut(owner, table.pid);
                }
                return Some((owner, table));
            }
        }
    }
}

/// Reads the namespaces of all processes but our own; `own` is our mount table. `keep` gets each open table of the system's namespaces.
pub(crate) fn read_others(
    proc: &Path,
    own: &MountTable,
    kind_of: &dyn Fn(&str) -> Kind,
    keep: &mut dyn FnMut(File),
) -> Result<Others, ScanError> {
    let mut tables = Tables::list(proc, false)?;
    let mut others = Others::default();
    // Not made for a machine without any other namespace.
    let mut own_known: Option<(Known<'_>, Places<'_>)> = None;
    for (owner, table) in tables.by_ref() {
        if owner == Owner::System {
            keep(table.file);
        }
        let (known, places) = own_known.get_or_insert_with(|| {
            let mut known = Known::new(kind_of);
            known.take(own);
            (known, Places::new(own))
        });
        places.add(&table.text);
        if !known.may_gain_from(&table.text) {
            continue;
        }
        let mounts = mountinfo::parse_owned(table.text).map_err(|source| ScanError::Mountinfo {
            path: file_of(proc, table.pid, "mountinfo"),
            source,
        })?;
        if known.take(&mounts) {
            let process = Process::read(proc, table.pid);
            others.namespaces.push(Namespace { process, mounts });
        }
    }
    if let Some((_, places)) = own_known {
        others.elsewhere = places.elsewhere();
    }
    others.unread_processes = tables.unread;
    others.unread_tables = tables.cut.into_values().collect();
    others.fingerprint = tables.fingerprint;
    Ok(others)
}

/// The open tables of the system's namespaces, with the fingerprint that [`read_others`] would give now. Parses none.
pub(crate) fn open_others(proc: &Path) -> Result<(Vec<File>, u64), ScanError> {
    let mut tables = Tables::list(proc, true)?;
    let files = tables.by_ref().map(|(_, table)| table.file).collect();
    Ok((files, tables.fingerprint))
}

fn hash_of(text: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
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
