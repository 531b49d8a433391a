//! The mount tables of other processes: what is mounted only in a container, in a service's namespace or in somebody's `unshare`
//! (`man 7 mount_namespaces`).
//!
//! A server runs thousands of processes in few namespaces, most of which repeat what ours has. Each process costs one `readlink`, each namespace one read of a
//! mountinfo, and only what is new is looked at in full. A namespace is seen from the root directory of one of its processes; one without any process (kept
//! by a bind mount of its file alone) and one that a single thread made for itself are not seen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::device::DeviceNumber;
use super::error::ScanError;
use super::kinds::Kind;
use super::mountinfo::{self, Mount, skim, unescape};
use super::processes::{self, Process, file_of};
use super::tree::MountTree;

/// A mount namespace other than ours that has something ours has not, or has something within reach that ours only has hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The process through which it is seen.
    pub process: Process,
    /// Its mount table, in its order, as seen from that process's root directory.
    pub mounts: Vec<Mount>,
}

/// What all other namespaces tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Others {
    pub(crate) namespaces: Vec<Namespace>,
    /// As [`super::Scan::elsewhere`].
    pub(crate) elsewhere: BTreeMap<PathBuf, BTreeSet<DeviceNumber>>,
    /// As [`super::Scan::unread_processes`].
    pub(crate) unread_processes: usize,
}

/// Reads the namespaces of all processes but our own; `own` is our mount table as bytes and as mounts.
pub(crate) fn read_others(
    proc: &Path,
    own: (&[u8], &[Mount]),
    kind_of: &dyn Fn(&Mount) -> Kind,
) -> Result<Others, ScanError> {
    let listed = processes::list(proc)?;
    let mut known = Known::new(kind_of);
    known.take(own.1);
    let mut places = Places::new(own.0);
    let mut others = Others {
        unread_processes: listed.unread,
        ..Others::default()
    };
    for pids in listed.namespaces {
        let Some((pid, table)) = processes::table(proc, pids, &mut others.unread_processes) else {
            continue;
        };
        places.add(&table);
        if !known.may_gain_from(&table) {
            continue;
        }
        let mounts = mountinfo::parse(&table).map_err(|source| ScanError::Mountinfo {
            path: file_of(proc, pid, "mountinfo"),
            source,
        })?;
        if known.take(&mounts) {
            let process = Process::read(proc, pid);
            others.namespaces.push(Namespace { process, mounts });
        }
    }
    others.elsewhere = places.elsewhere();
    Ok(others)
}

/// A number that stays the same as long as all other namespaces have the mounts they have. Reads their tables, parses none.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn namespaces_fingerprint() -> Result<u64, ScanError> {
    let proc = Path::new("/proc");
    let listed = processes::list(proc)?;
    let mut unread = listed.unread;
    let tables = listed.namespaces.into_iter().filter_map(|pids| {
        let (_, table) = processes::table(proc, pids, &mut unread)?;
        let mut hasher = DefaultHasher::new();
        table.hash(&mut hasher);
        Some(hasher.finish())
    });
    // A sum, because the namespaces come in no order.
    let sum = tables.fold(0, |sum: u64, hash| sum.wrapping_add(hash).wrapping_add(1));
    Ok(sum.wrapping_add(unread as u64))
}

/// The superblocks seen so far.
struct Known<'a> {
    kind_of: &'a dyn Fn(&Mount) -> Kind,
    seen: HashSet<DeviceNumber>,
    /// Those about which no other table can tell more: a way to open them is known, or they are never opened.
    settled: HashSet<DeviceNumber>,
}

impl<'a> Known<'a> {
    fn new(kind_of: &'a dyn Fn(&Mount) -> Kind) -> Self {
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
    fn take(&mut self, mounts: &[Mount]) -> bool {
        let tree = MountTree::new(mounts, |mount| {
            (self.kind_of)(mount).may_block(&mount.fstype)
        });
        let mut gained = false;
        for (index, mount) in mounts.iter().enumerate() {
            gained |= self.seen.insert(mount.dev);
            if tree.is_open(index) || !(self.kind_of)(mount).has_blocks() {
                gained |= self.settled.insert(mount.dev);
            }
        }
        gained
    }
}

/// Mount points with the superblocks mounted there, apart from those of our own table. Points are as mountinfo escapes them.
struct Places<'a> {
    own: HashMap<&'a [u8], HashSet<DeviceNumber>>,
    others: HashMap<Vec<u8>, HashSet<DeviceNumber>>,
}

impl<'a> Places<'a> {
    fn new(own: &'a [u8]) -> Self {
        let mut places: HashMap<&[u8], HashSet<DeviceNumber>> = HashMap::new();
        for (dev, point) in skim(own).flatten() {
            places.entry(point).or_default().insert(dev);
        }
        Self {
            own: places,
            others: HashMap::new(),
        }
    }

    fn add(&mut self, table: &[u8]) {
        for (dev, point) in skim(table).flatten() {
            let is_ours = self.own.get(point).is_some_and(|devs| devs.contains(&dev));
            match self.others.get_mut(point) {
                _ if is_ours => {}
                Some(devs) => drop(devs.insert(dev)),
                None => drop(self.others.insert(point.to_owned(), HashSet::from([dev]))),
            }
        }
    }

    fn elsewhere(self) -> BTreeMap<PathBuf, BTreeSet<DeviceNumber>> {
        self.others
            .into_iter()
            .map(|(point, devs)| (unescape(&point).into(), devs.into_iter().collect()))
            .collect()
    }
}

#[cfg(test)]
#[path = "namespaces_tests.rs"]
mod tests;
