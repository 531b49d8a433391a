//! What a block device stands on, read from sysfs: partitions, device mapper, md, loop files, members of btrfs (`Documentation/ABI/*/sysfs-block`).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::device::DeviceNumber;
use super::served::ServedBy;

/// What d_path() in fs/d_path.c appends to the path of a removed file.
const DELETED: &[u8] = b" (deleted)";

/// A block device and what is directly beneath it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockDevice {
    /// The kernel's name, such as `sda1`, `dm-0`, `loop3`.
    pub name: String,
    /// Devices directly beneath: the disk of a partition, the slaves of device mapper, md or bcache, the device behind a loop.
    pub below: Vec<DeviceNumber>,
    /// The file behind a loop device, without ` (deleted)`; as seen from the mount namespace in which it was set up.
    pub backing_file: Option<PathBuf>,
    /// The process or network its blocks come from; `None` for a local device.
    pub served: Option<ServedBy>,
    /// What is beneath could not be read in full: a loop device that does not tell its file.
    pub incomplete: bool,
}

/// All devices of the btrfs that has `dev` as one of them; `None` if there is no such btrfs.
pub(crate) fn btrfs_members(dev: DeviceNumber) -> Option<Vec<DeviceNumber>> {
    Sysfs::new(Path::new("/sys"), &|_| None).btrfs_members(dev)
}

/// Reads block devices below a sysfs, each file at most once. What is missing there is no error: the device is then unknown to [`Sysfs::into_devices`].
pub(crate) struct Sysfs<'a> {
    root: &'a Path,
    /// Turns a path below `/dev` into the device it names.
    resolve: &'a dyn Fn(&Path) -> Option<DeviceNumber>,
    devices: BTreeMap<DeviceNumber, BlockDevice>,
    files: HashMap<PathBuf, Option<Vec<u8>>>,
    btrfs: Option<Vec<Vec<DeviceNumber>>>,
}

impl<'a> Sysfs<'a> {
    pub(crate) fn new(root: &'a Path, resolve: &'a dyn Fn(&Path) -> Option<DeviceNumber>) -> Self {
        Self {
            root,
            resolve,
            devices: BTreeMap::new(),
            files: HashMap::new(),
            btrfs: None,
        }
    }

    /// Reads `dev` and everything beneath it.
    pub(crate) fn load(&mut self, dev: DeviceNumber) {
        let mut todo = vec![dev];
        while let Some(dev) = todo.pop() {
            if self.devices.contains_key(&dev) {
                continue;
            }
            if let Some(device) = self.read_device(dev) {
                todo.extend(&device.below);
                self.devices.insert(dev, device);
            }
        }
    }

    /// All members of the btrfs that has `dev` as one of them; `None` if there is no such btrfs.
    pub(crate) fn btrfs_members(&mut self, dev: DeviceNumber) -> Option<Vec<DeviceNumber>> {
        if self.btrfs.is_none() {
            self.btrfs = Some(self.read_btrfs());
        }
        let pools = self.btrfs.as_ref()?;
        pools.iter().find(|pool| pool.contains(&dev)).cloned()
    }

    pub(crate) fn into_devices(self) -> BTreeMap<DeviceNumber, BlockDevice> {
        self.devices
    }

    fn read_device(&mut self, dev: DeviceNumber) -> Option<BlockDevice> {
        let place = self.root.join("dev/block");
        let dir = normal(&place.join(fs::read_link(place.join(dev.to_string())).ok()?));
        let name = file_name(&dir)?;
        let mut device = BlockDevice {
            name,
            ..BlockDevice::default()
        };
        let is_partition = self.read(&dir.join("partition")).is_some();
        let disk = match dir.parent() {
            Some(disk) if is_partition => {
                device.below.extend(self.device_number(disk));
                disk.to_owned()
            }
            _ => dir.clone(),
        };
        for slave in entries(&dir.join("slaves")) {
            let slave = fs::read_link(&slave)
                .map_or_else(|_| slave.clone(), |to| dir.join("slaves").join(to));
            match self.device_number(&slave) {
                Some(number) => device.below.push(number),
                None => device.incomplete = true,
            }
        }
        device.below.sort_unstable();
        device.below.dedup();
        self.read_loop(&dir, &mut device);
        device.served = self.served(&disk);
        Some(device)
    }

    /// A loop device has a file, or a block device, behind it (drivers/block/loop.c).
    fn read_loop(&mut self, dir: &Path, device: &mut BlockDevice) {
        let is_loop = device
            .name
            .strip_prefix("loop")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
        if !is_loop {
            return;
        }
        let Some(mut path) = self.read(&dir.join("loop/backing_file")) else {
            device.incomplete = true;
            return;
        };
        if path.last() == Some(&b'\n') {
            path.pop();
        }
        if path.ends_with(DELETED) {
            path.truncate(path.len() - DELETED.len());
        }
        let path = PathBuf::from(OsString::from_vec(path));
        match (self.resolve)(&path) {
            Some(number) => device.below.push(number),
            None if path.is_absolute() => device.backing_file = Some(path),
            None => device.incomplete = true,
        }
    }

    fn served(&mut self, disk: &Path) -> Option<ServedBy> {
        let path = disk.strip_prefix(self.root).unwrap_or(disk);
        let served = ServedBy::recognise(&file_name(disk)?, &path.to_string_lossy());
        served.or_else(|| self.served_by_a_path(disk))
    }

    /// A multipath NVMe disk lies below its subsystem, next to links to its controllers: local ones say `pcie` (drivers/nvme/host/multipath.c).
    fn served_by_a_path(&mut self, disk: &Path) -> Option<ServedBy> {
        let subsystem = disk.parent()?;
        if !file_name(subsystem)?.starts_with("nvme-subsys") {
            return None;
        }
        let transports: Vec<_> = entries(subsystem)
            .into_iter()
            .filter_map(|entry| self.read(&entry.join("transport")))
            .collect();
        let local = |transport: &Vec<u8>| matches!(transport.trim_ascii(), b"pcie" | b"apple-nvme");
        (!transports.iter().all(local)).then_some(ServedBy::NvmeFabrics)
    }

    fn read_btrfs(&mut self) -> Vec<Vec<DeviceNumber>> {
        let mut pools = Vec::new();
        for pool in entries(&self.root.join("fs/btrfs")) {
            let devices = pool.join("devices");
            let members: Vec<_> = entries(&devices)
                .into_iter()
                .filter_map(|member| {
                    let dir = fs::read_link(&member).map_or(member, |to| devices.join(to));
                    self.device_number(&dir)
                })
                .collect();
            if !members.is_empty() {
                pools.push(members);
            }
        }
        pools
    }

    fn device_number(&mut self, dir: &Path) -> Option<DeviceNumber> {
        let text = self.read(&dir.join("dev"))?;
        std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
    }

    fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        let path = normal(path);
        if let Some(known) = self.files.get(&path) {
            return known.clone();
        }
        let content = fs::read(&path).ok();
        self.files.insert(path, content.clone());
        content
    }
}

/// The entries of a directory in a stable order; none if it is not there.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort_unstable();
    entries
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// Takes `..` out of a path; right in sysfs, where the directories of devices are no links.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        if part != Component::ParentDir || !out.pop() {
            out.push(part);
        }
    }
    out
}

#[cfg(test)]
#[path = "blockdev_tests.rs"]
mod tests;
