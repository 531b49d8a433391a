//! `hv-vssd hook-exec`: what a hook that is started directly must not inherit of the agent is undone, then it takes over.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use hvutil_sys::memory;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::dup2_stdin;

/// What a login has (man 2 getrlimit): the agent raises its own.
const OPEN_FILES: u64 = 1024;

/// Becomes the hook, whose file is standard input, as `super::unit::Call` gives it. Returns only if that fails.
///
/// A program is executed by that descriptor. A script has its interpreter open the path, and finds its own name in `$0`: that the path leads to the
/// same file is looked at right before.
#[must_use]
pub fn exec(path: &Path, operation: &str) -> io::Error {
    let file = match take_checked(path) {
        Ok(file) => file,
        Err(error) => return error,
    };
    umask(Mode::from_bits_truncate(0o022));
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // An application that a hook starts is as mortal as others, and the kernel owes it no favours.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    let _ = memory::set_io_flusher(false);
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(most), most);
    }
    let arguments = [path.as_os_str(), OsStr::new(operation)];
    // Closed at the execution, so the kernel refuses a script, whose interpreter could not open it (fs/exec.c).
    let _refused = hvutil_sys::exec::execute(file.as_fd(), &arguments);
    Command::new(path).arg(operation).exec()
}

/// The file from standard input, which is empty from now on.
fn take_checked(path: &Path) -> io::Result<File> {
    let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    dup2_stdin(File::open("/dev/null")?)?;
    let (checked, now) = (file.metadata()?, fs::metadata(path)?);
    if (checked.dev(), checked.ino()) != (now.dev(), now.ino()) {
        return Err(io::Error::other(
            "it is not the file that was looked at, which is expected as standard input",
        ));
    }
    Ok(file)
}
