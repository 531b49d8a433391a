//! `hv-vssd thaw`: let go of what was left frozen.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::CommandResult;
use crate::agent::single::{self, Single};
use crate::confine;
use crate::quiesce::ledger;
use crate::quiesce::recovery::{self, Outcome, Thaw};

/// Thaw what was left frozen, and say what was done for each
///
/// Without arguments: what the service has on record as frozen and could not thaw. Thawing in a checkpoint makes the
/// host's backup fail, as it must. Needs root. Exit status 1 if anything could not be thawed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Mount points to thaw, whoever froze them
    #[arg(value_name = "MOUNT POINT", conflicts_with = "all")]
    paths: Vec<PathBuf>,
    /// Thaw every file system that a checkpoint would freeze, whoever froze it
    #[arg(long)]
    all: bool,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    confine::require_capabilities()?;
    let outcomes = if arguments.all {
        recovery::all()?
    } else if arguments.paths.is_empty() {
        // A living agent's record stays: it has to say itself that its hold was broken.
        let single = Single::acquire(Path::new(single::DEFAULT_PATH));
        recovery::by_ledger(Path::new(ledger::DEFAULT_PATH), single.is_ok())?
    } else {
        recovery::by_paths(&arguments.paths)?
    };
    let mut output = io::stdout().lock();
    if outcomes.is_empty() {
        writeln!(
            output,
            "nothing is on record as left frozen; name mount points, or use --all, to thaw what someone else froze"
        )?;
    }
    for Outcome { name, result } in &outcomes {
        match result {
            Ok(Thaw::Thawed) => writeln!(output, "{name}: thawed")?,
            Ok(Thaw::NotFrozen) => writeln!(output, "{name}: was not frozen")?,
            Err(error) => writeln!(output, "{name}: NOT THAWED: {error}")?,
        }
    }
    if outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        Ok(())
    } else {
        Err("not everything could be thawed".into())
    }
}
