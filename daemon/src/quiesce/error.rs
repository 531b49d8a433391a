//! Why file systems could not be frozen, one sentence each for the operator.

use std::io;
use std::time::Duration;

use super::guardian::GuardianError;
use super::handle::HandleError;
use super::recovery::RecoveryError;
use crate::filesystems::{DeviceNumber, ScanError};
use crate::hooks::HookError;

/// Why a freeze failed. Whatever it had frozen is thawed by then, but for what [`FreezeError::Stuck`] names.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The mount table or what lies beneath it cannot be read.
    #[error("the file systems of this machine cannot be listed")]
    Scan(#[from] ScanError),
    /// A file system of the plan cannot be opened.
    #[error("a file system cannot be reached, so that the image would miss it")]
    Open(#[from] HandleError),
    /// An application cannot be brought to rest.
    #[error("an application cannot be made consistent, so nothing is frozen")]
    Hook(#[from] HookError),
    /// A person named it, and a checkpoint leaves it out.
    #[error(
        "the file system {0} is not frozen in a checkpoint: see 'hv-vssd plan --all' for the reason"
    )]
    NotPlanned(DeviceNumber),
    /// Nobody would thaw, should this process die.
    #[error("no guardian watches over a freeze, so none is begun")]
    Guardian(#[from] GuardianError),
    /// The record for whoever has to thaw cannot be written.
    #[error("the ledger cannot be written, so nothing is frozen")]
    Ledger(#[source] io::Error),
    /// File systems keep appearing while the freeze is under way.
    #[error(
        "file systems kept being mounted while the others were frozen, or mount tables kept changing that are too long to be read then: given up after {0} attempts"
    )]
    Appearing(u32),
    /// No threads to freeze with.
    #[error("no threads can be started to freeze with")]
    Threads(#[source] io::Error),
    /// Write-back takes longer than the flush limit.
    #[error("{0} still writes back after {secs} s: nothing was frozen", secs = .1.as_secs())]
    FlushLimit(String, Duration),
    /// Nobody accepts that it would only be flushed, or less.
    #[error(
        "{0} is local and cannot be frozen, which strictness = \"strict\" does not accept: see 'hv-vssd plan' for the reason, unmount or exclude it, or set strictness = \"normal\""
    )]
    Gap(String),
    /// Something could not be looked at, and the configuration accepts nothing unseen.
    #[error(
        "{0}, which strictness = \"strict\" does not accept, since a file system mounted only there would be missed: see 'hv-vssd check', or set strictness = \"normal\""
    )]
    Unseen(String),
    /// Frozen already, and not by us.
    #[error(
        "{0} is frozen already by someone else (an administrator, a snapshot): thaw it with 'fsfreeze -u', or wait for the snapshot to end"
    )]
    Foreign(String),
    /// An operation holds write access as long as it lasts.
    #[error(
        "{0} is busy with an operation of its own ({1}), for whose end a freeze and all writers would wait: nothing was frozen; cancel or pause it, or take the backup when it is done"
    )]
    AtWork(String, String),
    /// `FIFREEZE` failed.
    #[error("{0} cannot be frozen")]
    Freeze(String, #[source] io::Error),
    /// `FIFREEZE` takes longer than the freeze limit.
    #[error("{0} was not frozen within {secs} s: {2}", secs = .1.as_secs())]
    FreezeLimit(String, Duration, String),
    /// A freeze, thaw or flush of an earlier checkpoint has not returned.
    #[error(
        "{0} is stuck in a freeze of an earlier checkpoint, and is thawed the moment that returns: no freeze until then; {1}"
    )]
    Stuck(String, String),
    /// The thaw of an earlier checkpoint failed, also when tried again.
    #[error(
        "{0} could not be thawed after an earlier checkpoint, also not now: no freeze until it is"
    )]
    StillFrozen(String),
    /// The guardian has thawed meanwhile.
    #[error(
        "the guardian thawed before the freeze was complete: this process must have been stopped for a while"
    )]
    GuardianActed,
    /// The record of an earlier agent cannot be used.
    #[error("what an earlier agent left frozen cannot be found out")]
    LeftOver(#[source] RecoveryError),
    /// Data could not be written back.
    #[error("{0} could not be flushed, so that the image would miss data")]
    Flush(String, #[source] io::Error),
    /// The file systems could not be opened in time.
    #[error("the file systems could not be listed and opened within {secs} s: something that this waits for is stuck", secs = .0.as_secs())]
    OpenLimit(Duration),
    /// The opening of an earlier attempt has not returned.
    #[error("an earlier attempt still waits for a file system to open: no freeze until it returns")]
    StillOpening,
    /// The mount table changes faster than it can be read.
    #[error(
        "the mount table kept changing while the file systems were opened: given up after {0} attempts"
    )]
    Unsettled(u32),
    /// A hold is there already.
    #[error("the file systems are held already")]
    Held,
    /// A thread died of a defect, which the log has told.
    #[error("an internal error, told in the log just before: please report it")]
    Defect,
    /// The session gave up.
    #[error("the freeze was given up on request")]
    Aborted,
}

/// One file system that could not be thawed as it should.
#[derive(Debug, thiserror::Error)]
pub enum ThawError {
    /// Someone else thawed it during the hold: the image may not be consistent.
    #[error("{0} was thawed by someone else during the hold: the image is not consistent")]
    Foreign(String),
    /// The guardian thaws it, or has.
    #[error(
        "{0} was thawed by the guardian, since this process was stopped or late: the image is not consistent"
    )]
    Guardian(String),
    /// A thread could not be started in place of one that is stuck.
    #[error("no thread can be started for the rest of the thaw, which takes longer without it")]
    Thread(#[source] io::Error),
    /// `FITHAW` failed.
    #[error("{0} cannot be thawed; try 'fsfreeze -u' on its mount point")]
    Thaw(String, #[source] io::Error),
    /// `FITHAW` does not return; its thread goes on.
    #[error("{0} does not thaw within {secs} s: its device may be stuck; the attempt goes on", secs = .1.as_secs())]
    Stuck(String, Duration),
}

/// An error and its causes on one line.
#[must_use]
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
