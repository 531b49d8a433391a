//! Bytes that several processes see at once, and that outlive all of them: a file mapped shared (man 2 mmap).

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A file mapped for reading and writing. Each access is one atomic byte.
///
/// Whoever makes the file must not shorten it while it is mapped: the kernel then ends whoever touches the lost part.
#[derive(Debug)]
pub struct SharedBytes {
    start: NonNull<AtomicU8>,
    length: NonZeroUsize,
}

// SAFETY: the mapping belongs to the value alone, and its bytes are only touched atomically.
unsafe impl Send for SharedBytes {}
// SAFETY: as above.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// Maps all of `file`, which must be open for reading and writing.
    ///
    /// # Errors
    /// `InvalidInput` for an empty file, or what the kernel says.
    pub fn map(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // MAP_POPULATE: no first touch may have to wait later.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else refers to it.
        let start = unsafe { mmap(None, length, protection, flags, file.as_fd(), 0) }?;
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    /// The byte at `index`, if the file is that long.
    #[must_use]
    pub fn load(&self, index: usize) -> Option<u8> {
        self.byte(index).map(|byte| byte.load(Ordering::SeqCst))
    }

    /// Sets the byte at `index`; beyond the end nothing happens.
    pub fn store(&self, index: usize, value: u8) {
        if let Some(byte) = self.byte(index) {
            byte.store(value, Ordering::SeqCst);
        }
    }

    /// Sets the byte at `index` to `new` if it is `old`; `false` if it is not. Of several processes one wins.
    #[must_use]
    pub fn swap_if(&self, index: usize, old: u8, new: u8) -> bool {
        self.byte(index).is_some_and(|byte| {
            byte.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        })
    }

    fn byte(&self, index: usize) -> Option<&AtomicU8> {
        if index >= self.length.get() {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self`; an atomic byte has no alignment to keep.
        Some(unsafe { self.start.add(index).as_ref() })
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, to which no reference outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.length.get()) };
    }
}

/// Takes the lock of `file` (man 2 flock), if it is free; `false` if another open file has it. It lasts until the last
/// copy of this descriptor, and the last mapping of it, in whichever process, has gone: also that of a process that was killed
/// and cannot end yet.
///
/// # Errors
/// What the kernel says, for a file system without locks.
pub fn lock_for_all(file: &File) -> io::Result<bool> {
    // SAFETY: flock takes a descriptor, open for the call, and flags.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(false),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn two_mappings_of_a_file_see_each_other_and_the_file_keeps_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"....").unwrap();
        let one = SharedBytes::map(file.as_file()).unwrap();
        let other = SharedBytes::map(file.as_file()).unwrap();
        one.store(2, b'F');
        assert_eq!(other.load(2), Some(b'F'));
        assert!(other.swap_if(2, b'F', b'~') && !one.swap_if(2, b'F', b'~'));
        one.store(2, b'F');
        one.store(4, b'!');
        assert_eq!(other.load(4), None);
        drop((one, other));
        assert_eq!(std::fs::read(file.path()).unwrap(), b"..F.");
    }

    #[test]
    fn an_empty_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(SharedBytes::map(&file).is_err());
    }
}
