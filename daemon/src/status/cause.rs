//! Why checkpoints fail, in few words that stay the same: for counters and the journal.

use serde::{Deserialize, Serialize};

use crate::quiesce::FreezeError;

/// Why a checkpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The file systems could not be listed or opened, or the mount table did not come to rest.
    Mounts,
    /// A file system could not be frozen or flushed: its device, or a limit.
    FileSystem,
    /// A file system is still stuck or frozen after an earlier checkpoint.
    LeftOver,
    /// Someone else had frozen a file system.
    Foreign,
    /// A file system cannot be frozen, and the configuration is strict.
    Strictness,
    /// An application could not be made ready.
    Hook,
    /// No guardian, no ledger, no thread.
    Safety,
    /// The freeze was given up: its limit, a lost channel, a stop, a person.
    GivenUp,
    /// The hold ended before the host asked: its limit, a lost channel, a stop, a person.
    EndedEarly,
    /// A file system could not be thawed, or was thawed by someone else.
    Thaw,
    /// A defect.
    Defect,
}

impl Cause {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 11] = [
        Self::Mounts,
        Self::FileSystem,
        Self::LeftOver,
        Self::Foreign,
        Self::Strictness,
        Self::Hook,
        Self::Safety,
        Self::GivenUp,
        Self::EndedEarly,
        Self::Thaw,
        Self::Defect,
    ];

    /// The word for it: that of the JSON, of the metrics and of the journal.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Mounts => "mounts",
            Self::FileSystem => "file-system",
            Self::LeftOver => "left-over",
            Self::Foreign => "foreign",
            Self::Strictness => "strictness",
            Self::Hook => "hook",
            Self::Safety => "safety",
            Self::GivenUp => "given-up",
            Self::EndedEarly => "ended-early",
            Self::Thaw => "thaw",
            Self::Defect => "defect",
        }
    }
}

impl From<&FreezeError> for Cause {
    fn from(error: &FreezeError) -> Self {
        use FreezeError as E;
        match error {
            E::Scan(_)
            | E::Open(_)
            | E::NotPlanned(_)
            | E::Appearing(_)
            | E::OpenLimit(_)
            | E::StillOpening
            | E::Unsettled(_) => Self::Mounts,
            E::FlushLimit(..)
            | E::AtWork(..)
            | E::Freeze(..)
            | E::FreezeLimit(..)
            | E::Flush(..) => Self::FileSystem,
            E::Stuck(..) | E::StillFrozen(_) | E::LeftOver(_) => Self::LeftOver,
            E::Foreign(_) => Self::Foreign,
            E::Gap(_) | E::Unseen(_) => Self::Strictness,
            E::Hook(_) => Self::Hook,
            E::Guardian(_) | E::Ledger(_) | E::Threads(_) | E::GuardianActed => Self::Safety,
            E::Aborted => Self::GivenUp,
            E::Held | E::Defect => Self::Defect,
        }
    }
}
