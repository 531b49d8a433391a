//! `hv-vssd thaw`: let go of what was left frozen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::{CommandResult, print};
use crate::agent::single::{self, Single, SingleError};
use crate::check::Halted;
use crate::config::Config;
use crate::confine;
use crate::control::{self, Client, ClientError, Request, Thawed};
use crate::hooks::{self, Applications, Hooks, Run};
use crate::quiesce::ledger;
use crate::quiesce::recovery::{self, LOOK_UP_LIMIT, Outcome, PathOutcome, Thaw};

/// An agent that is not stopped thaws in milliseconds. One that is, or waits for a stuck disk, is done without.
const PATIENCE: Duration = Duration::from_secs(5);

/// Thaw what was left frozen, and say what was done for each
///
/// Without arguments: what a running agent holds, which it then thaws itself, and what is on record as frozen and was
/// not thawed; and if no agent runs, hooks that it has called with 'freeze' are called with 'thaw'. Thawing in a
/// checkpoint makes the host's backup fail, as it must. Needs root. Exit status 1 if anything could not be thawed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Thaw the file systems that these paths lie on, whoever froze them: mount points, files, block devices
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
    /// The path that was given, if one was.
    path: Option<&'a str>,
    /// The mount point.
    name: &'a str,
    /// `thawed`, `not-frozen` or `failed`.
    result: &'static str,
    error: Option<String>,
    /// The path's look-up did not return, so that the mount table alone named the file system.
    is_guess: bool,
}

/// One line of the output.
struct Row {
    path: Option<String>,
    outcome: Outcome,
    is_guess: bool,
}

impl From<Outcome> for Row {
    fn from(outcome: Outcome) -> Self {
        Self {
            path: None,
            outcome,
            is_guess: false,
        }
    }
}

impl From<PathOutcome> for Row {
    fn from(found: PathOutcome) -> Self {
        Self {
            path: Some(found.path),
            outcome: found.outcome,
            is_guess: found.is_guess,
        }
    }
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
    confine::raise_open_files();
    let mut rows: Vec<Row> = Vec::new();
    if !arguments.all && arguments.paths.is_empty() {
        let held = by_agent(Path::new(control::DEFAULT_PATH));
        rows.extend(held.into_iter().map(Row::from));
    }
    let path = Path::new(single::DEFAULT_PATH);
    let single = Single::acquire(path)
        .map(Some)
        .or_else(|error| match error {
            // Where nothing can be written no agent need be running.
            SingleError::Lock { .. } => Single::acquire_existing(path),
            running => Err(running),
        });
    if arguments.all {
        rows.extend(recovery::all()?.into_iter().map(Row::from));
    } else if arguments.paths.is_empty() {
        // A living agent's record stays: it has to say itself that its hold was broken.
        let left = recovery::by_ledger(Path::new(ledger::DEFAULT_PATH), single.is_ok())?;
        rows.extend(left.into_iter().map(Row::from));
    } else {
        let thawed = recovery::by_paths(&arguments.paths)?;
        rows.extend(thawed.into_iter().map(Row::from));
    }
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
        print::json(&shown(&rows, &runs))?;
    } else {
        print::text(&text(&rows, &runs))?;
    }
    if rows.iter().any(|row| row.outcome.result.is_err()) {
        return Err("not everything could be thawed".into());
    }
    if runs.iter().any(|run| run.failure.is_some()) {
        return Err("not every hook has let its application go on".into());
    }
    Ok(())
}

/// What a running agent held. One that does not answer is done without: its ledger tells what it has frozen.
fn by_agent(socket: &Path) -> Vec<Outcome> {
    if let Some(halted) = Halted::agent() {
        let remedy = halted.remedy();
        eprintln!("hv-vssd: {halted}; thawing without it ('{remedy}' lets it go on)");
        return Vec::new();
    }
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

fn text(rows: &[Row], runs: &[Run]) -> String {
    let mut text = String::new();
    if runs.is_empty() && rows.is_empty() {
        text.push_str(
            "nothing is on record as left frozen; name mount points, or use --all, to thaw what someone else froze\n",
        );
    }
    for row in rows {
        let Outcome { name, result } = &row.outcome;
        // The mount point too, where another path was given: it says what was thawed.
        match row.path.as_ref().filter(|path| *path != name) {
            Some(path) => text += &format!("{path} (on {name})"),
            None => text += name,
        }
        text += &match result {
            Ok(Thaw::Thawed) => ": thawed\n".to_owned(),
            Ok(Thaw::NotFrozen) => ": was not frozen\n".to_owned(),
            Err(error) => format!(": NOT THAWED: {error}\n"),
        };
        if row.is_guess {
            text += &format!(
                "    its look-up did not return within {} s, so this is by the mount table alone; name the mount point if it is another one ('hv-vssd plan --all')\n",
                LOOK_UP_LIMIT.as_secs()
            );
        }
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

fn shown<'a>(rows: &'a [Row], runs: &'a [Run]) -> Shown<'a> {
    let file_system = |row: &'a Row| ThawedShown {
        path: row.path.as_deref(),
        name: &row.outcome.name,
        result: match row.outcome.result {
            Ok(Thaw::Thawed) => "thawed",
            Ok(Thaw::NotFrozen) => "not-frozen",
            Err(_) => "failed",
        },
        error: row.outcome.result.as_ref().err().map(ToString::to_string),
        is_guess: row.is_guess,
    };
    let hook = |run: &'a Run| HookShown {
        name: &run.name,
        failure: run.failure.as_ref().map(ToString::to_string),
        output: run.output.lines().collect(),
    };
    Shown {
        file_systems: rows.iter().map(file_system).collect(),
        hooks: runs.iter().map(hook).collect(),
    }
}
