//! The disks' images as the host sees them: copied during a hold, then examined.

mod check;
mod read;

use std::path::Path;
use std::process::Command;

use crate::command::run;
use crate::error::BedResult;

pub use check::unclean;
pub use read::{contains, extract, records};

/// Copies an image as it is now, holes kept.
///
/// # Errors
/// It cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> BedResult<()> {
    // Overwriting an older copy would make ext4 write it out at once.
    let _ = std::fs::remove_file(to);
    run(Command::new("cp")
        .args(["--sparse=always", "--reflink=never"])
        .arg(from)
        .arg(to))?;
    Ok(())
}
