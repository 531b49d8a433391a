//! Keeping the process off the file systems it holds frozen (man 2 mlockall, man 2 prctl).

use std::ffi::CStr;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// [`lock_all`] has been called.
static LOCKED: AtomicBool = AtomicBool::new(false);

/// Locks the program, what the process has in memory, and whatever it touches later, so that no page of it waits for a
/// frozen file system or a disk that does not answer.
///
/// The program is read and locked as a whole. Anything else is locked as it is touched (`MCL_ONFAULT`): all of a C library
/// would be as much memory again, hardly any of which is ever used. What is needed of a library in an emergency must be
/// called once, after this and beforehand, as [`touch_emergencies`] does.
///
/// # Errors
/// `EPERM` without `CAP_IPC_LOCK`, `ENOMEM` past `RLIMIT_MEMLOCK`.
pub fn lock_all() -> io::Result<()> {
    let libraries = objects().into_iter().skip(1);
    libraries.for_each(|library| library.forget());
    LOCKED.store(true, Ordering::Relaxed);
    lock()
}

fn lock() -> io::Result<()> {
    lock_touched()?;
    match objects().first() {
        Some(program) => program.lock(),
        None => Ok(()),
    }
}

/// As [`lock_all`], but of the program, too, only what is touched: for a child of a process that is locked, which does little.
///
/// # Errors
/// As [`lock_all`].
pub fn lock_touched() -> io::Result<()> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: mlockall takes flags only, and changes no contents of memory.
    if unsafe { libc::mlockall(flags) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The program or a library, as it is mapped.
struct Object {
    is_file: bool,
    segments: Vec<Segment>,
}

struct Segment {
    start: *mut libc::c_void,
    length: usize,
    is_constant: bool,
}

impl Object {
    /// mlock, unlike mlockall above, also brings in what was not touched yet.
    fn lock(&self) -> io::Result<()> {
        for segment in &self.segments {
            // SAFETY: mlock changes no contents of memory, and refuses addresses that are not mapped.
            if unsafe { libc::mlock(segment.start, segment.length) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Takes code and constants out of the process until they are used again: most of what was needed to load and start
    /// the program never is.
    fn forget(&self) {
        for segment in &self.segments {
            if self.is_file && segment.is_constant {
                // SAFETY: nobody writes to these pages, so the file gives the same contents again.
                let _ =
                    unsafe { libc::madvise(segment.start, segment.length, libc::MADV_DONTNEED) };
            }
        }
    }
}

/// All that is loaded, first the program.
fn objects() -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    // SAFETY: `collect` gets what it asks for: `objects` outlives the call, and is used by nobody else meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut objects).cast()) };
    objects
}

/// For `dl_iterate_phdr` (man 3).
///
/// # Safety
/// `info` is what that function passes, `objects` a `Vec<Object>` of the caller's.
unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    objects: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the caller's promise.
    let (info, objects) = unsafe { (&*info, &mut *objects.cast::<Vec<Object>>()) };
    let headers = if info.dlpi_phdr.is_null() {
        &[]
    } else {
        // SAFETY: the object's program headers, as many as it says; loaded as long as this runs.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) }
    };
    let mapped = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD);
    let segments = mapped.map(|header| Segment {
        start: (info.dlpi_addr.wrapping_add(header.p_vaddr)) as *mut libc::c_void,
        length: header.p_memsz as usize,
        is_constant: header.p_flags & libc::PF_W == 0,
    });
    // A library goes by its path; what the kernel puts into every process (the vDSO) has none.
    let is_file = !info.dlpi_name.is_null()
        // SAFETY: a name ends with a zero, and stays as long as the object.
        && unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes().contains(&b'/');
    objects.push(Object {
        is_file,
        segments: segments.collect(),
    });
    0
}

/// Gives memory that the heap has but does not use back to the kernel, which takes none that is locked: so a process that
/// is locked is unlocked for that moment, and locked again as by [`lock_all`]. To be called while nothing is frozen.
///
/// # Errors
/// As [`lock_all`]; then part of the process is not locked.
pub fn give_back() -> io::Result<()> {
    if !LOCKED.load(Ordering::Relaxed) {
        trim_heap();
        return Ok(());
    }
    // SAFETY: munlockall takes nothing, and changes no contents of memory.
    if unsafe { libc::munlockall() } != 0 {
        return Err(io::Error::last_os_error());
    }
    trim_heap();
    lock()?;
    touch_unwinder();
    Ok(())
}

/// Gives memory that the heap has but does not use back to the kernel, as far as it is not locked.
pub fn trim_heap() {
    // SAFETY: malloc_trim takes an integer, and frees what nobody has. Another libc keeps what it has.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Unwinds, and takes a signal, so that a later panic or a request to end finds in memory what it needs of the libraries.
/// To be called before the first thread.
pub fn touch_emergencies() {
    touch_unwinder();
    extern "C" fn nothing(_: libc::c_int) {}
    // SIGURG is ignored unless someone asks for it: one that comes from elsewhere meanwhile does no harm either.
    let signal = libc::SIGURG;
    // SAFETY: the handler does nothing, and the one before is put back.
    unsafe {
        let before = libc::signal(signal, nothing as *const () as libc::sighandler_t);
        if before != libc::SIG_ERR {
            let _ = libc::raise(signal);
            let _ = libc::signal(signal, before);
        }
    }
}

fn touch_unwinder() {
    // No panic: its hook, which says so on standard error, is not called.
    let _ = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(())));
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
    use super::*;

    #[test]
    fn the_first_object_is_this_program_and_others_are_libraries_that_can_be_read_again() {
        let objects = objects();
        let here = lock_all as *const () as usize;
        let holds_this = |object: &Object| {
            let mut segments = object.segments.iter();
            segments.any(|segment| {
                let start = segment.start as usize;
                segment.is_constant && (start..start + segment.length).contains(&here)
            })
        };
        assert!(holds_this(&objects[0]) && !objects[1..].iter().any(holds_this));
        // The C library among them goes on working.
        for library in &objects[1..] {
            library.forget();
        }
        touch_emergencies();
        assert!(std::fs::read("/proc/self/maps").is_ok());
    }

    #[test]
    fn io_flusher_is_set_or_refused_clearly() {
        if let Err(error) = set_io_flusher(true) {
            assert!(
                matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)),
                "{error}"
            );
        }
    }
}
