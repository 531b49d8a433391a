//! QEMU's guest agent: Debian's package, unpacked, carried into the guest on a disk of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::tests::command::run;
use ::tests::error::{BedError, BedResult, Context};
use ::tests::guest::{Disk, Guest};

const PACKAGE: &str = "qemu-guest-agent";

/// Its program and libraries on an ext4 image, and the version; unpacked below `scratch`.
pub(crate) fn disk(scratch: &Path) -> BedResult<(Disk, String)> {
    let (package, tree) = (scratch.join("package"), scratch.join("tree"));
    for dir in [&package, &tree] {
        fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    run(Command::new("apt-get")
        .args(["download", PACKAGE])
        .current_dir(&package))?;
    let archive = fs::read_dir(&package)
        .doing(|| format!("reading {}", package.display()))?
        .flatten()
        .map(|entry| entry.path())
        .next()
        .ok_or_else(|| BedError::Setup(format!("apt knows no package {PACKAGE}")))?;
    let field = ["-f", &archive.display().to_string(), "Version"].map(ToOwned::to_owned);
    let version = run(Command::new("dpkg-deb").args(field))?;
    let unpacked = scratch.join("unpacked");
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(&archive)
        .arg(&unpacked))?;
    let program = unpacked.join("usr/sbin/qemu-ga");
    copy(&program, &tree.join("usr/sbin/qemu-ga"))?;
    for library in libraries(&program)? {
        copy(
            &library,
            &tree.join(library.strip_prefix("/").unwrap_or(&library)),
        )?;
    }
    let image = scratch.join("peer.img");
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(&image)
        .arg("32M"))?;
    Ok((Disk::copy_of(&image), version.trim().to_owned()))
}

/// The shared libraries of a program; all of them must be on this machine.
fn libraries(program: &Path) -> BedResult<BTreeSet<PathBuf>> {
    let said = run(Command::new("ldd").arg(program))?;
    if let Some(lacking) = said.lines().find(|line| line.contains("not found")) {
        let lacking = lacking.trim();
        return Err(BedError::Setup(format!(
            "{PACKAGE} needs a library: {lacking}"
        )));
    }
    let words = said.split_whitespace();
    Ok(words
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

fn copy(from: &Path, to: &Path) -> BedResult<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    fs::copy(from, to).doing(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// Copies it from its disk into the guest's root, but for what is there and in use, and takes the disk away.
pub(crate) fn install(guest: &Guest, disk: usize) -> BedResult<()> {
    let letter = char::from(b'a' + u8::try_from(disk).unwrap_or_default());
    guest.sh(&format!(
        "mkdir -p /run/peer; mount -t ext4 -o ro /dev/vd{letter} /run/peer; cd /run/peer
         find usr lib lib64 -type f | while read -r file; do
             if [ ! -e /$file ]; then mkdir -p /${{file%/*}}; cp $file /$file; fi
         done
         cd /; umount /run/peer"
    ))?;
    Ok(())
}
