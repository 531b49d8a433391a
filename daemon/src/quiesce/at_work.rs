//! What a file system is busy with that `FIFREEZE` would wait for: a btrfs's scrub, balance, or change of its devices.
//!
//! Such an operation holds write access as long as it lasts, for hours if need be, and once FIFREEZE waits for it every writer waits, too. So it is
//! waited for before anything is frozen, and not for long.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use hvutil_sys::btrfs;

/// A device's number is looked for among this many: sparse numbers come of devices that were removed.
const MAX_DEVICES: u64 = 1024;

/// What keeps the btrfs that `fd` lies on from being frozen, in words; `None` if nothing does, or it is another type. `sys` is `/sys`. Opens files of
/// sysfs alone.
#[must_use]
pub fn operation(fd: impl AsFd, sys: &Path) -> Option<String> {
    let pool = btrfs::pool(&fd).ok()?;
    // Since Linux 5.10.
    let name = sys.join("fs/btrfs").join(pool.uuid());
    let exclusive = fs::read_to_string(name.join("exclusive_operation")).unwrap_or_default();
    match exclusive.trim() {
        // Swap files keep others out, and hold no write access; nor does a balance that is paused.
        "" | "none" | "swap activate" | "balance paused" => {}
        operation => return Some(operation.to_owned()),
    }
    let devices = 1..=pool.max_id.min(MAX_DEVICES);
    let mut scrubbed =
        devices.filter(|device| matches!(btrfs::is_scrubbed(&fd, *device), Ok(true)));
    scrubbed
        .next()
        .map(|device| format!("scrub of device {device}"))
}
