//! Keeping the process off the file systems it holds frozen (man 2 mlockall, man 2 prctl).

use std::io;

/// Locks what the process has in memory and whatever it touches later, so that no page of it waits for a frozen
/// file system. Pages are locked as they are touched (`MCL_ONFAULT`), not all in advance.
///
/// # Errors
/// `EPERM` without `CAP_IPC_LOCK`, `ENOMEM` past `RLIMIT_MEMLOCK`.
pub fn lock_all() -> io::Result<()> {
    // MCL_ONFAULT alone would leave the program's text to be read when first used; so both, one after the other.
    mlockall(libc::MCL_CURRENT)?;
    mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT)
}

fn mlockall(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: mlockall takes flags only, and changes no contents of memory.
    let result = unsafe { libc::mlockall(flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets all threads share one heap: glibc's own for each thread (man 3 mallopt) would each take memory and time when the
/// thread starts. To be called before the first thread.
pub fn share_one_heap() {
    // SAFETY: mallopt takes integers only. A libc without it ignores the wish.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// `include/uapi/linux/prctl.h`
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Marks the calling thread as one that write-back depends on: its allocations do not recurse into file systems
/// (`PR_SET_IO_FLUSHER`, Linux 5.6). Threads and programs that it starts inherit the mark; `false` takes it away.
///
/// # Errors
/// `EPERM` without `CAP_SYS_RESOURCE`, `EINVAL` on older kernels.
pub fn set_io_flusher(on: bool) -> io::Result<()> {
    // SAFETY: this prctl takes integers only and touches no memory of ours.
    let result = unsafe { libc::prctl(PR_SET_IO_FLUSHER, libc::c_ulong::from(on), 0, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn io_flusher_is_set_or_refused_clearly() {
        if let Err(error) = super::set_io_flusher(true) {
            assert!(
                matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)),
                "{error}"
            );
        }
    }
}
