//! On which superblock a descriptor of another process lies: by the mount id that `/proc/PID/fdinfo` has and a mount table. Neither waits for a file system.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use hvutil_sys::mount;

use crate::filesystems::text::excerpt;
use crate::filesystems::{DeviceNumber, Identities, Kind, MountTable, MountTree, mountinfo};

/// A table of another mount namespace is as long as its owner likes: more than this of it is not read …
const MAX_TABLE: u64 = 4 << 20;

/// … nor more of all tables together …
const MAX_ALL: u64 = 32 << 20;

/// … nor more tables than this.
const MAX_TABLES: usize = 64;

/// How much of a file's path is shown, in characters.
const MAX_PATH: usize = 200;

/// Where a descriptor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On this superblock.
    On(DeviceNumber),
    /// On a mount that no table has: a pipe or a socket, a detached mount, one that was unmounted lazily; or on a layered file system of which nobody tells what is beneath.
    Unlisted,
    /// There is no such descriptor any more.
    Gone,
}

/// The mounts of all namespaces that were needed so far: a mount's id is unique among them (`mnt_alloc_id` in fs/namespace.c).
pub(super) struct Places<'a> {
    proc: &'a Path,
    mounts: HashMap<u64, DeviceNumber>,
    /// Ours first.
    tables: Vec<MountTable>,
    /// Mount namespaces, with the root directory that a table was seen from.
    read: HashSet<(PathBuf, PathBuf)>,
    /// How much of [`MAX_ALL`] is left.
    left: u64,
    identities: Identities,
}

impl<'a> Places<'a> {
    pub(super) fn new(proc: &'a Path) -> Self {
        Self {
            proc,
            mounts: HashMap::new(),
            tables: Vec::new(),
            read: HashSet::new(),
            left: MAX_ALL,
            identities: Identities::default(),
        }
    }

    pub(super) fn of(&mut self, pid: u32, tid: u32, fd: i32) -> Place {
        let task = self.task(pid, tid);
        let path = task.join("fdinfo").join(fd.to_string());
        let Some(id) = mount_id(&path) else {
            return Place::Gone;
        };
        if self.read.is_empty() {
            // Not before somebody is found: it may be long.
            self.take(&self.proc.join("self"));
        }
        if !self.mounts.contains_key(&id) {
            self.take(&task);
        }
        let Some(dev) = self.mounts.get(&id).copied() else {
            return Place::Unlisted;
        };
        match self.directory_beneath(dev) {
            None => Place::On(dev),
            Some(directory) => self
                .superblock_of(dev, &directory)
                .map_or(Place::Unlisted, Place::On),
        }
    }

    /// The directory that a layered file system, such as a container's overlay, writes to: whoever writes to the one writes to the other as well
    /// (`ovl_splice_write` in fs/overlayfs/file.c).
    fn directory_beneath(&self, dev: DeviceNumber) -> Option<PathBuf> {
        let mut mounts = self.tables.iter().flat_map(MountTable::iter);
        let mount = mounts.find(|mount| mount.dev == dev)?;
        match Kind::of(mount.fstype, |_| false) {
            Kind::Layered(Some(option)) => {
                Some(mount.super_option(option).unwrap_or_default().into())
            }
            Kind::Layered(None) => Some(mount.source.into()),
            _ => None,
        }
    }

    /// The superblock with this directory of the layered file system `above`; our own table knows it as whoever mounted it does.
    fn superblock_of(&self, above: DeviceNumber, directory: &Path) -> Option<DeviceNumber> {
        self.tables.iter().find_map(|table| {
            let tree = MountTree::new(table, |_| false);
            let mount = table.get(*tree.holders(directory).first()?)?;
            let is_layered = matches!(Kind::of(mount.fstype, |_| false), Kind::Layered(_));
            (mount.dev != above && !is_layered).then_some(mount.dev)
        })
    }

    /// Reads the table of a task, unless that of its namespace has been.
    fn take(&mut self, task: &Path) {
        let link = |name| fs::read_link(task.join(name)).unwrap_or_default();
        if self.read.len() >= MAX_TABLES || !self.read.insert((link("ns/mnt"), link("root"))) {
            return;
        }
        let mut text = Vec::new();
        // What cannot be read is as good as empty.
        let _ = File::open(task.join("mountinfo"))
            .and_then(|file| file.take(MAX_TABLE.min(self.left)).read_to_end(&mut text));
        self.left = self.left.saturating_sub(text.len() as u64);
        // The bound may have cut a line.
        let end = text.iter().rposition(|byte| *byte == b'\n');
        text.truncate(end.map_or(0, |end| end + 1));
        if let Ok(mut table) = mountinfo::parse_owned(text) {
            self.identities.note(&table);
            self.identities.apply(&mut table);
            let ids = table.iter().map(|mount| (mount.id, mount.dev));
            self.mounts.extend(ids);
            self.tables.push(table);
        }
    }

    /// Whether the descriptor is of a regular file. To be asked of one that lies on a local file system alone.
    pub(super) fn is_regular(&self, pid: u32, tid: u32, fd: i32) -> bool {
        let kind = mount::kind_and_device(&self.link(pid, tid, fd));
        kind.is_ok_and(|(kind, _)| kind == libc::S_IFREG)
    }

    /// The device number that `stat` has for the descriptor's file system, if that is a block device's. As [`Places::is_regular`].
    pub(super) fn block_device(&self, pid: u32, tid: u32, fd: i32) -> Option<DeviceNumber> {
        let (_, (major, minor)) = mount::kind_and_device(&self.link(pid, tid, fd)).ok()?;
        Some(DeviceNumber::new(major, minor)).filter(|dev| !dev.is_anonymous())
    }

    /// The path of the descriptor's file as the kernel tells it, safe to print.
    pub(super) fn path(&self, pid: u32, tid: u32, fd: i32) -> String {
        let path = fs::read_link(self.link(pid, tid, fd)).unwrap_or_default();
        excerpt(path.as_os_str().as_encoded_bytes(), MAX_PATH)
    }

    fn link(&self, pid: u32, tid: u32, fd: i32) -> PathBuf {
        self.task(pid, tid).join("fd").join(fd.to_string())
    }

    fn task(&self, pid: u32, tid: u32) -> PathBuf {
        let task = self.proc.join(pid.to_string()).join("task");
        task.join(tid.to_string())
    }
}

/// As `man 5 proc` has it. The file may be long: that of an epoll instance lists all it waits for, but the id comes first.
fn mount_id(fdinfo: &Path) -> Option<u64> {
    let mut text = [0; 256];
    let length = File::open(fdinfo).ok()?.read(&mut text).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    id.trim().parse().ok()
}
