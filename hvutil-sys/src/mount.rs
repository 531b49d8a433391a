//! The mount API: descriptors that name a superblock without keeping its mount busy (man 2 open_tree, fsopen, statx).
//!
//! libc offers these as bare system calls; each gets one safe function here.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// A detached copy of the mount that `fd` lies on, rooted at `fd` (`OPEN_TREE_CLONE`, Linux 5.2).
///
/// It keeps the superblock alive and reachable, yet the mount it was made from can still be unmounted.
///
/// # Errors
/// `ENOSYS` on older kernels, `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` where the mount may not be copied.
pub fn clone_mount(fd: impl AsFd) -> io::Result<OwnedFd> {
    const AT_EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH as libc::c_uint;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
    // SAFETY: the path is a NUL-terminated constant, the descriptor is borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    owned(result)
}

/// A detached mount of the file system of type `fstype` on block device `source` (`fsopen`, `fsmount`; Linux 5.2).
///
/// When that device is mounted already, this is another mount of the same superblock: the way to one that is
/// mounted only where no path leads.
///
/// # Errors
/// `ENOSYS` on older kernels, `EPERM` without `CAP_SYS_ADMIN`, or why the file system cannot be mounted.
pub fn mount_device(fstype: &str, source: &Path) -> io::Result<OwnedFd> {
    mount_with(fstype, source, None)
}

/// [`mount_device`], read-only: `EBUSY` when the superblock is there and writable.
///
/// # Errors
/// As [`mount_device`].
pub fn mount_device_read_only(fstype: &str, source: &Path) -> io::Result<OwnedFd> {
    mount_with(fstype, source, Some(c"ro"))
}

fn mount_with(fstype: &str, source: &Path, flag: Option<&CStr>) -> io::Result<OwnedFd> {
    let fstype = c_string(OsStr::new(fstype))?;
    let source = c_string(source.as_os_str())?;
    // SAFETY: the type is a NUL-terminated string that lives through the call.
    let context = owned(unsafe {
        libc::syscall(
            libc::SYS_fsopen,
            fstype.as_ptr(),
            libc::c_uint::from(FSOPEN_CLOEXEC),
        )
    })?;
    configure(
        &context,
        FSCONFIG_SET_STRING,
        Some((c"source", Some(&source))),
    )?;
    if let Some(flag) = flag {
        configure(&context, FSCONFIG_SET_FLAG, Some((flag, None)))?;
    }
    configure(&context, FSCONFIG_CMD_CREATE, None)?;
    // SAFETY: integers and a borrowed descriptor only.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            libc::c_uint::from(FSMOUNT_CLOEXEC),
            0 as libc::c_uint,
        )
    })
}

// include/uapi/linux/mount.h
const FSOPEN_CLOEXEC: u8 = 1;
const FSMOUNT_CLOEXEC: u8 = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

fn configure(
    context: &OwnedFd,
    command: libc::c_uint,
    pair: Option<(&CStr, Option<&CString>)>,
) -> io::Result<()> {
    let (key, value) = pair.map_or((std::ptr::null(), std::ptr::null()), |(key, value)| {
        let value = value.map_or(std::ptr::null(), |value| value.as_ptr());
        (key.as_ptr(), value)
    });
    // SAFETY: key and value are null, as the command and a flag want, or NUL-terminated and borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            key,
            value,
            0 as libc::c_int,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Opens the root of what `tree` (a detached mount, or an `O_PATH` descriptor of a directory) names, for ioctls.
///
/// # Errors
/// `ENOTDIR` when it is no directory, or what the kernel says to `open`.
pub fn open_root(tree: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOATIME;
    match openat(&tree, ".", flags, Mode::empty()) {
        // O_NOATIME is for owners and CAP_FOWNER only.
        Err(nix::Error::EPERM) => Ok(openat(&tree, ".", flags - OFlag::O_NOATIME, Mode::empty())?),
        result => Ok(result?),
    }
}

/// The id of the mount `fd` lies on, as in the first field of `/proc/self/mountinfo`.
///
/// # Errors
/// What the kernel says to `statx`, or that neither it (Linux 5.8) nor `/proc/self/fdinfo` tells the id.
pub fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    match statx(&fd, libc::STATX_MNT_ID) {
        Ok(status) if status.stx_mask & libc::STATX_MNT_ID != 0 => return Ok(status.stx_mnt_id),
        Ok(_) => {}
        // A file system that was shut down tells nothing (`xfs_vn_getattr` in fs/xfs/xfs_iops.c); its mount does.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
        Err(error) => return Err(error),
    }
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    std::fs::read_to_string(path)?
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "the kernel tells no mount id"))
}

/// The device number (major, minor) of the file system `fd` lies on, as `stat` sees it.
///
/// That is the superblock's own for file systems on one block device; a btrfs subvolume has one of its own.
///
/// # Errors
/// What the kernel says to `statx`.
pub fn device_number(fd: impl AsFd) -> io::Result<(u32, u32)> {
    let status = statx(&fd, libc::STATX_BASIC_STATS)?;
    Ok((status.stx_dev_major, status.stx_dev_minor))
}

/// What kind of file `path` leads to (`S_IFMT`, man 7 inode), and the device number as by [`device_number`]; from what the kernel has in memory, so that no
/// server is asked (`AT_STATX_DONT_SYNC`).
///
/// # Errors
/// What the kernel says to `statx`.
pub fn kind_and_device(path: &Path) -> io::Result<(u32, (u32, u32))> {
    let path = c_string(path.as_os_str())?;
    // SAFETY: all of statx is integers, for which zero bytes are a value.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated and lives through the call, and `status` is ours to be written for it.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT,
            libc::STATX_TYPE,
            &raw mut status,
        )
    };
    match result {
        0 => Ok((
            u32::from(status.stx_mode) & libc::S_IFMT,
            (status.stx_dev_major, status.stx_dev_minor),
        )),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the kernel has in memory of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// `S_IFMT` of its mode (man 7 inode).
    pub kind: u32,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub owner: u32,
    /// The number (major, minor) of its file system, as by [`device_number`].
    pub device: (u32, u32),
    /// For a device node the number of that device.
    pub node: (u32, u32),
}

/// What the kernel has in memory of the file that `fd` names, be it an `O_PATH` descriptor of a link; no server is asked (`AT_STATX_DONT_SYNC`).
///
/// # Errors
/// What the kernel says to `statx`.
pub fn status(fd: impl AsFd) -> io::Result<Status> {
    let found = statx_with(&fd, libc::STATX_BASIC_STATS, libc::AT_STATX_DONT_SYNC)?;
    let mode = u32::from(found.stx_mode);
    Ok(Status {
        kind: mode & libc::S_IFMT,
        mode: mode & !libc::S_IFMT,
        owner: found.stx_uid,
        device: (found.stx_dev_major, found.stx_dev_minor),
        node: (found.stx_rdev_major, found.stx_rdev_minor),
    })
}

fn statx(fd: &impl AsFd, mask: libc::c_uint) -> io::Result<libc::statx> {
    statx_with(fd, mask, 0)
}

fn statx_with(fd: &impl AsFd, mask: libc::c_uint, flags: libc::c_int) -> io::Result<libc::statx> {
    // SAFETY: all of statx is integers, for which zero bytes are a value.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a NUL-terminated constant, and `status` is ours to be written for the call.
    let result = unsafe {
        libc::statx(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT | flags,
            mask,
            &raw mut status,
        )
    };
    if result == 0 {
        Ok(status)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = libc::c_int::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the system call just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_mount_id_is_the_one_in_mountinfo() {
        let root = File::open("/").unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some("/"))
            .unwrap();
        let id = line.split(' ').next().unwrap();
        assert_eq!(mount_id(&root).unwrap().to_string(), id);
    }

    #[test]
    fn a_path_descriptor_can_be_opened_for_ioctls() {
        let path = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        let root = open_root(&path).unwrap();
        assert_eq!(mount_id(&root).unwrap(), mount_id(&path).unwrap());
        assert_eq!(device_number(&root).unwrap(), device_number(&path).unwrap());
    }

    #[test]
    fn an_unknown_type_cannot_be_mounted() {
        let error = mount_device("no-such-type", Path::new("/dev/null")).unwrap_err();
        assert!(
            matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)),
            "{error}"
        );
    }
}
