//! Freezing one file system (`ioctl_fsfreeze` in `fs/ioctl.c`, `freeze_super` in `fs/super.c`; man 8 fsfreeze).
//!
//! A freeze belongs to the superblock: it outlives the descriptor, the process and the mount.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

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

/// Commits the journal of the ext4 (or ext3) that the directory `dir` lies on, without writing any file's data back:
/// a file without a name is made there, synced and let go, of which nothing remains. On another type it only costs time.
///
/// # Errors
/// `EROFS` through a read-only mount, `EACCES` in a directory of another user without `CAP_DAC_OVERRIDE`, `ENOTDIR`
/// when `dir` is none, `ENOSPC`, `EDQUOT`, `EOPNOTSUPP`, and what `man 2 open` and `man 2 fsync` say.
pub fn commit(dir: impl AsFd) -> io::Result<()> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file = nix::fcntl::openat(dir, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    nix::unistd::fsync(file)?;
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
    fn a_commit_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        match commit(&open) {
            Ok(()) => {}
            // Not every file system has files without a name.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let errno = commit(&file).unwrap_err().raw_os_error();
        assert_eq!(errno, Some(libc::ENOTDIR));
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
