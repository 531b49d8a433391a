//! Which superblock a path lies on, by the mount table alone: no path is looked up, so nothing can be waited for.

use std::path::{Path, PathBuf};

use super::device::DeviceNumber;
use super::error::ScanError;
use super::mount_table::MountTable;
use super::mountinfo;
use super::text::printable;

/// Why a path leads to no file system.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The mount table cannot be read.
    #[error("the file systems of this machine cannot be listed")]
    Scan(#[from] ScanError),
    /// No mount point leads there.
    #[error(
        "{0} is on no file system of the mount table: name a mount point as 'hv-vssd plan' shows it"
    )]
    NotMounted(String),
}

/// The superblocks that `paths` lie on, each once, in our own mount namespace. Symbolic links are not followed.
///
/// # Errors
/// [`LookupError`].
pub fn devices_at(paths: &[PathBuf]) -> Result<Vec<DeviceNumber>, LookupError> {
    let table = Path::new("/proc/self/mountinfo");
    let bytes = std::fs::read(table).map_err(|source| ScanError::Read {
        path: table.to_owned(),
        source,
    })?;
    let mounts = mountinfo::parse_owned(bytes).map_err(|source| ScanError::Mountinfo {
        path: table.to_owned(),
        source,
    })?;
    devices_in(&mounts, paths)
}

fn devices_in(mounts: &MountTable, paths: &[PathBuf]) -> Result<Vec<DeviceNumber>, LookupError> {
    let mut devices = Vec::with_capacity(paths.len());
    for path in paths {
        // The longest mount point that the path begins with; of several mounts there the last one covers the others.
        let mount = mounts
            .iter()
            .filter(|mount| path.starts_with(mount.mount_point))
            .max_by_key(|mount| mount.mount_point.components().count());
        let mount = mount.ok_or_else(|| LookupError::NotMounted(printable(path)))?;
        if !devices.contains(&mount.dev) {
            devices.push(mount.dev);
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        22 21 8:2 / /srv rw - xfs /dev/sda2 rw\n\
        23 21 8:3 / /srv rw - ext4 /dev/sda3 rw\n\
        24 21 8:1 /home /home rw - ext4 /dev/sda1 rw\n";

    fn devices(table: &[u8], paths: &[&str]) -> Result<Vec<String>, String> {
        let mounts = mountinfo::parse(table).unwrap();
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        devices_in(&mounts, &paths)
            .map(|devices| devices.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_lies_on_the_uppermost_mount_and_each_superblock_counts_once() {
        assert_eq!(devices(TABLE, &["/srv/"]).unwrap(), ["8:3"]);
        assert_eq!(devices(TABLE, &["/srv/www/index.html"]).unwrap(), ["8:3"]);
        assert_eq!(devices(TABLE, &["/srvs"]).unwrap(), ["8:1"]);
        assert_eq!(
            devices(TABLE, &["/home", "/", "/srv"]).unwrap(),
            ["8:1", "8:3"]
        );
    }

    #[test]
    fn a_path_that_no_mount_leads_to_is_refused() {
        let table = b"22 21 8:2 / /srv rw - xfs /dev/sda2 rw\n";
        let error = devices(table, &["/srv", "/var"]).unwrap_err();
        assert!(error.starts_with("/var is on no file system"), "{error}");
    }
}
