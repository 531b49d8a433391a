//! The programs under test, added to the base archive for each guest.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::{cpio, libraries::copy_program};
use crate::command::run;
use crate::error::{BedError, BedResult, Context};
use crate::paths;

/// Appends the guest's init, and hv-vssd in both its builds if asked for, to the archive at `initrd`.
///
/// # Errors
/// A program was not built; the message says which and how to.
pub fn append_programs(initrd: &Path, with_hv_vssd: bool) -> BedResult<()> {
    let tree = tempfile::tempdir().doing(|| "making a directory for the overlay".into())?;
    let init = paths::testguest();
    built(&init, "cargo build -p tests --bins")?;
    copy_program(&init, tree.path(), "/init")?;
    fs::create_dir_all(tree.path().join("sbin")).doing(|| "making sbin".into())?;
    std::os::unix::fs::symlink("/init", tree.path().join("sbin/hv-testguest"))
        .doing(|| "linking hv-testguest".into())?;
    if with_hv_vssd {
        let program = paths::hv_vssd();
        built(&program, "cargo build --release -p hv-vssd")?;
        copy_program(&program, tree.path(), "/usr/sbin/hv-vssd")?;
        let program = paths::hv_vssd_faults();
        built(
            &program,
            "cargo build --release -p hv-vssd --features fault-points --target-dir target/faults",
        )?;
        copy_program(&program, tree.path(), "/usr/sbin/hv-vssd-faults")?;
    }
    append(initrd, tree.path())
}

/// Appends what a system on a disk gets before it boots: a tree of files, and shell commands.
///
/// # Errors
/// The tree cannot be read.
pub fn append_system(initrd: &Path, overlay: Option<&Path>, setup: &str) -> BedResult<()> {
    let tree = tempfile::tempdir().doing(|| "making a directory for the overlay".into())?;
    let script = tree.path().join("etc/system-setup");
    fs::create_dir_all(tree.path().join("etc")).doing(|| "making etc".into())?;
    fs::write(&script, setup).doing(|| format!("writing {}", script.display()))?;
    if let Some(overlay) = overlay {
        let mut copy = Command::new("cp");
        run(copy.arg("-a").arg(overlay).arg(tree.path().join("overlay")))?;
    }
    append(initrd, tree.path())
}

fn append(initrd: &Path, tree: &Path) -> BedResult<()> {
    let file = File::options()
        .append(true)
        .open(initrd)
        .doing(|| format!("opening {}", initrd.display()))?;
    cpio::append_tree(tree, file).doing(|| "appending to the archive".into())
}

fn built(program: &Path, command: &str) -> BedResult<()> {
    if program.is_file() {
        return Ok(());
    }
    Err(BedError::Setup(format!(
        "no {}: run `{command}` first",
        program.display()
    )))
}
