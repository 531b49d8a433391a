//! Freezing one file system (`ioctl_fsfreeze` in `fs/ioctl.c`, `freeze_super` in `fs/super.c`; man 8 fsfreeze).
//!
//! A freeze belongs to the superblock: it outlives the descriptor, the process and the mount.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The ioctl numbers, which `include/uapi/linux/fs.h` defines as `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`.
mod ioctl {
    nix::ioctl_readwrite!(fifreeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(fithaw, b'X', 120, libc::c_int);
    // In fs/ext4/ext4.h, `_IOW('f', 43, __u32)`.
    nix::ioctl_write_ptr!(checkpoint, b'f', 43, u32);
}

/// The number of the ioctl by which [`freeze`] is done, as a system call's argument shows it.
pub const FIFREEZE: u64 =
    nix::request_code_readwrite!(b'X', 119, size_of::<libc::c_int>()) as u64 & U32;

/// That of [`thaw`].
pub const FITHAW: u64 =
    nix::request_code_readwrite!(b'X', 120, size_of::<libc::c_int>()) as u64 & U32;

/// It is an `int` to some C libraries.
const U32: u64 = u32::MAX as u64;

/// Freezes the file system `fd` lies on: waits for its writers, writes everything back, then keeps new writers asleep.
///
/// Blocks as long as the device takes; a caller that must not wait uses a thread. `fd` may not be an `O_PATH` one.
///
/// # Errors
/// `EBUSY` already frozen; `EOPNOTSUPP` the type cannot be frozen; `EPERM` without `CAP_SYS_ADMIN`; `EIO` and others
/// from the file system.
pub fn freeze(fd: impl AsFd) -> io::Result<()> {
    let mut unused: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for the call, and FIFREEZE neither reads nor writes its argument.
    unsafe { ioctl::fifreeze(fd.as_fd().as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Thaws the file system `fd` lies on.
///
/// # Errors
/// `EINVAL` when it is not frozen; `EPERM` without `CAP_SYS_ADMIN`; others from the file system.
pub fn thaw(fd: impl AsFd) -> io::Result<()> {
    let mut unused: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed for the call, and FITHAW neither reads nor writes its argument.
    unsafe { ioctl::fithaw(fd.as_fd().as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Writes everything dirty of the file system `fd` lies on to its device (man 2 syncfs), while writers go on.
///
/// # Errors
/// What the file system reports, since Linux 5.8 also earlier write-back errors.
pub fn sync(fd: impl AsFd) -> io::Result<()> {
    nix::unistd::syncfs(fd)?;
    Ok(())
}

/// Commits the journal of the ext4 that `fd` lies on, and writes its metadata to where it belongs, without writing any
/// file's data back (`EXT4_IOC_CHECKPOINT`, since Linux 5.14; Documentation/filesystems/ext4). Its writers wait
/// meanwhile, as in the last part of a freeze. It does not wait for a thaw.
///
/// # Errors
/// `ENOTTY` on another type or an older kernel, `EPERM` without `CAP_SYS_ADMIN`, `ENODEV` without a journal, `EIO`.
pub fn checkpoint(fd: impl AsFd) -> io::Result<()> {
    let flags = 0;
    // SAFETY: the descriptor is borrowed for the call, which reads one u32 of flags.
    unsafe { ioctl::checkpoint(fd.as_fd().as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// Writes back what is dirty in the page cache of the block device `device` itself, and waits for it: for ext4 that is
/// metadata of committed transactions, and no file's data. Commits nothing (man 2 sync_file_range).
///
/// # Errors
/// `EIO`, `ENOSPC`, `ESPIPE` when `device` is neither a file nor a block device.
pub fn write_metadata(device: impl AsFd) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is borrowed for the call, which takes no pointer.
    let result = unsafe { libc::sync_file_range(device.as_fd().as_raw_fd(), 0, 0, flags) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ioctl_numbers_are_the_kernels() {
        assert_eq!(FIFREEZE, 0xC004_5877);
        assert_eq!(FITHAW, 0xC004_5878);
    }

    #[test]
    fn a_pseudo_file_system_has_no_journal() {
        let proc = std::fs::File::open("/proc").unwrap();
        let errno = checkpoint(&proc).unwrap_err().raw_os_error();
        assert_eq!(errno, Some(libc::ENOTTY));
    }

    #[test]
    fn what_is_no_device_has_no_metadata() {
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let errno = write_metadata(&socket).unwrap_err().raw_os_error();
        assert_eq!(errno, Some(libc::ESPIPE));
        write_metadata(tempfile::tempfile().unwrap()).unwrap();
    }

    #[test]
    fn a_pseudo_file_system_cannot_be_frozen() {
        let proc = std::fs::File::open("/proc").unwrap();
        let errno = freeze(&proc).unwrap_err().raw_os_error();
        assert!(
            matches!(errno, Some(libc::EOPNOTSUPP | libc::EPERM)),
            "{errno:?}"
        );
        sync(&proc).unwrap();
    }
}
