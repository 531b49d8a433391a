//! `hv-vssd plan`: what a checkpoint would freeze, in which order, what not and why.

use super::{CommandResult, ConfigArguments, print};
use crate::config::Config;
use crate::filesystems::{Plan, Policy, render_table, scan};

/// Show what a checkpoint would freeze, in which order, what not and why
///
/// Changes nothing and freezes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON for a program instead of a table
    #[arg(long)]
    json: bool,
    /// List every file system left out, also those that are on no disk
    #[arg(long, short)]
    all: bool,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    let config = Config::load(arguments.config.config.as_deref())?;
    let plan = Plan::new(&scan()?, &policy(&config));
    if arguments.json {
        print::json(&plan)
    } else {
        print::text(&render_table(&plan, arguments.all))
    }
}

/// What the configuration leaves alone.
pub(super) fn policy(config: &Config) -> Policy {
    Policy {
        exclude_mount_points: config.filesystems.exclude_mount_points.clone(),
        exclude_types: config.filesystems.exclude_types.clone(),
        exclude_devices: config.filesystems.exclude_devices.clone(),
    }
}
