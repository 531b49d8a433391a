//! `hv-vssd thaw`: let go of what was left frozen.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CommandResult;
use crate::agent::single::{self, Single};
use crate::config::Config;
use crate::confine;
use crate::control::{self, Client, ClientError, Request, Thawed};
use crate::hooks::{self, Applications, Hooks};
use crate::quiesce::ledger;
use crate::quiesce::recovery::{self, Outcome, Thaw};

/// An agent that is not stopped thaws in milliseconds. One that is, or waits for a stuck disk, is done without.
const PATIENCE: Duration = Duration::from_secs(5);

/// Thaw what was left frozen, and say what was done for each
///
/// Without arguments: what a running agent holds, which it then thaws itself, and what is on record as frozen and was
/// not thawed; and if no agent runs, hooks that it has called with 'freeze' are called with 'thaw'. Thawing in a
/// checkpoint makes the host's backup fail, as it must. Needs root. Exit status 1 if anything could not be thawed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Mount points to thaw, whoever froze them
    #[arg(value_name = "PATH", conflicts_with = "all")]
    paths: Vec<PathBuf>,
    /// Thaw every file system that a checkpoint would freeze, whoever froze it
    #[arg(long)]
    all: bool,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    confine::require_capabilities()?;
    let mut outcomes = Vec::new();
    if !arguments.all && arguments.paths.is_empty() {
        outcomes.extend(by_agent(Path::new(control::DEFAULT_PATH)));
    }
    let single = Single::acquire(Path::new(single::DEFAULT_PATH));
    let left = if arguments.all {
        recovery::all()?
    } else if arguments.paths.is_empty() {
        // A living agent's record stays: it has to say itself that its hold was broken.
        recovery::by_ledger(Path::new(ledger::DEFAULT_PATH), single.is_ok())?
    } else {
        recovery::by_paths(&arguments.paths)?
    };
    outcomes.extend(left);
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

/// What a running agent held. One that does not answer is done without: its ledger tells what it has frozen.
fn by_agent(socket: &Path) -> Vec<Outcome> {
    let asked = Client::connect(socket).and_then(|mut agent| {
        let _ = agent.set_patience(Some(PATIENCE));
        agent.ask::<Thawed>(&Request::Thaw)
    });
    match asked {
        Ok(thawed) => {
            let outcome = |name| Outcome {
                name,
                result: Ok(Thaw::Thawed),
            };
            thawed.thawed.into_iter().map(outcome).collect()
        }
        Err(ClientError::NotRunning) => Vec::new(),
        Err(error) => {
            eprintln!("hv-vssd: {error}; thawing without it");
            Vec::new()
        }
    }
}
