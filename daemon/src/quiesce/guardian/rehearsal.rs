//! A rescue at the start, when nothing is frozen.
//!
//! Of the C library only what has been used is locked in memory. What a rescue uses, nothing else in this process does;
//! and when it counts, the disk that holds the library may be the one that does not answer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use hvutil_sys::shared::SharedBytes;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::getppid;

use super::freezer::Freezer;
use super::rescue::{Cause, Guarded, Watch};
use crate::quiesce::protocol::Mark;

/// Thaws memory, which nobody can freeze, in the way in which file systems are thawed.
pub(super) fn rehearse() -> io::Result<()> {
    let ledger = File::from(memfd_create(c"hv-vssd-rehearsal", MFdFlags::MFD_CLOEXEC)?);
    // By the same call as the switch of the grace periods is set.
    ledger.write_all_at(&[Mark::Frozen.byte()], 0)?;
    let (_agent, socket) = Freezer::pair()?;
    let handle = Guarded::new(ledger.try_clone()?.into(), 0, 0, Some(socket));
    let watch = Watch {
        agent: getppid(),
        marks: SharedBytes::map(&ledger)?,
        ledger,
        handles: vec![handle],
        expected: 1,
        acknowledged: true,
        limit_passed: false,
        was_expedited: None,
        deadline: None,
    };
    watch.start_freezers()?;
    let begun = watch.thaw_all(Cause::AgentDied);
    let mut marks = watch.handles.iter().map(|handle| watch.mark(handle));
    if begun == 1 && marks.all(|mark| mark == Mark::Thawed) {
        Ok(())
    } else {
        Err(io::Error::other("it was not thawed"))
    }
}
