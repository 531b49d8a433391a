//! Freezing one file system (`ioctl_fsfreeze` in `fs/ioctl.c`, `freeze_super` in `fs/super.c`; man 8 fsfreeze).
//!
//! A freeze belongs to the superblock: it outlives the descriptor, the process and the mount.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The ioctl numbers, which `include/uapi/linux/fs.h` defines as `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`.
mod ioctl {
    nix::ioctl_readwrite!(fifreeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(fithaw, b'X', 120, libc::c_int);
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ioctl_numbers_are_the_kernels() {
        assert_eq!(
            nix::request_code_readwrite!(b'X', 119, size_of::<libc::c_int>()),
            0xC004_5877
        );
        assert_eq!(
            nix::request_code_readwrite!(b'X', 120, size_of::<libc::c_int>()),
            0xC004_5878
        );
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
