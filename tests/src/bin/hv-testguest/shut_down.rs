//! Shuts a file system down, as its driver does after an error.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::Outcome;

/// `XFS_IOC_GOINGDOWN` of fs/xfs/libxfs/xfs_fs.h; ext4 and f2fs have it under the same number.
const GOINGDOWN: libc::c_ulong = 0x8004_587d;

/// Without writing the log (`XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`).
const NO_LOG_FLUSH: u32 = 2;

/// Shuts down the file system that is mounted at `at`.
#[expect(unsafe_code, reason = "no crate offers this ioctl")]
pub(crate) fn run(at: &str) -> Outcome {
    let root = File::open(at)?;
    let flags = NO_LOG_FLUSH;
    // SAFETY: the ioctl reads an integer that lives through the call.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), GOINGDOWN as _, &raw const flags) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}
