//! The command line: one file a command.

mod config;
mod demo;
mod guardian;
mod plan;
mod print;
mod run;
mod thaw;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::quiesce::error::with_causes;

/// Holds every file system of this machine consistent while a Hyper-V host takes a production checkpoint or a backup.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Plan(plan::Arguments),
    Config(config::Arguments),
    Thaw(thaw::Arguments),
    Demo(demo::Arguments),
    #[command(hide = true)]
    Guardian(guardian::Arguments),
}

/// Options of every command that reads the configuration.
#[derive(Debug, clap::Args)]
struct ConfigArguments {
    /// Configuration to use instead of /etc/hv-vssd/config.toml, with the drop-ins in FILE.d
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command; what it returns is the exit status: 0 done, 1 failed, 2 wrong usage.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Run(arguments) => run::main(&arguments),
        Command::Plan(arguments) => plan::main(&arguments),
        Command::Config(arguments) => config::main(&arguments),
        Command::Thaw(arguments) => thaw::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Guardian(arguments) => guardian::main(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hv-vssd: {}", with_causes(error.as_ref()));
            status_of(error.as_ref())
        }
    }
}

/// A configuration that cannot be used counts as wrong usage.
fn status_of(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    if error.is::<ConfigError>() {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}

type CommandResult = Result<(), Box<dyn std::error::Error>>;
