//! From paths that a person names to the file systems of the plan that hold them.

use std::io;
use std::path::{Path, PathBuf};

use hvutil_sys::mount;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::filesystems::text::printable;
use crate::filesystems::{DeviceNumber, Plan, Policy, Reason, Scan, ScanError, scan};

/// Why a path stands for nothing that can be frozen.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The mount table or what lies beneath it cannot be read.
    #[error("the file systems of this machine cannot be listed")]
    Scan(#[from] ScanError),
    /// It does not exist, or cannot be reached.
    #[error("{path} cannot be used", path = printable(.0))]
    Path(PathBuf, #[source] io::Error),
    /// It lies on a mount that the mount table does not have.
    #[error("{path} is on no file system of the mount table: see 'hv-vssd plan --all'", path = printable(.0))]
    Unknown(PathBuf),
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

/// The file systems that hold these paths, each once, as a checkpoint under `policy` would freeze them. Paths are looked up: to be called
/// before anything is frozen.
///
/// # Errors
/// [`LocateError`], for the first path that stands for nothing that can be frozen.
pub fn locate(paths: &[PathBuf], policy: &Policy) -> Result<Vec<DeviceNumber>, LocateError> {
    // Looking a path up may mount something: so before the table is read.
    let mut mounts = Vec::with_capacity(paths.len());
    for path in paths {
        let id = mount_of(path).map_err(|error| LocateError::Path(path.clone(), error))?;
        mounts.push((path, id));
    }
    let scan = scan()?;
    let plan = Plan::new(&scan, policy);
    let mut found = Vec::new();
    for (path, id) in mounts {
        let dev = find(path, id, &scan, &plan)?;
        if !found.contains(&dev) {
            found.push(dev);
        }
    }
    Ok(found)
}

fn mount_of(path: &Path) -> io::Result<u64> {
    let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    mount::mount_id(&place)
}

fn find(path: &Path, id: u64, scan: &Scan, plan: &Plan) -> Result<DeviceNumber, LocateError> {
    let mount = scan.mounts.iter().find(|mount| mount.id == id);
    let Some(mount) = mount else {
        return Err(LocateError::Unknown(path.to_owned()));
    };
    if plan.superblocks().any(|planned| planned.dev == mount.dev) {
        return Ok(mount.dev);
    }
    let left_out = plan.left_out.iter().find(|left| left.dev == mount.dev);
    Err(match left_out {
        Some(left_out) => LocateError::LeftOut {
            path: path.to_owned(),
            fstype: left_out.fstype.clone(),
            dev: left_out.dev,
            reason: left_out.reason,
        },
        None => LocateError::Unknown(path.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiesce::error::with_causes;

    fn refusal(path: &str) -> String {
        with_causes(&locate(&[path.into()], &Policy::default()).unwrap_err())
    }

    #[test]
    fn a_path_that_cannot_be_frozen_is_refused_with_the_reason() {
        let text = refusal("/proc/self/status");
        assert!(
            text.starts_with(
                "/proc/self/status is on a file system that is not frozen (proc on 0:"
            )
        );
        assert!(text.ends_with("nothing of it is on a disk"), "{text}");
        let text = refusal("/nonexistent\n/path");
        assert!(
            text.starts_with("/nonexistent\\u{a}/path cannot be used: "),
            "{text}"
        );
    }
}
