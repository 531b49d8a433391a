//! `hv-vssd thaw`: let go of what was left frozen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::{CommandResult, print};
use crate::agent::single::{self, Single};
use crate::config::Config;
use crate::confine;
use crate::control::{self, Client, ClientError, Request, Thawed};
use crate::hooks::{self, Applications, Hooks, Run};
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
    /// Print JSON for a program
    #[arg(long)]
    json: bool,
}

/// `--json`.
#[derive(Serialize)]
struct Shown<'a> {
    file_systems: Vec<ThawedShown<'a>>,
    hooks: Vec<HookShown<'a>>,
}

#[derive(Serialize)]
struct ThawedShown<'a> {
    name: &'a str,
    /// `thawed`, `not-frozen` or `failed`.
    result: &'static str,
    error: Option<String>,
}

#[derive(Serialize)]
struct HookShown<'a> {
    name: &'a str,
    failure: Option<String>,
    /// Its lines.
    output: Vec<String>,
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
    if arguments.json {
        print::json(&shown(&outcomes, &runs))?;
    } else {
        print::text(&text(&outcomes, &runs))?;
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

fn text(outcomes: &[Outcome], runs: &[Run]) -> String {
    let mut text = String::new();
    if runs.is_empty() && outcomes.is_empty() {
        text.push_str(
            "nothing is on record as left frozen; name mount points, or use --all, to thaw what someone else froze\n",
        );
    }
    for Outcome { name, result } in outcomes {
        text += &match result {
            Ok(Thaw::Thawed) => format!("{name}: thawed\n"),
            Ok(Thaw::NotFrozen) => format!("{name}: was not frozen\n"),
            Err(error) => format!("{name}: NOT THAWED: {error}\n"),
        };
    }
    for run in runs {
        text += &match &run.failure {
            None => format!("hook {}: called with 'thaw'\n", run.name),
            Some(error) => format!("hook {}: FAILED with 'thaw': {error}\n", run.name),
        };
        for line in run.output.lines() {
            text += &format!("    {line}\n");
        }
    }
    text
}

fn shown<'a>(outcomes: &'a [Outcome], runs: &'a [Run]) -> Shown<'a> {
    let file_system = |outcome: &'a Outcome| ThawedShown {
        name: &outcome.name,
        result: match outcome.result {
            Ok(Thaw::Thawed) => "thawed",
            Ok(Thaw::NotFrozen) => "not-frozen",
            Err(_) => "failed",
        },
        error: outcome.result.as_ref().err().map(ToString::to_string),
    };
    let hook = |run: &'a Run| HookShown {
        name: &run.name,
        failure: run.failure.as_ref().map(ToString::to_string),
        output: run.output.lines().collect(),
    };
    Shown {
        file_systems: outcomes.iter().map(file_system).collect(),
        hooks: runs.iter().map(hook).collect(),
    }
}
