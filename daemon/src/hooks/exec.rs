//! `hv-vssd hook-exec`: what a hook that is started directly must not inherit of the agent is undone, then it takes over.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use hvutil_sys::memory;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};

/// What a login has (man 2 getrlimit): the agent raises its own.
const OPEN_FILES: u64 = 1024;

/// Becomes the hook. Returns only if that fails.
#[must_use]
pub fn exec(path: &Path, operation: &str) -> io::Error {
    umask(Mode::from_bits_truncate(0o022));
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // An application that a hook starts is as mortal as others, and the kernel owes it no favours.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    let _ = memory::set_io_flusher(false);
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(most), most);
    }
    Command::new(path).arg(operation).exec()
}
