//! The disks' images as the host sees them: copied during a hold, then examined.

mod check;
mod read;

use std::path::Path;
use std::process::Command;

use crate::command::run;
use crate::error::{BedResult, Context};

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

/// Writes the whole of an image over another disk's, whose file stays the same: a guest has it open.
///
/// # Errors
/// It cannot be read or written.
pub fn overwrite(from: &Path, to: &Path) -> BedResult<()> {
    let copy = || {
        let mut to = std::fs::File::options().write(true).open(to)?;
        std::io::copy(&mut std::fs::File::open(from)?, &mut to)?;
        to.sync_all()
    };
    copy().doing(|| format!("copying {} over {}", from.display(), to.display()))
}
