//! The superblocks that are live, as their drivers show them in sysfs: also those that no mount table shows.
//!
//! A superblock lives as long as anything uses it: a mount that was taken away lazily, a detached one that a descriptor holds, a layer of an overlay, a
//! mount namespace that cannot be looked into. ext4, xfs, btrfs and f2fs have a directory below `/sys/fs` for each of theirs, whoever uses it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::device::DeviceNumber;
use super::policy::Policy;

/// A driver with a directory for each of its superblocks.
struct Driver {
    /// Its own directory below `/sys/fs`.
    name: &'static str,
    /// The types it serves.
    types: &'static [&'static str],
    /// Entries of its directory that are no superblocks.
    others: &'static [&'static str],
}

/// `ext4_register_sysfs` in fs/ext4/sysfs.c, `xfs_mount_sysfs_init` in fs/xfs/xfs_sysfs.c, `btrfs_sysfs_add_fsid` in fs/btrfs/sysfs.c and
/// `f2fs_register_sysfs` in fs/f2fs/sysfs.c.
const DRIVERS: [Driver; 4] = [
    Driver {
        name: "ext4",
        types: &["ext4", "ext3", "ext2"],
        others: &["features"],
    },
    Driver {
        name: "xfs",
        types: &["xfs"],
        others: &["stats", "debug"],
    },
    Driver {
        name: "btrfs",
        types: &["btrfs"],
        others: &["features", "debug"],
    },
    Driver {
        name: "f2fs",
        types: &["f2fs"],
        others: &["features", "tuning", "feature_list"],
    },
];

const BTRFS: &str = "btrfs";

/// A live superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSuperblock {
    /// Its driver: the type, but that ext4 serves ext2 and ext3, too.
    pub driver: &'static str,
    /// Its entry: the kernel's name of its device (a slash is an exclamation mark), or a btrfs pool's id.
    pub name: OsString,
    /// The inode of its entry; one that is mounted anew gets another.
    pub entry: u64,
    /// Its devices: several for a btrfs, none if they have gone.
    pub devices: Vec<DeviceNumber>,
    /// The kernel's own path of the first of them.
    pub source: OsString,
}

impl LiveSuperblock {
    /// What it is known by where no mount table gives it a number: the number of its first device.
    #[must_use]
    pub fn dev(&self) -> Option<DeviceNumber> {
        self.devices.first().copied()
    }

    /// The types that it may be mounted as.
    #[must_use]
    pub fn types(&self) -> &'static [&'static str] {
        types_of(self.driver)
    }
}

/// The types that the driver of this type serves; none if its superblocks are not in sysfs.
#[must_use]
pub fn types_of(fstype: &str) -> &'static [&'static str] {
    driver_of(fstype).map_or(&[], |driver| driver.types)
}

fn driver_of(fstype: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.types.contains(&fstype))
}

/// All that are live, in a stable order. A driver that is not there has none.
#[must_use]
pub fn all(sys: &Path) -> Vec<LiveSuperblock> {
    DRIVERS
        .iter()
        .flat_map(|driver| of_driver(sys, driver))
        .collect()
}

/// The one of this type on this device, if it is live.
///
/// # Errors
/// `Unsupported` for a type whose superblocks are not in sysfs.
pub fn find(sys: &Path, fstype: &str, dev: DeviceNumber) -> io::Result<Option<LiveSuperblock>> {
    let driver = driver_of(fstype).ok_or(io::ErrorKind::Unsupported)?;
    let mut all = of_driver(sys, driver).into_iter();
    Ok(all.find(|live| live.devices.contains(&dev)))
}

fn of_driver(sys: &Path, driver: &'static Driver) -> Vec<LiveSuperblock> {
    let place = sys.join("fs").join(driver.name);
    let entries = fs::read_dir(&place).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries
        .map(|entry| entry.file_name())
        .filter(|name| is_superblock(driver, name))
        .collect();
    names.sort_unstable();
    let live = |name: OsString| {
        let entry = fs::metadata(place.join(&name)).ok()?.ino();
        let (devices, first) = if driver.name == BTRFS {
            pool(&place.join(&name).join("devices"))
        } else {
            let dev = number(&sys.join("class/block").join(&name));
            (dev.into_iter().collect(), name.clone())
        };
        Some(LiveSuperblock {
            driver: driver.name,
            source: path_below_dev(&first),
            name,
            entry,
            devices,
        })
    };
    names.into_iter().filter_map(live).collect()
}

fn is_superblock(driver: &Driver, name: &OsStr) -> bool {
    !driver.others.iter().any(|other| name == *other)
}

/// The devices of a btrfs, and the name of the first.
fn pool(devices: &Path) -> (Vec<DeviceNumber>, OsString) {
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    let mut members: Vec<(DeviceNumber, OsString)> = entries
        .filter_map(|entry| Some((number(&entry.path())?, entry.file_name())))
        .collect();
    members.sort_unstable();
    let first = members.first().map(|(_, name)| name.clone());
    let numbers = members.into_iter().map(|(number, _)| number).collect();
    (numbers, first.unwrap_or_default())
}

fn number(device: &Path) -> Option<DeviceNumber> {
    let text = fs::read_to_string(device.join("dev")).ok()?;
    text.trim().parse().ok()
}

/// `cciss!c0d0` is `/dev/cciss/c0d0`.
fn path_below_dev(name: &OsStr) -> OsString {
    let name = name.as_bytes().iter();
    let name = name.map(|byte| if *byte == b'!' { b'/' } else { *byte });
    let path: Vec<u8> = b"/dev/".iter().copied().chain(name).collect();
    OsStr::from_bytes(&path).to_owned()
}

/// The drivers' directories, held open, and what was in them: what is added is told without a look-up of any path.
#[derive(Debug)]
pub struct LiveWatch {
    /// `/sys/fs` for a driver that is loaded later, then those of the drivers that are there.
    directories: Mutex<Vec<(Option<&'static str>, Dir)>>,
    seen: BTreeSet<Entry>,
}

/// The driver, none for its own directory; its name and its inode.
type Entry = (Option<&'static str>, OsString, u64);

impl LiveWatch {
    /// Opens them. Do so before the look at what is live, so that no change falls between the two.
    ///
    /// # Errors
    /// When one of them cannot be read. A system without sysfs shows nothing.
    pub fn open() -> io::Result<Self> {
        let root = PathBuf::from("/sys/fs");
        let mut directories = Vec::new();
        let drivers = DRIVERS.iter().map(|driver| Some(driver.name));
        for driver in std::iter::once(None).chain(drivers) {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            match Dir::open(&root.join(driver.unwrap_or_default()), flags, Mode::empty()) {
                Ok(directory) => directories.push((driver, directory)),
                Err(nix::Error::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut watch = Self {
            directories: Mutex::new(directories),
            seen: BTreeSet::new(),
        };
        watch.seen = watch.now()?;
        Ok(watch)
    }

    /// Whether what is live is exactly what it was. Opens nothing.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.now().is_ok_and(|now| now == self.seen)
    }

    /// Whether a superblock has been added that this policy does not leave out by its type or device. Opens nothing; what cannot be read counts as such.
    ///
    /// Another mount point that the policy leaves out is not known here: a new plan tells.
    #[must_use]
    pub fn has_more(&self, policy: &Policy) -> bool {
        let Ok(now) = self.now() else {
            return true;
        };
        now.difference(&self.seen).any(|(driver, name, _)| {
            let name = name.to_string_lossy().replace('!', "/");
            driver.is_none_or(|driver| policy.may_include_live(driver, &name))
        })
    }

    fn now(&self) -> io::Result<BTreeSet<Entry>> {
        let mut directories = self
            .directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeSet::new();
        for (driver, directory) in directories.iter_mut() {
            let of = |driver: &str| DRIVERS.iter().find(|known| known.name == driver);
            // From the beginning each time: the end of the iteration rewinds.
            for entry in directory.iter() {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                let counts = match driver.and_then(of) {
                    None => DRIVERS.iter().any(|driver| name == driver.name),
                    Some(driver) => name != "." && name != ".." && is_superblock(driver, name),
                };
                if counts {
                    found.insert((*driver, name.to_owned(), entry.ino()));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
