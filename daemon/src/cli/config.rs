//! `hv-vssd config`: what is configured, where, and whether it is right.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::{CommandResult, ConfigArguments, print};
use crate::config::{ConfigError, Loaded, Problem, Sources};

/// Show what is configured and where, or check it
///
/// Without --check: every key in TOML, with its value and a comment behind it that says where it is set, as FILE:LINE, or
/// that it is at its default.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Show the values in force; this is what it does without an option, too
    #[arg(long, conflicts_with = "check")]
    show: bool,
    /// Only say what is wrong, all of it; exit status 2 if anything is
    #[arg(long)]
    check: bool,
    /// Print JSON for a program
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

/// `--check --json`.
#[derive(Serialize)]
struct Checked<'a> {
    valid: bool,
    files: &'a [PathBuf],
    ignored: &'a [PathBuf],
    problems: &'a [Problem],
}

/// `--json`.
#[derive(Serialize)]
struct Shown<'a> {
    files: &'a [PathBuf],
    ignored: &'a [PathBuf],
    settings: Vec<crate::config::Setting<'a>>,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    let sources = Sources::new(arguments.config.config.as_deref());
    match (Loaded::read(&sources), arguments.check) {
        (Ok(loaded), true) => valid(&sources, &loaded, arguments.json),
        (Err(error), true) => invalid(error, arguments.json),
        (loaded, false) => show(&loaded?, arguments.json),
    }
}

fn valid(sources: &Sources, loaded: &Loaded, json: bool) -> CommandResult {
    if json {
        return print::json(&Checked {
            valid: true,
            files: &loaded.files,
            ignored: &loaded.ignored,
            problems: &[],
        });
    }
    let mut text = String::new();
    for file in &loaded.ignored {
        text += &format!("{}: not read, because it is no *.toml\n", file.display());
    }
    for file in &loaded.files {
        text += &format!("{}: valid\n", file.display());
    }
    if loaded.files.is_empty() {
        text += &format!(
            "{} does not exist, and there are no drop-ins in {}: every key is at its default\n",
            sources.file.display(),
            sources.directory().display()
        );
    }
    print::text(&text)
}

/// All problems but the last are told here, the last by whoever tells errors.
fn invalid(mut error: ConfigError, json: bool) -> CommandResult {
    if json {
        print::json(&Checked {
            valid: false,
            files: &[],
            ignored: &[],
            problems: &error.problems,
        })?;
        return Err(error.into());
    }
    let last = error.problems.split_off(error.problems.len() - 1);
    let mut output = io::stderr().lock();
    for problem in &error.problems {
        writeln!(output, "hv-vssd: {problem}")?;
    }
    Err(ConfigError { problems: last }.into())
}

fn show(loaded: &Loaded, json: bool) -> CommandResult {
    if json {
        print::json(&Shown {
            files: &loaded.files,
            ignored: &loaded.ignored,
            settings: loaded.settings(),
        })
    } else {
        print::text(&loaded.to_toml())
    }
}
