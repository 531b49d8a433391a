//! Builds the stand-in bus for a kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::error::{BedError, BedResult, Context};
use crate::paths;

/// Builds `hv_vmbus.ko` against the headers of `release` in a copy below `scratch`.
pub(super) fn build(release: &str, scratch: &Path) -> BedResult<PathBuf> {
    let headers = PathBuf::from(format!("/usr/src/linux-headers-{release}"));
    if !headers.exists() {
        return Err(BedError::Setup(format!(
            "no {}: run `apt-get install linux-headers-{release}`, or tests/run as root",
            headers.display()
        )));
    }
    let source = paths::workspace().join("tests/vmbus-stub");
    let build = scratch.join("vmbus-stub");
    std::fs::create_dir_all(&build).doing(|| format!("making {}", build.display()))?;
    let entries = std::fs::read_dir(&source).doing(|| format!("reading {}", source.display()))?;
    for entry in entries.flatten() {
        std::fs::copy(entry.path(), build.join(entry.file_name()))
            .doing(|| format!("copying {}", entry.path().display()))?;
    }
    run(Command::new("make")
        .arg("-C")
        .arg(&build)
        .arg(format!("KDIR={}", headers.display()))
        .arg("modules"))?;
    Ok(build.join("hv_vmbus.ko"))
}
