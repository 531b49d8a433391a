//! Handles: how a file system is held open from before the first freeze to after the last thaw.
//!
//! A handle is verified to lie on the superblock of the plan, and where the kernel can (5.2), it is a descriptor into
//! a detached copy of the mount: `umount` works meanwhile, and the thaw still reaches the file system.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hvutil_sys::{freeze, mount};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::live::is_live;
use super::target::Target;
use crate::filesystems::text::printable;
use crate::filesystems::{DeviceNodes, DeviceNumber};

/// An open descriptor on a file system, fit for `FIFREEZE`.
#[derive(Debug)]
pub struct Handle {
    fd: OwnedFd,
    /// The detached mount: closing it waits for a grace period, which is better done after the thaw.
    _tree: Option<OwnedFd>,
    dev: DeviceNumber,
    mount_id: Option<u64>,
    /// The device of an ext4.
    metadata: Option<PathBuf>,
    /// Whether its device-mapper device is suspended, as sysfs tells; open from the start.
    suspended: Option<File>,
}

/// No way leads to a file system.
#[derive(Debug, thiserror::Error)]
#[error("{target} cannot be opened{}", .by_mount.as_ref().map_or_else(String::new, |error| format!(" by its mount point ({error})")))]
pub struct HandleError {
    target: String,
    by_mount: Option<io::Error>,
    /// Why its device does not lead there either.
    #[source]
    by_device: io::Error,
}

impl Handle {
    /// Opens the file system through the first of its mounts that still is what the table said, or, when all of them
    /// are out of reach, through a new detached mount of its device.
    ///
    /// # Errors
    /// [`HandleError`] when no way leads there.
    pub fn open(target: &Target) -> Result<Self, HandleError> {
        let mut by_mount = None;
        for (id, path) in &target.mounts {
            match open_mount(*id, path, target) {
                Ok((fd, tree)) => {
                    return Ok(Self {
                        fd,
                        _tree: tree,
                        dev: target.dev,
                        mount_id: Some(*id),
                        metadata: metadata(target),
                        suspended: suspended(target),
                    });
                }
                Err(error) => by_mount = Some(error),
            }
        }
        match open_device(target) {
            Ok((fd, tree)) => Ok(Self {
                fd,
                _tree: Some(tree),
                dev: target.dev,
                mount_id: None,
                metadata: metadata(target),
                suspended: suspended(target),
            }),
            Err(by_device) => Err(HandleError {
                target: target.to_string(),
                by_mount,
                by_device,
            }),
        }
    }

    /// Writes an ext4's metadata and commits it, while nothing else is on its way to the disk. Writers wait for a commit
    /// and for a buffer that is being written, in the queue behind all data that went before. Elsewhere it does nothing:
    /// xfs and btrfs commit every 30 s, and copy what they write.
    pub fn commit_ahead(&self) {
        let Some(device) = &self.metadata else {
            return;
        };
        // Most of it is written before writers must wait. The device is not held open: whoever unmounts it during the
        // hold may want to remove it, too.
        let written = File::open(device).and_then(freeze::write_metadata);
        // Where it does not work, write-back is what it is without.
        if written.is_ok() {
            let _ = freeze::checkpoint(&self.fd);
        }
    }

    /// Whether the device mapper has its device suspended now.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        let mut state = [0];
        let file = self.suspended.as_ref();
        file.is_some_and(|file| matches!(file.read_at(&mut state, 0), Ok(1)) && state == *b"1")
    }

    /// The superblock it was opened for.
    #[must_use]
    pub fn dev(&self) -> DeviceNumber {
        self.dev
    }

    /// The mount it was opened through, if it was one.
    #[must_use]
    pub fn mount_id(&self) -> Option<u64> {
        self.mount_id
    }
}

/// Where a device-mapper device tells whether it is suspended (Documentation/ABI/testing/sysfs-block-dm).
fn suspended(target: &Target) -> Option<File> {
    let dev = if target.dev.is_anonymous() {
        // A btrfs has a number of its own, and one of its devices for a source.
        DeviceNodes::System.resolve(&target.source)?
    } else {
        target.dev
    };
    File::open(format!("/sys/dev/block/{dev}/dm/suspended")).ok()
}

/// The device whose page cache holds an ext4's metadata.
fn metadata(target: &Target) -> Option<PathBuf> {
    let leads_there = |path: &PathBuf| DeviceNodes::System.resolve(path) == Some(target.dev);
    if !matches!(target.fstype.as_str(), "ext4" | "ext3" | "ext2") {
        return None;
    }
    // A system that was booted without an initramfs has /dev/root as its source, which does not exist.
    Some(target.source.clone())
        .filter(leads_there)
        .or_else(|| node(target.dev).filter(leads_there))
}

/// The kernel's own name for a device below `/dev` (`DEVNAME` in its `uevent`, Documentation/ABI/testing/sysfs-uevent).
fn node(dev: DeviceNumber) -> Option<PathBuf> {
    let uevent = std::fs::read_to_string(format!("/sys/dev/block/{dev}/uevent")).ok()?;
    let mut lines = uevent.lines();
    let name = lines.find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_mount(id: u64, path: &Path, target: &Target) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    // O_PATH opens nothing yet: no device, no automount, no file-system code.
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let place = open(path, flags, Mode::empty())?;
    let found = mount::mount_id(&place)?;
    if found != id {
        return Err(io::Error::other(format!(
            "{} is no longer that mount, or is hidden under another (mount {found} where {id} was expected)",
            printable(path)
        )));
    }
    // The kernel gives the id of a mount that has gone to the next one made. Only a btrfs subvolume has a device
    // number that is not its superblock's.
    verify(&place, target)?;
    let kind = SFlag::from_bits_truncate(fstat(&place)?.st_mode) & SFlag::S_IFMT;
    match kind {
        SFlag::S_IFDIR => match mount::clone_mount(&place) {
            Ok(tree) => Ok((mount::open_root(&tree)?, Some(tree))),
            // Before 5.2, or a mount that may not be copied: a plain descriptor freezes as well, but keeps it busy.
            Err(_) => Ok((mount::open_root(&place)?, None)),
        },
        SFlag::S_IFREG => Ok((reopen_file(&place)?, None)),
        _ => Err(io::Error::other(format!(
            "{} is neither a directory nor a file",
            printable(path)
        ))),
    }
}

fn verify(fd: impl AsFd, target: &Target) -> io::Result<()> {
    let (major, minor) = mount::device_number(fd)?;
    if target.dev.is_anonymous() || DeviceNumber::new(major, minor) == target.dev {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "another file system, {major}:{minor}, is there now"
    )))
}

/// Opens what an `O_PATH` descriptor names, without a second look-up of its path.
fn reopen_file(place: &OwnedFd) -> io::Result<OwnedFd> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    Ok(open(&path, flags, Mode::empty())?)
}

/// A second mount of a superblock that is mounted where no path leads. What is not mounted at all stays so: mounting
/// it would replay its journal.
fn open_device(target: &Target) -> io::Result<(OwnedFd, OwnedFd)> {
    let source = printable(&target.source);
    if !target.source.starts_with("/dev") {
        return Err(io::Error::other(format!(
            "{source} is no device to be mounted a second time"
        )));
    }
    if !is_live(target)? {
        return Err(io::Error::other(format!("{source} is not mounted")));
    }
    let tree = mount::mount_device(&target.fstype, &target.source).map_err(|error| match error
        .raw_os_error()
    {
        // Linux 6.1 refuses a second mount of a frozen superblock.
        Some(libc::EBUSY) => {
            io::Error::other(format!("{source} is busy: someone else may have frozen it"))
        }
        _ => error,
    })?;
    let root = mount::open_root(&tree)?;
    verify(&root, target)?;
    Ok((root, tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_name_of_a_device_leads_to_it() {
        assert_eq!(node(DeviceNumber::new(4095, 1)), None);
        let entries = std::fs::read_dir("/sys/dev/block").into_iter().flatten();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let dev: DeviceNumber = name.to_str().unwrap().parse().unwrap();
            let node = node(dev).unwrap();
            // A container may have no nodes.
            if let Some(found) = DeviceNodes::System.resolve(&node) {
                assert_eq!(found, dev, "{node:?}");
            }
        }
    }
}
