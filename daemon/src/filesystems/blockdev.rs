//! What a block device stands on, read from sysfs: partitions, device mapper, md, loop files, members of btrfs (`Documentation/ABI/*/sysfs-block`).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::device::DeviceNumber;
use super::nodes::Behind;
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
    /// The file system of that file, as `stat` numbers it, where the kernel tells: the path may mean another file by now, or here.
    pub backing_on: Option<DeviceNumber>,
    /// The process or network its blocks come from; `None` for a local device.
    pub served: Option<ServedBy>,
    /// What is beneath could not be found out in full: a loop device that does not tell its file, a volume of ZFS, whose pool may be of files.
    pub incomplete: bool,
}

/// All devices of the btrfs that has `dev` as one of them; `None` if there is no such btrfs.
pub(crate) fn btrfs_members(dev: DeviceNumber) -> Option<Vec<DeviceNumber>> {
    Sysfs::new(Path::new("/sys"), &|_, _, _| Behind::Unknown).btrfs_members(dev)
}

/// Reads block devices below a sysfs, each file at most once. What is missing there is no error: the device is then unknown to [`Sysfs::into_devices`].
pub(crate) struct Sysfs<'a> {
    root: &'a Path,
    behind_loop: BehindLoop<'a>,
    devices: BTreeMap<DeviceNumber, BlockDevice>,
    files: HashMap<PathBuf, Option<Vec<u8>>>,
    pools: HashMap<&'static str, Vec<Vec<DeviceNumber>>>,
}

/// Tells what is behind the loop device of this name and number, its file being known by this path.
pub(crate) type BehindLoop<'a> = &'a dyn Fn(&str, DeviceNumber, &Path) -> Behind;

impl<'a> Sysfs<'a> {
    pub(crate) fn new(root: &'a Path, behind_loop: BehindLoop<'a>) -> Self {
        Self {
            root,
            behind_loop,
            devices: BTreeMap::new(),
            files: HashMap::new(),
            pools: HashMap::new(),
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
        self.members_of("btrfs", dev)
    }

    /// As [`Sysfs::btrfs_members`].
    pub(crate) fn bcachefs_members(&mut self, dev: DeviceNumber) -> Option<Vec<DeviceNumber>> {
        self.members_of("bcachefs", dev)
    }

    fn members_of(&mut self, fstype: &'static str, dev: DeviceNumber) -> Option<Vec<DeviceNumber>> {
        if !self.pools.contains_key(fstype) {
            let pools = self.read_pools(fstype);
            self.pools.insert(fstype, pools);
        }
        let pools = self.pools.get(fstype)?;
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
        self.read_loop(&dir, dev, &mut device);
        device.incomplete |= OPAQUE
            .iter()
            .any(|driver| is_numbered(&device.name, driver));
        device.served = self.served(&disk);
        Some(device)
    }

    /// A loop device has a file, or a block device, behind it (drivers/block/loop.c).
    fn read_loop(&mut self, dir: &Path, dev: DeviceNumber, device: &mut BlockDevice) {
        if !is_numbered(&device.name, "loop") {
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
        match (self.behind_loop)(&device.name, dev, &path) {
            Behind::Device(number) => device.below.push(number),
            behind => {
                match behind {
                    Behind::File(on) => device.backing_on = on,
                    _ => device.incomplete = true,
                }
                device.incomplete |= !path.is_absolute();
                // For all that is known it is a file of this path.
                device.backing_file = Some(path).filter(|path| path.is_absolute());
            }
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

    /// Each btrfs has links to its members in `devices` (fs/btrfs/sysfs.c), each bcachefs has a link `block` in `dev-N` (fs/bcachefs/super.c).
    fn read_pools(&mut self, fstype: &str) -> Vec<Vec<DeviceNumber>> {
        let mut pools = Vec::new();
        for pool in entries(&self.root.join("fs").join(fstype)) {
            let links = match fstype {
                "bcachefs" => entries(&pool)
                    .into_iter()
                    .map(|member| member.join("block"))
                    .collect(),
                _ => entries(&pool.join("devices")),
            };
            let members: Vec<_> = links
                .into_iter()
                .filter_map(|link| {
                    let place = link.parent()?.to_owned();
                    let dir = fs::read_link(&link).map_or(link, |to| place.join(to));
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

/// Drivers whose devices lie on what sysfs does not tell: volumes of ZFS, whose pool may be of files, and zoned loop devices (drivers/block/zloop.c).
const OPAQUE: [&str; 2] = ["zd", "zloop"];

/// Whether it is the name of a driver and a number.
pub(super) fn is_numbered(name: &str, driver: &str) -> bool {
    name.strip_prefix(driver)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
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
