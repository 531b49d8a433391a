//! Which superblocks paths lie on: as a look-up of the path finds them, or by the mount table alone, where nothing may be waited for.

use std::io;
use std::path::{Path, PathBuf};

use hvutil_sys::mount;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::device::DeviceNumber;
use super::error::ScanError;
use super::mount_table::MountTable;
use super::mountinfo;
use super::plan::Plan;
use super::policy::Policy;
use super::reason::Reason;
use super::scan::{Scan, scan};
use super::text::printable;
use super::tree::MountTree;

/// Why a path leads to no file system that can be frozen.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The mount table or what lies beneath it cannot be read.
    #[error("the file systems of this machine cannot be listed")]
    Scan(#[from] ScanError),
    /// It does not exist, or cannot be reached.
    #[error("{path} cannot be used", path = printable(.0))]
    Path(PathBuf, #[source] io::Error),
    /// It lies on a mount that the mount table does not have.
    #[error("{path} is on no file system of the mount table: see 'hv-vssd plan --all'", path = printable(.0))]
    Unknown(PathBuf),
    /// No mount point leads there.
    #[error(
        "{path} is on no file system of the mount table: name a mount point as 'hv-vssd plan' shows it", path = printable(.0)
    )]
    NotMounted(PathBuf),
    /// Its file system is left out of every checkpoint.
    #[error(
        "{path} is on a file system that is not frozen ({fstype} on {dev}): {reason}",
        path = printable(.path)
    )]
    LeftOut {
        /// The path as it was given.
        path: PathBuf,
        /// The type of its file system.
        fstype: String,
        /// Which that is.
        dev: DeviceNumber,
        /// Why it is left out.
        reason: Reason,
    },
}

/// The superblocks that `paths` lie on, each once, as a checkpoint under `policy` would freeze them. Paths are looked up: to be called
/// before anything is frozen.
///
/// # Errors
/// [`LookupError`], for the first path that stands for nothing that can be frozen.
pub fn planned_at(paths: &[PathBuf], policy: &Policy) -> Result<Vec<DeviceNumber>, LookupError> {
    // Looking a path up may mount something: so before the table is read.
    let mut ids = Vec::with_capacity(paths.len());
    for path in paths {
        let id = mount_of(path).map_err(|error| LookupError::Path(path.clone(), error))?;
        ids.push((path, id));
    }
    let scan = scan()?;
    let plan = Plan::new(&scan, policy);
    each_once(ids.into_iter(), |(path, id)| {
        planned(path, id, &scan, &plan)
    })
}

/// The superblocks that `paths` lie on, each once, in our own mount namespace: by the mount table alone, so symbolic links are not followed.
///
/// # Errors
/// [`LookupError`], for the first path that no mount point leads to.
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

fn mount_of(path: &Path) -> io::Result<u64> {
    let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    mount::mount_id(&place)
}

fn planned(path: &Path, id: u64, scan: &Scan, plan: &Plan) -> Result<DeviceNumber, LookupError> {
    let unknown = || LookupError::Unknown(path.to_owned());
    let mount = scan.mounts.iter().find(|mount| mount.id == id);
    let dev = mount.ok_or_else(unknown)?.dev;
    if plan.superblocks().any(|planned| planned.dev == dev) {
        return Ok(dev);
    }
    let left_out = plan.left_out.iter().find(|left| left.dev == dev);
    let left_out = left_out.ok_or_else(unknown)?;
    Err(LookupError::LeftOut {
        path: path.to_owned(),
        fstype: left_out.fstype.clone(),
        dev,
        reason: left_out.reason,
    })
}

fn devices_in(mounts: &MountTable, paths: &[PathBuf]) -> Result<Vec<DeviceNumber>, LookupError> {
    let tree = MountTree::new(mounts, |_| false);
    each_once(paths.iter(), |path| {
        let holder = tree.holders(path).first().copied();
        let mount = holder.and_then(|index| mounts.get(index));
        let mount = mount.ok_or_else(|| LookupError::NotMounted(path.clone()))?;
        Ok(mount.dev)
    })
}

fn each_once<T>(
    paths: impl Iterator<Item = T>,
    find: impl Fn(T) -> Result<DeviceNumber, LookupError>,
) -> Result<Vec<DeviceNumber>, LookupError> {
    let mut devices = Vec::with_capacity(paths.size_hint().0);
    for path in paths {
        let dev = find(path)?;
        if !devices.contains(&dev) {
            devices.push(dev);
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
        24 21 8:1 /home /home rw - ext4 /dev/sda1 rw\n\
        25 21 8:4 / /mnt/disk rw - ext4 /dev/sda4 rw\n\
        26 21 8:5 / /mnt rw - ext4 /dev/sda5 rw\n";

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
    fn a_mount_that_another_one_hides_holds_no_path() {
        assert_eq!(devices(TABLE, &["/mnt/disk/file"]).unwrap(), ["8:5"]);
    }

    #[test]
    fn a_path_that_no_mount_leads_to_is_refused() {
        let table = b"22 21 8:2 / /srv rw - xfs /dev/sda2 rw\n";
        let error = devices(table, &["/srv", "/var"]).unwrap_err();
        assert!(error.starts_with("/var is on no file system"), "{error}");
    }

    fn refusal(path: &str) -> (String, Option<String>) {
        let error = planned_at(&[path.into()], &Policy::default()).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        (error.to_string(), cause)
    }

    #[test]
    fn a_path_that_cannot_be_frozen_is_refused_with_the_reason() {
        let (text, cause) = refusal("/proc/self/status");
        assert!(
            text.starts_with(
                "/proc/self/status is on a file system that is not frozen (proc on 0:"
            )
        );
        assert!(text.ends_with("nothing of it is on a disk"), "{text}");
        assert_eq!(cause, None);
        let (text, cause) = refusal("/nonexistent\n/path");
        assert_eq!(text, "/nonexistent\\u{a}/path cannot be used");
        assert!(cause.is_some());
    }
}
