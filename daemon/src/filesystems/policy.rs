//! What an administrator wants frozen, and what left out.

use std::path::PathBuf;

use serde::Deserialize;

use super::blockdev::BlockDevice;
use super::device::DeviceNumber;
use super::mountinfo::Mount;

/// Which file systems a freeze is about; all by default. Naming one that does not exist is no error: the same configuration serves many guests.
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
    /// Where this or one of the next two names anything, all others are left out, too. Named as in [`Policy::exclude_mount_points`], which wins.
    pub include_mount_points: Vec<PathBuf>,
    /// As [`Policy::exclude_types`].
    pub include_types: Vec<String>,
    /// As [`Policy::exclude_devices`].
    pub include_devices: Vec<String>,
    /// Nothing is frozen: what would be is flushed.
    pub flush_only: bool,
}

impl Policy {
    /// Whether this mount of a superblock is named; `here` for a mount of our own namespace.
    pub(crate) fn excludes(&self, mount: &Mount<'_>, here: bool) -> bool {
        here && is_place(&self.exclude_mount_points, mount)
            || is_type(&self.exclude_types, mount)
            || is_source(&self.exclude_devices, mount)
            || self.excludes_device(mount.dev, None)
    }

    /// Whether a device beneath a superblock, one of its members, is named.
    pub(crate) fn excludes_device(&self, dev: DeviceNumber, device: Option<&BlockDevice>) -> bool {
        is_device(&self.exclude_devices, dev, device)
    }

    /// Whether there is nothing in the lists of what to include.
    pub(crate) fn includes_all(&self) -> bool {
        self.include_mount_points.is_empty()
            && self.include_types.is_empty()
            && self.include_devices.is_empty()
    }

    /// As [`Policy::excludes`], for what to include.
    pub(crate) fn includes(&self, mount: &Mount<'_>, here: bool) -> bool {
        here && is_place(&self.include_mount_points, mount)
            || is_type(&self.include_types, mount)
            || is_source(&self.include_devices, mount)
            || self.includes_device(mount.dev, None)
    }

    /// As [`Policy::excludes_device`], for what to include.
    pub(crate) fn includes_device(&self, dev: DeviceNumber, device: Option<&BlockDevice>) -> bool {
        is_device(&self.include_devices, dev, device)
    }

    /// Whether a mount alone may be of a superblock to freeze: without a look at the devices beneath it, which the lists may name.
    pub(crate) fn may_include(&self, mount: &Mount<'_>) -> bool {
        self.includes_all() || !self.include_devices.is_empty() || self.includes(mount, true)
    }
}

impl Policy {
    /// Whether a superblock known by its driver and by the kernel's name of its device alone may be one to freeze.
    pub(crate) fn may_include_live(&self, driver: &str, name: &str) -> bool {
        let names = |list: &[String]| {
            let mut list = list.iter();
            list.any(|wanted| wanted.strip_prefix("/dev/").unwrap_or(wanted) == name)
        };
        let is_type = |list: &[String]| list.iter().any(|fstype| fstype == driver);
        !self.flush_only
            && !is_type(&self.exclude_types)
            && !names(&self.exclude_devices)
            && (self.includes_all()
                || !self.include_devices.is_empty()
                || is_type(&self.include_types))
    }
}

fn is_place(points: &[PathBuf], mount: &Mount<'_>) -> bool {
    points.iter().any(|point| point == mount.mount_point)
}

fn is_type(types: &[String], mount: &Mount<'_>) -> bool {
    types.iter().any(|fstype| fstype == mount.fstype)
}

fn is_source(names: &[String], mount: &Mount<'_>) -> bool {
    names.iter().any(|device| mount.source == device.as_str())
}

fn is_device(names: &[String], dev: DeviceNumber, device: Option<&BlockDevice>) -> bool {
    names.iter().any(|wanted| {
        let name = wanted.strip_prefix("/dev/").unwrap_or(wanted);
        wanted.parse() == Ok(dev) || device.is_some_and(|device| device.name == name)
    })
}
