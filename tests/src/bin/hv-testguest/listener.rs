//! A fanotify permission listener that never answers: whoever opens something waits for it.

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

use crate::Outcome;

/// Listens on the file systems of these paths until it is killed.
pub(crate) fn run(paths: &[&str]) -> Outcome {
    let listener = Fanotify::init(InitFlags::FAN_CLASS_CONTENT, EventFFlags::O_RDONLY)?;
    let mask = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_OPEN_EXEC_PERM | MaskFlags::FAN_ONDIR;
    let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
    for path in paths {
        listener.mark(flags, mask, nix::fcntl::AT_FDCWD, Some(*path))?;
    }
    loop {
        std::thread::park();
    }
}
