//! The phases of a checkpoint, and when each was.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::millis;

/// When something began, counted from the request, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// From the request to its begin.
    #[serde(rename = "start_ms", with = "millis")]
    pub start: Duration,
    /// From its begin to its end.
    #[serde(rename = "duration_ms", with = "millis")]
    pub duration: Duration,
}

impl Span {
    /// From the request to its end.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.start + self.duration
    }
}

/// A part of every checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseName {
    /// Plan made, all handles open.
    Prepare,
    /// Applications made ready.
    Hooks,
    /// Data written back before the first commit.
    WriteBack,
    /// One pass of `syncfs` on everything.
    Flush,
    /// From the first `FIFREEZE` to the last one's return.
    Freeze,
    /// From the last freeze to the first thaw.
    Hold,
    /// From the first thaw to the last one's return.
    Thaw,
}

impl PhaseName {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Prepare,
        Self::Hooks,
        Self::WriteBack,
        Self::Flush,
        Self::Freeze,
        Self::Hold,
        Self::Thaw,
    ];

    /// The word for it, as in the JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Hooks => "hooks",
            Self::WriteBack => "write-back",
            Self::Flush => "flush",
            Self::Freeze => "freeze",
            Self::Hold => "hold",
            Self::Thaw => "thaw",
        }
    }
}

/// A phase that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Which.
    pub phase: PhaseName,
    /// When.
    #[serde(flatten)]
    pub span: Span,
}
