//! Thawing what an earlier agent left frozen, by the ledger's record or by name.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hvutil_sys::freeze;

use super::error::with_causes;
use super::expedite::Expedite;
use super::handle::Handle;
use super::hold::STAGE_TIMEOUT;
use super::ledger::Record;
use super::protocol::{By, Call, End, Known, Mark, MarkCell, RescuePart, carry_out};
use super::target::Target;
use super::writers::{Freezer, Search, WriterRules, Writers, freezers};
use crate::config::Config;
use crate::filesystems::text::printable;
use crate::filesystems::{
    DeviceNumber, Located, LookupError, Plan, Policy, Scan, ScanError, locate, scan,
    scan_own_namespace,
};

/// The guardian of a dead agent thaws within this time, unless a device is stuck.
const GUARDIAN_TIMEOUT: Duration = Duration::from_secs(2);

/// A freeze that waits for a sleeping writer returns within this time, once that is interrupted.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the kernel tells of processes.
const PROC: &str = "/proc";

/// How often it is looked whether it has.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Attempts that have not returned: one for each file system, however often it is asked for.
static UNDER_WAY: Mutex<Vec<(DeviceNumber, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// How long the look-ups of all paths together may take: a healthy one takes microseconds, that on a dead server for ever.
pub const LOOK_UP_LIMIT: Duration = Duration::from_secs(3);

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
/// is left: for whoever holds the agent's lock, so that no agent can be alive.
///
/// A file system is found by its superblock, through whichever mount of it there is now, or through its device: first by our own mount table alone, and
/// only what cannot be opened so is looked for in other namespaces, whose tables are as long as others like. What a process of the dead agent's is still
/// doing is left to it.
///
/// # Errors
/// [`RecoveryError`]; a file system that cannot be thawed is an [`Outcome`], and does not stop the others.
pub fn by_ledger(path: &Path, remove: bool) -> Result<Vec<Outcome>, RecoveryError> {
    let record = Record::open(path);
    if remove && !matches!(record, Ok(None)) {
        end_hurry();
    }
    let record = match record {
        Ok(Some(record)) => Arc::new(record),
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
    let alone = remove && is_alone_in_time(&record);
    let known = Known {
        freezer: !alone,
        guardian: !alone,
        // Whoever holds the agent's lock is the only one of these.
        agent: !remove,
        start: !remove,
        failed_too: true,
    };
    let mut targets = Vec::new();
    let mut plan = None;
    for (index, entry) in record.entries.iter().enumerate().rev() {
        let cell = record.cell(index);
        if !cell.load().wants_thaw() {
            // What is not frozen yet never is.
            carry_out(RescuePart::new(By::Start, known), &cell, |_| Ok(()));
            continue;
        }
        let plan = plan.get_or_insert_with(|| plan_by(scan_own_namespace));
        let mut target = Target::from(entry.clone());
        target.mounts = ways(plan, &target);
        targets.push((index, target));
    }
    let thaw_these = |targets: Vec<(usize, Target)>| {
        thaw_each(targets.into_iter().map(|(index, target)| {
            let record = Arc::clone(&record);
            let thaw = move |target: &Target| rescue(target, &record, index, known);
            (target, thaw)
        }))
    };
    let mut outcomes = thaw_these(targets.clone());
    let has_failed = |index: usize| record.cell(index).load() == Mark::Failed;
    if targets.iter().any(|(index, _)| has_failed(*index)) {
        let plan = plan_by(scan);
        for ((index, target), outcome) in targets.into_iter().zip(&mut outcomes) {
            let mounts = ways(&plan, &target);
            if has_failed(index) && mounts != target.mounts {
                let again = thaw_these(vec![(index, Target { mounts, ..target })]);
                if let Some(again) = again.into_iter().next() {
                    *outcome = again;
                }
            }
        }
    }
    if remove && outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        let _ = std::fs::remove_file(path);
    }
    Ok(outcomes)
}

/// Where the mount table cannot be read, devices lead to file systems all the same.
fn plan_by(scan: impl Fn() -> Result<Scan, ScanError>) -> Plan {
    match scan() {
        Ok(scan) => Plan::new(&scan, &Policy::default()),
        Err(error) => {
            tracing::warn!(
                "thawing by device alone, since the mount table cannot be read: {}",
                with_causes(&error)
            );
            Plan::default()
        }
    }
}

fn is_alone_in_time(record: &Record) -> bool {
    let deadline = Instant::now() + GUARDIAN_TIMEOUT;
    loop {
        if record.is_alone() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Thaws one file system of the record, as far as that is nobody else's.
fn rescue(target: &Target, record: &Record, index: usize, known: Known) -> Result<Thaw, String> {
    let mut handle = None;
    let mut call = |call| {
        let handle = match handle.take() {
            Some(handle) => handle,
            None => Handle::open(target).map_err(|error| io::Error::other(with_causes(&error)))?,
        };
        match call {
            Call::Freeze => Err(io::ErrorKind::Unsupported.into()),
            Call::Thaw => freeze::thaw(handle.as_fd()),
        }
    };
    match carry_out(
        RescuePart::new(By::Start, known),
        &record.cell(index),
        &mut call,
    ) {
        (End::Thawed, _) => Ok(Thaw::Thawed),
        // Another process of the dead agent's was faster.
        (End::WasNotFrozen | End::Withdrawn, _) => Ok(Thaw::NotFrozen),
        (End::InCall | End::Taken | End::Frozen | End::NotFrozen, _) => {
            match in_progress(target.dev) {
                // It has returned meanwhile.
                Ok(()) if !record.cell(index).load().wants_thaw() => Ok(Thaw::NotFrozen),
                Ok(()) => Err(IN_CALL.to_owned()),
                Err(why) => Err(format!("{IN_CALL}: {why}")),
            }
        }
        (End::Failed, error) => Err(error.map_or_else(String::new, |error| error.to_string())),
    }
}

/// Waits for a freeze or thaw of this file system that somebody has begun, and interrupts those who hold it up. Why it does not return, if it
/// does not.
fn in_progress(dev: DeviceNumber) -> Result<(), String> {
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    // Who is to be left alone; without a configuration nobody.
    let rules = WriterRules::from(&Config::load(None).unwrap_or_default());
    let mut found = Vec::new();
    loop {
        let calls = freezers(Path::new(PROC));
        let Some(call) = calls.iter().find(|call| call.may_be_on(dev)) else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            let holders = found.iter().map(|holder| format!("; {holder}"));
            return Err(format!("{call}{}", holders.collect::<String>()));
        }
        let writers = Writers::gather(&Search::of(&[dev], rules.clone()));
        let outcomes = writers.interrupt(dev);
        found = outcomes.iter().map(ToString::to_string).collect();
        thread::sleep(POLL_INTERVAL);
    }
}

/// Said of what a process of the agent's is still doing.
const IN_CALL: &str =
    "a freeze or thaw of it has not returned yet, and it is thawed the moment that happens";

/// A checkpoint was cut short: in its freeze, the one moment in which the switch is on, for all that is known.
fn end_hurry() {
    if let Some(expedite) = Expedite::open() {
        expedite.set(false);
    }
}

/// What became of the file system that a path lies on.
#[derive(Debug)]
pub struct PathOutcome {
    /// As it was given.
    pub path: String,
    /// Of its file system, by its mount point; of the path itself, if that leads to none.
    pub outcome: Outcome,
    /// The path's look-up did not return in time, and the mount table alone named the file system.
    pub is_guess: bool,
}

/// Thaws the file systems that these paths lie on, each once; whoever froze them. See [`locate`].
///
/// # Errors
/// As [`by_ledger`].
pub fn by_paths(paths: &[PathBuf]) -> Result<Vec<PathOutcome>, RecoveryError> {
    let located = locate(paths, LOOK_UP_LIMIT)?;
    let mut each_once: Vec<&Located> = Vec::new();
    for found in located.iter().flatten() {
        if !each_once.iter().any(|known| known.dev == found.dev) {
            each_once.push(found);
        }
    }
    let thawed = thaw_all(each_once.iter().map(|found| Target {
        dev: found.dev,
        fstype: found.fstype.clone(),
        source: found.source.clone(),
        place: found.mount_point.clone(),
        mounts: vec![(found.id, found.mount_point.clone())],
    }));
    let result = |dev| {
        let mut all = each_once.iter().zip(&thawed);
        let of_it = all.find(|(found, _)| found.dev == dev);
        of_it.map_or_else(
            || Err("it was not tried".to_owned()),
            |(_, outcome)| outcome.result.clone(),
        )
    };
    let outcome = |(path, found): (&PathBuf, &Result<Located, LookupError>)| PathOutcome {
        path: printable(path),
        outcome: match found {
            Ok(found) => Outcome {
                name: printable(&found.mount_point),
                result: result(found.dev),
            },
            Err(error) => Outcome {
                name: printable(path),
                result: Err(with_causes(error)),
            },
        },
        is_guess: found.as_ref().is_ok_and(|found| found.is_guess),
    };
    Ok(paths.iter().zip(&located).map(outcome).collect())
}

/// Thaws every file system that a checkpoint would freeze, in reverse order: first those of our own mount table, then what only other
/// namespaces lead to.
///
/// # Errors
/// As [`by_ledger`].
pub fn all() -> Result<Vec<Outcome>, RecoveryError> {
    let targets = |scan: &Scan| -> Vec<Target> {
        let plan = Plan::new(scan, &Policy::default());
        plan.superblocks().rev().map(Target::from).collect()
    };
    let own = targets(&scan_own_namespace()?);
    let mut outcomes = thaw_all(own.iter().cloned());
    let every = match scan() {
        Ok(scan) => targets(&scan),
        Err(error) => {
            tracing::warn!(
                "what only other mount namespaces lead to is left out, since they cannot be read: {}",
                with_causes(&error)
            );
            return Ok(outcomes);
        }
    };
    for target in every {
        let tried = own.iter().zip(&mut outcomes);
        let mut tried = tried.filter(|(other, _)| other.dev == target.dev);
        match tried.next() {
            None => outcomes.extend(thaw_all(std::iter::once(target))),
            Some((other, outcome)) if outcome.result.is_err() && other.mounts != target.mounts => {
                if let Some(again) = thaw_all(std::iter::once(target)).into_iter().next() {
                    *outcome = again;
                }
            }
            Some(_) => {}
        }
    }
    Ok(outcomes)
}

/// Thaws these, whoever froze them.
fn thaw_all(targets: impl Iterator<Item = Target>) -> Vec<Outcome> {
    // Looked for once, however many are not frozen, and not at all if all are.
    let calls = Arc::new(OnceLock::new());
    thaw_each(targets.map(|target| {
        let calls = Arc::clone(&calls);
        (target, move |target: &Target| open_and_thaw(target, &calls))
    }))
}

/// Begins the thaws in this order, each in a thread: a dead device must not keep the others from being thawed, nor the
/// agent from its start.
fn thaw_each<F>(attempts: impl Iterator<Item = (Target, F)>) -> Vec<Outcome>
where
    F: FnOnce(&Target) -> Result<Thaw, String> + Send + 'static,
{
    let begun: Vec<_> = attempts
        .map(|(target, thaw)| (name(&target), begin(target, thaw)))
        .collect();
    let deadline = Instant::now() + STAGE_TIMEOUT;
    let outcome = |(name, attempt): (String, Result<mpsc::Receiver<_>, String>)| {
        Outcome {
        name,
        result: attempt.and_then(|result| {
            result
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .unwrap_or_else(|_| {
                    Err(format!(
                        "it does not return within {} s: its device may be stuck; the attempt goes on",
                        STAGE_TIMEOUT.as_secs()
                    ))
                })
        }),
    }
    };
    begun.into_iter().map(outcome).collect()
}

fn name(target: &Target) -> String {
    if target.place.as_os_str().is_empty() {
        printable(&target.source)
    } else {
        printable(&target.place)
    }
}

/// Begins one, unless an earlier one on the same file system has not returned.
fn begin<F>(target: Target, thaw: F) -> Result<mpsc::Receiver<Result<Thaw, String>>, String>
where
    F: FnOnce(&Target) -> Result<Thaw, String> + Send + 'static,
{
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    under_way.retain(|(_, thread)| !thread.is_finished());
    let dev = target.dev;
    if under_way.iter().any(|(other, _)| *other == dev) {
        return Err("an earlier attempt has not returned: its device may be stuck".to_owned());
    }
    let (done, result) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("thaw".to_owned())
        .spawn(move || drop(done.send(thaw(&target))))
        .map_err(|error| error.to_string())?;
    under_way.push((dev, thread));
    Ok(result)
}

fn open_and_thaw(target: &Target, calls: &OnceLock<Vec<Freezer>>) -> Result<Thaw, String> {
    let handle = Handle::open(target).map_err(|error| with_causes(&error))?;
    let thaw = || match freeze::thaw(handle.as_fd()) {
        Ok(()) => Ok(Thaw::Thawed),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Thaw::NotFrozen),
        Err(error) => Err(error.to_string()),
    };
    match thaw()? {
        Thaw::Thawed => Ok(Thaw::Thawed),
        // The kernel says so, too, of what is being frozen, and takes no writes already.
        Thaw::NotFrozen => {
            let calls = calls.get_or_init(|| freezers(Path::new(PROC)));
            if !calls.iter().any(|call| call.may_be_on(target.dev)) {
                return Ok(Thaw::NotFrozen);
            }
            match in_progress(target.dev) {
                Ok(()) => thaw(),
                Err(why) => Err(format!("a freeze of it has not returned yet: {why}")),
            }
        }
    }
}

/// The ways to it now, those of other namespaces too.
fn ways(plan: &Plan, target: &Target) -> Vec<(u64, PathBuf)> {
    let all = || {
        let frozen = plan.superblocks().map(Target::from);
        let left_out = plan.left_out.iter().map(Target::from);
        let all = frozen.chain(left_out);
        all.filter(|found| found.fstype == target.fstype)
    };
    // Where each btrfs subvolume has a number of its own, the one on record may have gone with its mount.
    let has_source = |found: &Target| {
        target.fstype == "btrfs" && target.dev.is_anonymous() && found.source == target.source
    };
    let by_number = all().find(|found| found.dev == target.dev);
    by_number
        .or_else(|| all().find(has_source))
        .map(|found| found.mounts)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystems::{Candidate, Superblock};

    #[test]
    fn a_btrfs_whose_number_went_with_its_mount_is_found_by_its_source() {
        let superblock = |minor: u32, source: &str| Superblock {
            dev: DeviceNumber::new(0, minor),
            fstype: "btrfs".to_owned(),
            source: source.into(),
            mounts: vec![Candidate {
                id: u64::from(minor),
                mount_point: format!("/m{minor}").into(),
                ..Candidate::default()
            }],
            served_by: None,
            stacked_on: Vec::new(),
            beneath_unknown: false,
        };
        let plan = Plan {
            stages: vec![vec![
                superblock(41, "/dev/sda2"),
                superblock(42, "/dev/sdb"),
            ]],
            ..Plan::default()
        };
        let found = |minor: u32, source: &str, fstype: &str| {
            let target = Target {
                dev: DeviceNumber::new(0, minor),
                fstype: fstype.to_owned(),
                source: source.into(),
                ..Target::default()
            };
            ways(&plan, &target).first().map(|(id, _)| *id)
        };
        assert_eq!(found(42, "/dev/other", "btrfs"), Some(42), "by number");
        assert_eq!(found(40, "/dev/sda2", "btrfs"), Some(41), "by source");
        assert_eq!(
            found(42, "/dev/sda2", "btrfs"),
            Some(42),
            "the number goes first"
        );
        assert_eq!(found(40, "/dev/sdc", "btrfs"), None);
        assert_eq!(found(40, "/dev/sda2", "bcachefs"), None);
    }
}
