//! `hv-vssd hook-exec`: between the agent and a hook that it starts directly; not for a person.

use std::path::PathBuf;

use super::CommandResult;
use crate::hooks;

/// Becomes a hook, without what the agent has and a hook must not; started by the agent itself
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The hook
    path: PathBuf,
    /// What it is called with: freeze or thaw
    operation: String,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    let error = hooks::exec(&arguments.path, &arguments.operation);
    Err(format!("{} cannot be executed: {error}", arguments.path.display()).into())
}
