//! What the agent keeps of root's power, and how it stays off the file systems it freezes.

use caps::{CapSet, Capability, CapsHashSet};
use hvutil_sys::memory;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// The process may not do what the agent does.
#[derive(Debug, thiserror::Error)]
#[error("{capability} is missing: run this as root")]
pub struct MissingCapability {
    capability: Capability,
}

/// What the agent keeps: freezing and the mount API need `CAP_SYS_ADMIN`, opening another user's 0700 mount point
/// needs `CAP_DAC_READ_SEARCH`, looking into the mount namespaces of other processes needs `CAP_SYS_PTRACE`.
pub const AGENT: [Capability; 3] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_PTRACE,
];

/// What the guardian keeps: it has its handles, and thaws; and it interrupts a program that sleeps in a write, so that a freeze waits for it.
pub const GUARDIAN: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];

/// Without these no file system can be frozen.
const REQUIRED: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_DAC_READ_SEARCH];

/// Locks the process in memory, and marks it as one that write-back depends on. The threads it starts inherit both.
/// Then drops every capability but `kept`, for good: no program it could start would get them back. And a crash leaves no core.
///
/// Called before any thread is started, since capabilities are a thread's own. A machine that does not allow all of
/// it is noted and served all the same.
pub fn confine(kept: &[Capability]) {
    confine_with(kept, true);
}

/// As [`confine`], but programs that it starts have root's rights as ever: where no systemd starts hooks, the agent does.
pub fn confine_but_children(kept: &[Capability]) {
    let mut kept = kept.to_vec();
    // Hooks may have started processes as other users, which have to be ended.
    kept.push(Capability::CAP_KILL);
    confine_with(&kept, false);
}

fn confine_with(kept: &[Capability], children: bool) {
    memory::share_one_heap();
    let mut kept: CapsHashSet = kept.iter().copied().collect();
    // Otherwise a thread started later, without CAP_IPC_LOCK, would find no memory that it may lock.
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        kept.insert(Capability::CAP_IPC_LOCK);
    }
    raise_open_files();
    // The command line and the configuration have been read: what that took is given back before it is locked.
    memory::trim_heap();
    if let Err(error) = memory::lock_all() {
        tracing::warn!(
            "memory cannot be locked ({error}): a thaw may wait for memory that is swapped out"
        );
    }
    memory::touch_emergencies();
    if let Err(error) = memory::set_io_flusher(true) {
        tracing::debug!("the kernel does not mark this process as an I/O flusher: {error}");
    }
    drop_capabilities(kept, children);
    leave_no_core();
}

/// A process has not died until its core is written: a file on what is frozen waits for the thaw, a helper (systemd-coredump, apport) for whatever
/// it needs, and neither is told to keep off by a limit of 0 (fs/coredump.c looks at that for files alone). Programs that it starts leave
/// cores as ever: exec makes them dumpable again.
pub fn leave_no_core() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("a crash would wait for its core dump: {error}");
    }
}

/// Several descriptors for each file system: the usual soft limit would bound their number.
pub fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Whether the process may do what the agent does.
///
/// # Errors
/// [`MissingCapability`].
pub fn require_capabilities() -> Result<(), MissingCapability> {
    for capability in REQUIRED {
        if !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false) {
            return Err(MissingCapability { capability });
        }
    }
    Ok(())
}

/// With `children`, what is dropped is out of reach for programs that the process starts, too.
fn drop_capabilities(wanted: CapsHashSet, children: bool) {
    if children {
        if let Err(error) = nix::sys::prctl::set_no_new_privs() {
            tracing::warn!("privileges cannot be given up for good: {error}");
        }
    }
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let kept: CapsHashSet = wanted.intersection(&permitted).copied().collect();
    for capability in caps::all() {
        if children && !kept.contains(&capability) {
            // Capabilities the kernel does not know cannot be dropped, and need not be.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        let _ = caps::clear(None, set);
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        if let Err(error) = caps::set(None, set, &kept) {
            tracing::warn!("capabilities cannot be dropped: {error}");
        }
    }
}
