//! The calls of hooks in a checkpoint.

use serde::{Deserialize, Serialize};

use super::phases::Span;

/// One call of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReport {
    /// Its file name.
    pub name: String,
    /// What it was called with.
    pub operation: HookOperation,
    /// When.
    #[serde(flatten)]
    pub span: Span,
    /// Why it counts as failed, in one sentence.
    pub failure: Option<String>,
}

/// What a hook is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookOperation {
    /// Before the freeze.
    Freeze,
    /// After the thaw.
    Thaw,
}
