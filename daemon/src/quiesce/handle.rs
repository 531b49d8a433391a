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

use super::target::Target;
use crate::filesystems::text::printable;
use crate::filesystems::{DeviceNodes, DeviceNumber, live};

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
    why: Unreached,
}

/// What an opening that failed tells of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// It is not there any more: a new plan is needed.
    Gone,
    /// It was shut down, and takes no writes.
    ShutDown,
    /// The superblock is read-only.
    ReadOnly,
    /// It is there, and may be written to.
    OutOfReach,
}

impl HandleError {
    /// What it tells of the file system.
    #[must_use]
    pub fn why(&self) -> Unreached {
        self.why
    }
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
                Err(error) if is_shut_down(&error) => return Err(shut_down(target, error)),
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
            Err((why, by_device)) => Err(HandleError {
                target: target.to_string(),
                by_mount,
                by_device,
                why,
            }),
        }
    }

    /// Whether [`Handle::open`] would succeed now. Leaves nothing open, and makes no copy of a mount.
    ///
    /// # Errors
    /// As [`Handle::open`].
    pub fn probe(target: &Target) -> Result<(), HandleError> {
        for (id, path) in &target.mounts {
            match find_mount(*id, path, target) {
                Ok(_) => return Ok(()),
                Err(error) if is_shut_down(&error) => return Err(shut_down(target, error)),
                Err(_) => {}
            }
        }
        Self::open(target).map(|_| ())
    }

    /// Whether its driver says that the file system was shut down. A healthy one commits what has changed of its root directory for the answer.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        // ext4 and f2fs look for a shutdown first (`ext4_sync_file` in fs/ext4/fsync.c); xfs does not even open.
        let error = nix::unistd::fsync(&self.fd).err();
        error.is_some_and(|error| takes_no_writes(error as i32))
    }

    /// Whether nothing can be written to it any more: also for an ext4 whose journal was aborted, which needs no more than one write that failed. Asked only
    /// after a call on it has failed, and while nothing is frozen: a healthy ext4 empties its journal for the answer.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let is_aborted = || {
            let error = freeze::checkpoint(&self.fd).err();
            // One without a journal says ENODEV (`ext4_ioctl_checkpoint` in fs/ext4/ioctl.c).
            error.is_some_and(|error| {
                matches!(
                    error.raw_os_error(),
                    Some(libc::EIO | libc::EROFS | libc::ESHUTDOWN)
                )
            })
        };
        self.is_shut_down() || self.metadata.is_some() && is_aborted()
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
    let place = find_mount(id, path, target)?;
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

/// The mount of the plan, named and not opened yet.
fn find_mount(id: u64, path: &Path, target: &Target) -> io::Result<OwnedFd> {
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
    Ok(place)
}

/// The errors of calls that would write to what was shut down, made read-only by an error, or has lost its device.
pub(super) fn takes_no_writes(errno: i32) -> bool {
    matches!(
        errno,
        libc::EIO | libc::EROFS | libc::ESHUTDOWN | libc::ENXIO | libc::ENODEV
    )
}

/// The root of a mount is in memory: `statx` fails on it, and `open`, when the driver has shut the file system down (`xfs_vn_getattr` in fs/xfs/xfs_iops.c).
fn is_shut_down(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

fn shut_down(target: &Target, error: io::Error) -> HandleError {
    HandleError {
        target: target.to_string(),
        by_mount: None,
        by_device: error,
        why: Unreached::ShutDown,
    }
}

fn verify(fd: impl AsFd, target: &Target) -> io::Result<()> {
    let (major, minor) = mount::device_number(fd)?;
    // A btrfs that no mount table shows has the number of its first device here.
    let has_another = target.dev.is_anonymous() || target.fstype == "btrfs";
    if has_another || DeviceNumber::new(major, minor) == target.dev {
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
fn open_device(target: &Target) -> Result<(OwnedFd, OwnedFd), (Unreached, io::Error)> {
    let source = printable(&target.source);
    let out_of_reach = |error| (Unreached::OutOfReach, error);
    let gone = || {
        let error = io::Error::other(format!("{source} is not mounted"));
        (Unreached::Gone, error)
    };
    if !target.source.starts_with("/dev") {
        return Err(out_of_reach(io::Error::other(format!(
            "{source} is no device to be mounted a second time"
        ))));
    }
    let dev = device(target).map_err(out_of_reach)?;
    let Some(before) = entry(target, dev).map_err(out_of_reach)? else {
        return Err(gone());
    };
    let node = Node::find(target, dev).map_err(out_of_reach)?;
    let (tree, is_read_only) = mount_again(target, &node.path()).map_err(|error| {
        let error = match error.raw_os_error() {
            // Linux 6.1 refuses a second mount of a frozen superblock.
            Some(libc::EBUSY) => {
                io::Error::other(format!("{source} is busy: someone else may have frozen it"))
            }
            _ => error,
        };
        out_of_reach(error)
    })?;
    // Unmounted in between, it was mounted anew, which goes back with the descriptor.
    if !matches!(entry(target, dev), Ok(Some(after)) if after == before) {
        return Err(gone());
    }
    if is_read_only {
        let error = io::Error::other(format!("{source} is read-only"));
        return Err((Unreached::ReadOnly, error));
    }
    let open = || {
        let root = mount::open_root(&tree)?;
        verify(&root, target)?;
        Ok(root)
    };
    match open() {
        Ok(root) => Ok((root, tree)),
        Err(error) if is_shut_down(&error) => Err((Unreached::ShutDown, error)),
        Err(error) => Err(out_of_reach(error)),
    }
}

/// The block device, or one of those, that the superblock is on.
fn device(target: &Target) -> io::Result<DeviceNumber> {
    if !target.dev.is_anonymous() {
        return Ok(target.dev);
    }
    DeviceNodes::System.resolve(&target.source).ok_or_else(|| {
        let source = printable(&target.source);
        io::Error::other(format!(
            "{source} is not, or no longer, a block device in /dev"
        ))
    })
}

/// What tells a live superblock from one that is mounted anew on the same device; `None` if none is live.
fn entry(target: &Target, dev: DeviceNumber) -> io::Result<Option<u64>> {
    match live::find(Path::new("/sys"), &target.fstype, dev) {
        Ok(Some(live)) => Ok(Some(live.entry)),
        Ok(None) => Ok(None),
        // No driver tells of it: the mount table has to.
        Err(_) => Ok(is_mounted(target)?.then_some(0)),
    }
}

fn is_mounted(target: &Target) -> io::Result<bool> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mounts = crate::filesystems::mountinfo::parse(&table).map_err(io::Error::other)?;
    Ok(mounts.iter().any(|mount| mount.dev == target.dev))
}

/// Another mount of the same superblock, and whether it is read-only: the kernel shares a superblock only if that is as asked for.
fn mount_again(target: &Target, source: &Path) -> io::Result<(OwnedFd, bool)> {
    // What no mount table shows may be any of the types that its driver serves.
    let types = match live::types_of(&target.fstype) {
        [] => std::slice::from_ref(&target.fstype)
            .iter()
            .map(String::as_str)
            .collect(),
        all => all.to_vec(),
    };
    let is_busy = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
    let mut last = None;
    for (mount, is_read_only) in [
        (mount::mount_device as fn(&str, &Path) -> _, false),
        (mount::mount_device_read_only, true),
    ] {
        for fstype in &types {
            match mount(fstype, source) {
                Ok(tree) => return Ok((tree, is_read_only)),
                // ext3 may be no name of a driver's here.
                Err(error) if is_busy(&error) || error.raw_os_error() == Some(libc::ENODEV) => {
                    last = last.filter(is_busy).or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// A node of a block device, verified to be its own.
struct Node {
    /// As the kernel is to know it.
    name: PathBuf,
    held: OwnedFd,
    /// A btrfs takes the path that it is mounted by for its device's name, and shows it in the mount table.
    by_name: bool,
}

impl Node {
    /// By the name that the mount table has, or if that has gone (a renamed volume, `/dev/root`, a container's own node) by the kernel's.
    fn find(target: &Target, dev: DeviceNumber) -> io::Result<Self> {
        let by_name = target.fstype == "btrfs";
        let names = std::iter::once(target.source.clone())
            .chain(mapped(dev))
            .chain(node(dev));
        for name in names.filter(|name| name.starts_with("/dev")) {
            if let Some(held) = block_device(&name, dev) {
                return Ok(Self {
                    name,
                    held,
                    by_name,
                });
            }
        }
        // Where /dev is not the kernel's own.
        let own = mount::mount_device("devtmpfs", Path::new("devtmpfs")).ok();
        let held = own.filter(|_| !by_name).and_then(|own| {
            let name = node(dev)?;
            let name = name.strip_prefix("/dev").ok()?;
            let below = PathBuf::from(format!("/proc/self/fd/{}", own.as_raw_fd()));
            block_device(&below.join(name), dev)
        });
        match held {
            Some(held) => Ok(Self {
                name: PathBuf::new(),
                held,
                by_name,
            }),
            None => Err(io::Error::other(format!("device {dev} has no node"))),
        }
    }

    fn path(&self) -> PathBuf {
        match self.by_name {
            true => self.name.clone(),
            false => PathBuf::from(format!("/proc/self/fd/{}", self.held.as_raw_fd())),
        }
    }
}

/// The node of this name, if it is the one of this device; opens no device.
fn block_device(name: &Path, dev: DeviceNumber) -> Option<OwnedFd> {
    // A name that others can write may lead to a server that never answers.
    let is_safe = !name.starts_with("/dev") || DeviceNodes::System.resolve(name) == Some(dev);
    let name = Some(name).filter(|_| is_safe)?;
    let held = open(name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let found = fstat(&held).ok()?;
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    (kind == SFlag::S_IFBLK && DeviceNumber::from_raw(found.st_rdev) == dev).then_some(held)
}

/// The name by which the device mapper knows a device (`dm/name` in Documentation/ABI/testing/sysfs-block-dm).
fn mapped(dev: DeviceNumber) -> Option<PathBuf> {
    let name = std::fs::read_to_string(format!("/sys/dev/block/{dev}/dm/name")).ok()?;
    Some(Path::new("/dev/mapper").join(name.trim_end()))
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
