//! Whether the kernel has a superblock in use, told by sysfs: also when it is mounted nowhere any more, but frozen.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::target::Target;
use crate::filesystems::text::printable;
use crate::filesystems::{DeviceNodes, DeviceNumber};

/// Whether the target's superblock is there. For types without an entry of their own in sysfs: whether it is mounted
/// in this namespace.
///
/// # Errors
/// When the device or the mount table cannot be read.
pub(super) fn is_live(target: &Target) -> io::Result<bool> {
    // A name that others can write may lead to a server that never answers.
    let number = DeviceNodes::System.resolve(&target.source).ok_or_else(|| {
        let source = printable(&target.source);
        io::Error::other(format!(
            "{source} is not, or no longer, a block device in /dev"
        ))
    })?;
    if !target.dev.is_anonymous() && number != target.dev {
        return Err(io::Error::other(format!(
            "it is device {number} now, not {}",
            target.dev
        )));
    }
    let name = kernel_name(number)?;
    match target.fstype.as_str() {
        // The ext4 driver serves the older two as well.
        "ext4" | "ext3" | "ext2" => {
            Ok(Path::new("/sys/fs/ext4").join(name).exists() || is_mounted(target)?)
        }
        "xfs" | "f2fs" => Ok(Path::new("/sys/fs")
            .join(&target.fstype)
            .join(name)
            .exists()),
        "btrfs" => is_member_of_a_btrfs(&name),
        _ => is_mounted(target),
    }
}

/// The kernel's name of a block device, such as `dm-0`.
fn kernel_name(number: DeviceNumber) -> io::Result<PathBuf> {
    let link = fs::read_link(format!("/sys/dev/block/{number}"))?;
    let name = link.file_name().ok_or(io::ErrorKind::InvalidData)?;
    // In a directory of sysfs a slash is written as an exclamation mark already.
    Ok(PathBuf::from(name))
}

fn is_member_of_a_btrfs(name: &Path) -> io::Result<bool> {
    let live = fs::read_dir("/sys/fs/btrfs")?
        .filter_map(Result::ok)
        .any(|entry| entry.path().join("devices").join(name).exists());
    Ok(live)
}

fn is_mounted(target: &Target) -> io::Result<bool> {
    let table = fs::read("/proc/self/mountinfo")?;
    let mounts = crate::filesystems::mountinfo::parse(&table).map_err(io::Error::other)?;
    Ok(mounts.iter().any(|mount| mount.dev == target.dev))
}
