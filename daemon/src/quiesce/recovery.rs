//! Thawing what an earlier agent left frozen, by the ledger's record or by name.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use hvutil_sys::freeze;

use super::error::with_causes;
use super::handle::Handle;
use super::hold::THAW_PATIENCE;
use super::ledger;
use super::target::Target;
use crate::filesystems::text::printable;
use crate::filesystems::{Plan, Policy, ScanError, scan};

/// What became of one file system.
#[derive(Debug)]
pub struct Outcome {
    /// Which: its mount point, or its device where it has none.
    pub name: String,
    /// What was done, or why it could not be.
    pub result: Result<Thaw, String>,
}

/// How a thaw went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thaw {
    /// It was frozen, and is not any more.
    Thawed,
    /// It was not frozen.
    NotFrozen,
}

/// Why nothing could be tried.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The record cannot be read.
    #[error("the ledger {path} cannot be read; 'hv-vssd thaw --all' does not need it")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mount table cannot be read.
    #[error("the file systems of this machine cannot be listed")]
    Scan(#[from] ScanError),
}

/// Thaws what the ledger at `path` has on record as frozen, in reverse order; with `remove`, removes it when nothing
/// is left.
///
/// A file system is found by its superblock, through whichever mount of it there is now, or through its device.
///
/// # Errors
/// [`RecoveryError`]; a file system that cannot be thawed is an [`Outcome`], and does not stop the others.
pub fn by_ledger(path: &Path, remove: bool) -> Result<Vec<Outcome>, RecoveryError> {
    let entries = match ledger::read(path) {
        Ok(Some(entries)) => entries,
        Ok(None) => return Ok(Vec::new()),
        Err(source) => {
            if source.kind() == io::ErrorKind::InvalidData && remove {
                // It would stand in the way for ever; it is kept for whoever wants to know.
                let _ = std::fs::rename(path, path.with_extension("damaged"));
            }
            let path = path.to_owned();
            return Err(RecoveryError::Ledger { path, source });
        }
    };
    let mut outcomes = Vec::new();
    if !entries.iter().any(|entry| entry.mark.wants_thaw()) {
        if remove {
            let _ = std::fs::remove_file(path);
        }
        return Ok(outcomes);
    }
    let plan = Plan::new(&scan()?, &Policy::default());
    for entry in entries
        .into_iter()
        .rev()
        .filter(|entry| entry.mark.wants_thaw())
    {
        let name = if entry.mount_point.as_os_str().is_empty() {
            printable(&entry.source)
        } else {
            printable(&entry.mount_point)
        };
        let mut target = Target::from(entry);
        target.mounts = ways(&plan, &target);
        outcomes.push(Outcome {
            name,
            result: thaw(target),
        });
    }
    if remove && outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        let _ = std::fs::remove_file(path);
    }
    Ok(outcomes)
}

/// Thaws the file systems mounted at these paths.
///
/// # Errors
/// As [`by_ledger`].
pub fn by_paths(paths: &[PathBuf]) -> Result<Vec<Outcome>, RecoveryError> {
    let scan = scan()?;
    let outcome = |path: &PathBuf| {
        // Not resolved in the file system: that would look up a path on what is frozen.
        let mount = scan
            .mounts
            .iter()
            .rev()
            .find(|mount| mount.mount_point == *path);
        let result = mount
            .ok_or_else(|| {
                "nothing is mounted there: name a mount point as 'hv-vssd plan' shows it".to_owned()
            })
            .and_then(|mount| {
                thaw(Target {
                    dev: mount.dev,
                    fstype: mount.fstype.clone(),
                    source: PathBuf::from(&mount.source),
                    place: path.clone(),
                    mounts: vec![(mount.id, mount.mount_point.clone())],
                })
            });
        Outcome {
            name: printable(path),
            result,
        }
    };
    Ok(paths.iter().map(outcome).collect())
}

/// Thaws every file system that a checkpoint would freeze, in reverse order.
///
/// # Errors
/// As [`by_ledger`].
pub fn all() -> Result<Vec<Outcome>, RecoveryError> {
    let plan = Plan::new(&scan()?, &Policy::default());
    let outcome = |target: Target| Outcome {
        name: target.to_string(),
        result: thaw(target),
    };
    Ok(plan
        .superblocks()
        .rev()
        .map(Target::from)
        .map(outcome)
        .collect())
}

/// In a thread: a dead device must not keep the others from being thawed, nor the agent from its start.
fn thaw(target: Target) -> Result<Thaw, String> {
    let (done, result) = mpsc::channel();
    thread::Builder::new()
        .name("thaw".to_owned())
        .spawn(move || drop(done.send(open_and_thaw(&target))))
        .map_err(|error| error.to_string())?;
    result.recv_timeout(THAW_PATIENCE).unwrap_or_else(|_| {
        Err(format!(
            "it does not return within {} s: its device may be stuck; the attempt goes on",
            THAW_PATIENCE.as_secs()
        ))
    })
}

fn open_and_thaw(target: &Target) -> Result<Thaw, String> {
    let handle = Handle::open(target).map_err(|error| with_causes(&error))?;
    match freeze::thaw(handle.as_fd()) {
        Ok(()) => Ok(Thaw::Thawed),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Thaw::NotFrozen),
        Err(error) => Err(error.to_string()),
    }
}

/// The ways to it now, those of other namespaces too.
fn ways(plan: &Plan, target: &Target) -> Vec<(u64, PathBuf)> {
    let frozen = plan.superblocks().map(Target::from);
    let left_out = plan.left_out.iter().map(Target::from);
    frozen
        .chain(left_out)
        .find(|found| found.dev == target.dev && found.fstype == target.fstype)
        .map(|found| found.mounts)
        .unwrap_or_default()
}
