//! Executing a file by its descriptor (man 2 execveat): what was looked at, whatever its path leads to by then.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

/// Becomes the program in `file`, which may be opened with `O_PATH`, with these arguments, of which the first is its name, and the environment of
/// this process. SIGPIPE is as it was before the Rust runtime ignored it. Returns only if that fails.
///
/// `ENOENT` for a script (`#!`) whose descriptor is closed at the execution: its interpreter could not open it.
pub fn execute(file: BorrowedFd<'_>, arguments: &[&OsStr]) -> io::Error {
    let owned: Result<Vec<_>, _> = arguments
        .iter()
        .map(|argument| CString::new(argument.as_bytes()))
        .collect();
    let owned = match owned {
        Ok(owned) => owned,
        Err(error) => return error.into(),
    };
    let mut pointers: Vec<_> = owned.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: sets no handler, and nothing of this process counts on the signal being ignored from here on.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: the path is empty, `pointers` is an array of C strings that live in `owned` and ends with null, and `environ` is such an array of the C
    // library's, which no other thread changes in the safe functions of the standard library without its lock; the kernel only reads them.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            environ,
            libc::AT_EMPTY_PATH,
        );
    }
    let error = io::Error::last_os_error();
    // SAFETY: puts back what was there; no handler of Rust's that could not run.
    unsafe { libc::signal(libc::SIGPIPE, before) };
    error
}

unsafe extern "C" {
    /// Of the C library (man 7 environ).
    static environ: *const *const libc::c_char;
}
