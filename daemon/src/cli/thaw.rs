//! `hv-vssd thaw`: let go of what was left frozen.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::CommandResult;
use crate::agent::single::{self, Single};
use crate::config::Config;
use crate::confine;
use crate::hooks::{self, Applications, Hooks};
use crate::quiesce::ledger;
use crate::quiesce::recovery::{self, Outcome, Thaw};

/// Thaw what was left frozen, and say what was done for each
///
/// Without arguments: what the service has on record as frozen and could not thaw; and if it does not run, hooks that it
/// has called with 'freeze' are called with 'thaw'. Thawing in a checkpoint makes the host's backup fail, as it must. Needs root. Exit status 1 if anything could not be thawed.
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
    let single = Single::acquire(Path::new(single::DEFAULT_PATH));
    let outcomes = if arguments.all {
        recovery::all()?
    } else if arguments.paths.is_empty() {
        // A living agent's record stays: it has to say itself that its hold was broken.
        recovery::by_ledger(Path::new(ledger::DEFAULT_PATH), single.is_ok())?
    } else {
        recovery::by_paths(&arguments.paths)?
    };
    // A living agent calls its hooks itself.
    let runs = if single.is_ok() && arguments.paths.is_empty() {
        let settings = Config::load(None).unwrap_or_default().hooks;
        Hooks::new(&settings)
            .recovering()
            .thaw(hooks::Outcome::Failure)
    } else {
        Vec::new()
    };
    let mut output = io::stdout().lock();
    if runs.is_empty() && outcomes.is_empty() {
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
    for run in &runs {
        match &run.failure {
            None => writeln!(output, "hook {}: called with 'thaw'", run.name)?,
            Some(error) => writeln!(output, "hook {}: FAILED with 'thaw': {error}", run.name)?,
        }
        for line in run.output.lines() {
            writeln!(output, "    {line}")?;
        }
    }
    if outcomes.iter().any(|outcome| outcome.result.is_err()) {
        return Err("not everything could be thawed".into());
    }
    if runs.iter().any(|run| run.failure.is_some()) {
        return Err("not every hook has let its application go on".into());
    }
    Ok(())
}
