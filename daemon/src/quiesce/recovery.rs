//! Thawing what an earlier agent left frozen, by the ledger's record or by name.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use hvutil_sys::freeze;

use super::error::with_causes;
use super::expedite::Expedite;
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
    let record = ledger::read(path);
    if remove && !matches!(record, Ok(None)) {
        end_hurry();
    }
    let entries = match record {
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
    let wanted = entries
        .into_iter()
        .rev()
        .filter(|entry| entry.mark.wants_thaw());
    let targets = wanted.map(|entry| {
        let mut target = Target::from(entry);
        target.mounts = ways(&plan, &target);
        target
    });
    outcomes.extend(thaw_all(targets));
    if remove && outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        let _ = std::fs::remove_file(path);
    }
    Ok(outcomes)
}

/// A checkpoint was cut short: in its freeze, the one moment in which the switch is on, for all that is known.
fn end_hurry() {
    if let Some(expedite) = Expedite::open() {
        expedite.set(false);
    }
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
            .find(|mount| mount.mount_point == path);
        match mount {
            Some(mount) => thaw_all(std::iter::once(Target {
                dev: mount.dev,
                fstype: mount.fstype.to_owned(),
                source: PathBuf::from(mount.source),
                place: path.clone(),
                mounts: vec![(mount.id, mount.mount_point.to_owned())],
            })),
            None => vec![Outcome {
                name: printable(path),
                result: Err(
                    "nothing is mounted there: name a mount point as 'hv-vssd plan' shows it"
                        .to_owned(),
                ),
            }],
        }
    };
    Ok(paths.iter().flat_map(outcome).collect())
}

/// Thaws every file system that a checkpoint would freeze, in reverse order.
///
/// # Errors
/// As [`by_ledger`].
pub fn all() -> Result<Vec<Outcome>, RecoveryError> {
    let plan = Plan::new(&scan()?, &Policy::default());
    Ok(thaw_all(plan.superblocks().rev().map(Target::from)))
}

/// Begins the thaws in this order, each in a thread: a dead device must not keep the others from being thawed, nor the
/// agent from its start.
fn thaw_all(targets: impl Iterator<Item = Target>) -> Vec<Outcome> {
    let started: Vec<_> = targets
        .map(|target| {
            let name = if target.place.as_os_str().is_empty() {
                printable(&target.source)
            } else {
                printable(&target.place)
            };
            let (done, result) = mpsc::channel();
            let thread = thread::Builder::new().name("thaw".to_owned());
            let thread = thread.spawn(move || drop(done.send(open_and_thaw(&target))));
            (name, thread.map(|_| result))
        })
        .collect();
    let deadline = Instant::now() + THAW_PATIENCE;
    let outcome = |(name, thread): (String, io::Result<mpsc::Receiver<_>>)| {
        Outcome {
        name,
        result: match thread {
            Ok(result) => result
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .unwrap_or_else(|_| {
                    Err(format!(
                        "it does not return within {} s: its device may be stuck; the attempt goes on",
                        THAW_PATIENCE.as_secs()
                    ))
                }),
            Err(error) => Err(error.to_string()),
        },
    }
    };
    started.into_iter().map(outcome).collect()
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
