//! What a btrfs is busy with: a scrub, or an operation that excludes others (`fs/btrfs/ioctl.c`, `include/uapi/linux/btrfs.h`).
//!
//! Each of them holds write access to the superblock as long as it lasts, so `FIFREEZE` waits for its end, and every writer behind it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Structs of 1,024 bytes, of which the first fields matter here.
#[repr(C, align(8))]
struct Args([u64; 128]);

mod ioctl {
    use super::Args;

    // `BTRFS_IOC_SCRUB_PROGRESS`, `_IOWR(0x94, 29, struct btrfs_ioctl_scrub_args)`.
    nix::ioctl_readwrite!(scrub_progress, 0x94, 29, Args);
    // `BTRFS_IOC_FS_INFO`, `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`.
    nix::ioctl_read!(fs_info, 0x94, 31, Args);
}

/// A pool of devices, as its file system describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The highest number that a device of it has.
    pub max_id: u64,
    /// The file system's id, as `/sys/fs/btrfs` names its directory.
    pub fsid: [u8; 16],
}

impl Pool {
    /// The id as sysfs writes it.
    #[must_use]
    pub fn uuid(&self) -> String {
        let mut text = String::with_capacity(36);
        for (index, byte) in self.fsid.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

/// The pool of the btrfs that `fd` lies on. `fd` may not be an `O_PATH` one.
///
/// # Errors
/// `ENOTTY` on another type.
pub fn pool(fd: impl AsFd) -> io::Result<Pool> {
    let mut args = Args([0; 128]);
    // SAFETY: the descriptor is borrowed for the call, which writes at most the 1,024 bytes of its argument.
    unsafe { ioctl::fs_info(fd.as_fd().as_raw_fd(), &raw mut args) }?;
    // max_id and num_devices, then the id.
    let [max_id, _, first, second, ..] = args.0;
    let mut fsid = [0; 16];
    let (left, right) = fsid.split_at_mut(8);
    left.copy_from_slice(&first.to_ne_bytes());
    right.copy_from_slice(&second.to_ne_bytes());
    Ok(Pool { max_id, fsid })
}

/// Whether this device of the btrfs that `fd` lies on is being scrubbed. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `ENODEV` when it has no device of this number; `ENOTTY` on another type; `EPERM`.
pub fn is_scrubbed(fd: impl AsFd, device: u64) -> io::Result<bool> {
    let mut args = Args([0; 128]);
    args.0[0] = device;
    // SAFETY: the descriptor is borrowed for the call, which reads and writes at most the 1,024 bytes of its argument.
    match unsafe { ioctl::scrub_progress(fd.as_fd().as_raw_fd(), &raw mut args) } {
        Ok(_) => Ok(true),
        // No scrub runs on it (btrfs_scrub_progress in fs/btrfs/scrub.c).
        Err(nix::errno::Errno::ENOTCONN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels() {
        assert_eq!(size_of::<Args>(), 1024);
    }

    #[test]
    fn another_type_is_told_from_btrfs() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert_eq!(pool(&proc).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert!(is_scrubbed(&proc, 1).is_err());
    }

    #[test]
    fn an_id_is_written_as_in_sysfs() {
        let pool = Pool {
            max_id: 1,
            fsid: [
                0x1d, 0x0f, 0x6a, 0x4e, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xff,
            ],
        };
        assert_eq!(pool.uuid(), "1d0f6a4e-0001-0203-0405-060708090aff");
    }
}
