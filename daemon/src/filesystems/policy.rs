//! What an administrator wants left out.

use std::path::PathBuf;

use serde::Deserialize;

use super::blockdev::BlockDevice;
use super::device::DeviceNumber;
use super::mountinfo::Mount;

/// File systems to leave out of a freeze; nothing by default. Naming one that does not exist is no error: the same configuration serves many guests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Leaves out the file systems mounted exactly here, with all their other mounts. What is mounted at such a path only in another mount namespace, a
    /// container's, is not meant; name its type or its device.
    pub exclude_mount_points: Vec<PathBuf>,
    /// Leaves out types, as mountinfo names them: `xfs`.
    pub exclude_types: Vec<String>,
    /// Leaves out the file systems on these devices: the source as mountinfo names it (`/dev/mapper/vg-scratch`), the kernel's name (`sdb1`, `/dev/sdb1`),
    /// or the number (`8:17`). A disk does not stand for its partitions.
    pub exclude_devices: Vec<String>,
}

impl Policy {
    /// Whether this mount of a superblock is named; `here` for a mount of our own namespace.
    pub(crate) fn excludes(&self, mount: &Mount<'_>, here: bool) -> bool {
        here && self
            .exclude_mount_points
            .iter()
            .any(|point| point == mount.mount_point)
            || self
                .exclude_types
                .iter()
                .any(|fstype| fstype == mount.fstype)
            || self
                .exclude_devices
                .iter()
                .any(|device| mount.source == device.as_str())
            || self.names(mount.dev, None)
    }

    /// Whether a device beneath a superblock, one of its members, is named.
    pub(crate) fn names(&self, dev: DeviceNumber, device: Option<&BlockDevice>) -> bool {
        self.exclude_devices.iter().any(|wanted| {
            let name = wanted.strip_prefix("/dev/").unwrap_or(wanted);
            wanted.parse() == Ok(dev) || device.is_some_and(|device| device.name == name)
        })
    }
}
