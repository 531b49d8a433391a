//! `hv-vssd check`: what the host would get now, and why.

use super::{CommandResult, ConfigArguments, Special, plan, print};
use crate::check::{Places, Report, gather};
use crate::config::Config;
use crate::filesystems::Policy;

/// Show what the host would get now, and what stands in its way
///
/// A production checkpoint that is consistent for applications or for file systems, or a standard one; with every
/// cause and its remedy. Freezes nothing, changes nothing, and waits for no file system. Needs root. Exit status 0
/// if the host gets a consistent production checkpoint, 1 if it does not.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON for a program
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(Box::new(Special::new(
            1,
            "only root sees who has the device open, and may ask the agent: run 'sudo hv-vssd check'",
        )));
    }
    // A configuration that cannot be used is one of the findings: the service would not start with it.
    let config = Config::load(arguments.config.config.as_deref());
    let policy = config
        .as_ref()
        .map_or_else(|_| Policy::default(), plan::policy);
    let report = Report::of(&gather(&Places::default(), config.as_ref(), &policy));
    if arguments.json {
        print::json(&report)?;
    } else {
        print::text(&report.render())?;
    }
    match report.outcome.is_consistent() {
        true => Ok(()),
        false => Err(Box::new(Special::said(1))),
    }
}
