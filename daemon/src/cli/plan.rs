//! `hv-vssd plan`: what a checkpoint would freeze, in which order, what not and why.

use serde::Serialize;

use super::{CommandResult, ConfigArguments, print};
use crate::config::{Config, Strictness};
use crate::filesystems::{Plan, Policy, render_table, scan};
use crate::quiesce::FreezeError;
use crate::quiesce::backend::Target;

/// Show what a checkpoint would freeze, in which order, what not and why
///
/// Changes nothing and freezes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON for a program instead of a table
    #[arg(long)]
    json: bool,
    /// List every file system left out, also those that are on no disk
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    let config = Config::load(arguments.config.config.as_deref())?;
    let plan = Plan::new(&scan()?, &policy(&config));
    let refused: Vec<Target> = match config.strictness {
        Strictness::Strict => plan.gaps().map(Target::from).collect(),
        Strictness::Normal | Strictness::FlushOnly => Vec::new(),
    };
    if arguments.json {
        return print::json(&Shown {
            plan: &plan,
            strictness: config.strictness.word(),
            refused: refused.iter().map(ToString::to_string).collect(),
        });
    }
    let mut text = String::new();
    if config.strictness == Strictness::FlushOnly {
        text.push_str(
            "Nothing is frozen (strictness = \"flush-only\"): the image is crash-consistent.\n\n",
        );
    }
    text.push_str(&render_table(&plan, arguments.all));
    for target in refused {
        text += &format!(
            "\nA checkpoint would FAIL: {}\n",
            FreezeError::Gap(target.to_string())
        );
    }
    if config.strictness == Strictness::Strict {
        for unseen in plan.unseen() {
            text += &format!(
                "\nA checkpoint would FAIL: {}\n",
                FreezeError::Unseen(unseen)
            );
        }
    }
    print::text(&text)
}

/// The plan, and what the configuration makes of it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    strictness: &'a str,
    /// The file systems because of which a checkpoint would fail.
    refused: Vec<String>,
}

/// What the configuration says about file systems.
pub(super) fn policy(config: &Config) -> Policy {
    Policy {
        exclude_mount_points: config.filesystems.exclude_mount_points.clone(),
        exclude_types: config.filesystems.exclude_types.clone(),
        exclude_devices: config.filesystems.exclude_devices.clone(),
        include_mount_points: config.filesystems.include_mount_points.clone(),
        include_types: config.filesystems.include_types.clone(),
        include_devices: config.filesystems.include_devices.clone(),
        flush_only: config.strictness == Strictness::FlushOnly,
    }
}
