//! The command line: one file a command.

mod check;
mod config;
mod demo;
mod engine;
mod freeze;
mod guardian;
mod hook_exec;
mod plan;
mod print;
mod recover;
mod run;
mod signals;
mod status;
mod terminal;
mod thaw;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::quiesce::error::with_causes;

/// Holds every file system of this machine consistent while a Hyper-V host takes a production checkpoint or a backup.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true, after_help = exit_statuses())]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Plan(plan::Arguments),
    Config(config::Arguments),
    Freeze(freeze::Arguments),
    Thaw(thaw::Arguments),
    Status(status::Arguments),
    Demo(demo::Arguments),
    #[command(hide = true)]
    Guardian(guardian::Arguments),
    #[command(hide = true)]
    HookExec(hook_exec::Arguments),
}

/// What every command's exit status means.
pub const EXIT_STATUSES: [(u8, &str); 5] = [
    (0, "done"),
    (
        1,
        "it failed, or the answer is no; standard error says why, on one line",
    ),
    (2, "wrong usage, or a configuration that cannot be used"),
    (
        3,
        "refused, because an agent or the host is at work; nothing was touched",
    ),
    (4, "interrupted by a signal; everything is thawed"),
];

fn exit_statuses() -> String {
    let mut text = "Exit status:".to_owned();
    for (status, meaning) in EXIT_STATUSES {
        text += &format!("\n  {status}  {meaning}");
    }
    text + "\n\nStart with 'hv-vssd check'. More: man hv-vssd"
}

/// Options of every command that reads the configuration.
#[derive(Debug, clap::Args)]
struct ConfigArguments {
    /// Configuration to use instead of /etc/hv-vssd/config.toml, with the drop-ins in FILE.d
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is on the command line; where that is wrong, or asks for help, it says so and ends the process.
#[must_use]
pub fn arguments() -> Arguments {
    let words: Vec<OsString> = std::env::args_os().collect();
    // A guardian would keep traces of the whole description of the command line locked in its memory.
    match guardian::Arguments::as_started(&words) {
        Some(guardian) => Arguments {
            command: Command::Guardian(guardian),
        },
        None => Arguments::parse_from(words),
    }
}

/// Runs the command; what it returns is the exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 refused because
/// an agent or a host is at work, 4 interrupted.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Run(arguments) => run::main(&arguments),
        Command::Check(arguments) => check::main(&arguments),
        Command::Plan(arguments) => plan::main(&arguments),
        Command::Config(arguments) => config::main(&arguments),
        Command::Freeze(arguments) => freeze::main(&arguments),
        Command::Thaw(arguments) => thaw::main(&arguments),
        Command::Status(arguments) => status::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Guardian(arguments) => guardian::main(&arguments),
        Command::HookExec(arguments) => hook_exec::main(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = with_causes(error.as_ref());
            if !text.is_empty() {
                print::note(&format!("hv-vssd: {text}"));
            }
            status_of(error.as_ref())
        }
    }
}

/// A configuration that cannot be used counts as wrong usage.
fn status_of(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    if error.is::<ConfigError>() {
        return ExitCode::from(2);
    }
    match error.downcast_ref::<Special>() {
        Some(special) => ExitCode::from(special.status),
        None => ExitCode::FAILURE,
    }
}

type CommandResult = Result<(), Box<dyn std::error::Error>>;

/// Something that went wrong, with an exit status of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Special {
    status: u8,
    message: String,
}

impl Special {
    /// What was asked for cannot be meant.
    fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    /// An agent or a host is at work.
    fn busy(message: impl Into<String>) -> Self {
        Self::new(3, message)
    }

    /// A signal ended the command; nothing is left frozen.
    fn interrupted(message: impl Into<String>) -> Self {
        Self::new(4, message)
    }

    /// All that there is to say has been printed.
    fn said(status: u8) -> Self {
        Self::new(status, "")
    }

    fn new(status: u8, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}
