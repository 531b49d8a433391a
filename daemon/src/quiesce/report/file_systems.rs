//! Each file system's share in a checkpoint, and what became of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::millis;
use super::phases::Span;
use crate::filesystems::DeviceNumber;
use crate::quiesce::target::Target;

/// One file system's share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemReport {
    /// Where an operator knows it to be mounted; empty when nowhere.
    pub mount_point: String,
    /// Its type, such as `ext4`.
    pub fstype: String,
    /// The superblock's identity.
    pub dev: DeviceNumber,
    /// Its source, such as `/dev/sda1`.
    pub source: String,
    /// The stage it was to be frozen in, from 1 on; `None` when it was only to be flushed.
    pub stage: Option<usize>,
    /// What became of it.
    pub result: FileSystemResult,
    /// Its `syncfs` in the last flush pass.
    pub flush: Option<Span>,
    /// `FIFREEZE`.
    pub freeze: Option<Span>,
    /// `FITHAW`.
    pub thaw: Option<Span>,
    /// Its device was still suspended by the device mapper after the thaw: held by us to the end, and by it since; writes wait for `dmsetup resume`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// Why it was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long a write could have had to wait for freeze and thaw: from the call of `FIFREEZE` to the return of `FITHAW`, without the hold.
    /// What the flush costs writers is not seen from here.
    #[serde(rename = "stall_ms", with = "millis::option")]
    pub stall: Option<Duration>,
}

/// What became of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystemResult {
    /// Frozen, and thawed again.
    Frozen,
    /// Only flushed: it cannot be frozen, or is not to be.
    FlushedOnly,
    /// Neither frozen nor flushed: its line says why.
    LeftOut,
    /// Frozen by someone else, and left to them.
    Foreign,
    /// Not reached, or its freeze failed.
    #[default]
    NotFrozen,
    /// A call has not returned: its thread goes on.
    Stuck,
    /// Its thaw failed.
    StillFrozen,
}

/// The longest stall of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstStall {
    /// Of which file system: its mount point.
    pub mount_point: String,
    /// Its identity.
    pub dev: DeviceNumber,
    /// How long.
    #[serde(rename = "stall_ms", with = "millis")]
    pub stall: Duration,
}

impl FileSystemReport {
    /// Which it is, and nothing done to it.
    pub(in crate::quiesce) fn of(target: &Target) -> Self {
        Self {
            mount_point: target.place.to_string_lossy().into_owned(),
            fstype: target.fstype.clone(),
            dev: target.dev,
            source: target.source.to_string_lossy().into_owned(),
            ..Self::default()
        }
    }

    /// It could not be thawed, or nobody knows.
    #[must_use]
    pub fn is_left_frozen(&self) -> bool {
        use FileSystemResult::{StillFrozen, Stuck};
        matches!(self.result, StillFrozen | Stuck)
    }

    pub(super) fn went_wrong(&self) -> bool {
        use FileSystemResult::{Foreign, LeftOut, NotFrozen, StillFrozen, Stuck};
        matches!(
            self.result,
            LeftOut | Foreign | NotFrozen | Stuck | StillFrozen
        )
    }
}
