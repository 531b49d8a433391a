//! `hv-vssd freeze`: a checkpoint by hand, to see what one costs.
//!
//! From the first freeze to the last thaw nothing is written: standard output may lie on what is frozen, and so may
//! whatever reads it.

mod asked;
mod interrupt;
mod scale;
mod text;
mod timeline;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::interrupt::Interrupt;
use super::terminal::Look;
use super::{CommandResult, ConfigArguments, Special, print, recover, signals};
use crate::agent::single::{self, Single, SingleError};
use crate::config::Config;
use crate::confine;
use crate::filesystems::{DeviceNumber, planned_at};
use crate::hooks;
use crate::quiesce::guardian::Guardian;
use crate::quiesce::report::{HookOperation, PhaseName};
use crate::quiesce::{AskedBy, Checkpoint, Limits, Report, Until};
use crate::telemetry::{Gate, log};

/// Freeze as a checkpoint would, hold for a time, thaw, and tell what it cost
///
/// A test by hand, with everything a checkpoint has but the host; a running agent does it, and else this command. ALL WRITING WAITS for the time given; nothing is printed meanwhile.
/// Ctrl-C, SIGTERM and a lost terminal thaw at once. Needs root.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Freeze only the file systems that hold these paths, instead of all that a checkpoint would freeze
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How long to hold, such as 500ms, 5s or 2m; at most limits.hold of the configuration
    #[arg(long = "for", value_name = "TIME", value_parser = hold)]
    hold: Duration,
    /// Draw what happened to each file system on a time line
    #[arg(long)]
    report: bool,
    /// Print the report as JSON for a program
    #[arg(long, conflicts_with = "report")]
    json: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

fn hold(text: &str) -> Result<Duration, String> {
    let hold = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if hold.is_zero() {
        return Err("a hold takes some time: give at least 1ms".to_owned());
    }
    Ok(hold)
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    signals::block_all_but(&interrupt::ENDS);
    let gate = Gate::stderr();
    log::init(tracing::Level::WARN, false, gate.clone())?;
    // What a dead agent left frozen is not for the configuration to keep so. The lock is not held yet: a path's look-up may wait for long.
    drop(recover::lock_and_recover());
    let config = Config::load(arguments.config.config.as_deref())?;
    let most = Duration::from_secs(config.limits.hold);
    if arguments.hold > most {
        return Err(Special::usage(format!(
            "a hold of {} is longer than limits.hold of the configuration, {} s: give less, or raise the limit",
            humantime::format_duration(arguments.hold),
            most.as_secs()
        ))
        .into());
    }
    confine::require_capabilities()?;
    let only = if arguments.paths.is_empty() {
        None
    } else {
        Some(planned_at(&arguments.paths, &super::plan::policy(&config))?)
    };
    let only_one = match Single::acquire(Path::new(single::DEFAULT_PATH)) {
        Ok(single) => Some(single),
        Err(SingleError::Running { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let what = match only.as_deref() {
        None => "all file systems of the plan".to_owned(),
        Some([_]) => "1 file system".to_owned(),
        Some(all) => format!("{} file systems", all.len()),
    };
    let hold = humantime::format_duration(arguments.hold);
    let begin = || {
        print::note(&format!(
            "freezing {what}, holding for {hold}; Ctrl-C thaws at once"
        ))
    };
    let (report, interrupt) = if only_one.is_some() {
        here(&config, arguments.hold, only.clone(), gate, begin)?
    } else {
        // The agent thaws when the connection ends, which lasts as long as this process.
        confine::leave_no_core();
        let interrupt = Interrupt::watch(Arc::default())?;
        let report = asked::freeze(&arguments.paths, arguments.hold, &interrupt, begin)?;
        (report, interrupt)
    };
    let shown = show(&report, arguments);
    // A terminal that was lost is not what there is to tell.
    outcome(&report, &interrupt)?;
    shown
}

/// Without an agent: in this process, with a guardian of its own.
fn here(
    config: &Config,
    hold: Duration,
    only: Option<Vec<DeviceNumber>>,
    gate: Gate,
    begin: impl FnOnce(),
) -> Result<(Report, Interrupt), Box<dyn std::error::Error>> {
    let limits = Limits {
        hold,
        ..super::engine::limits(config)
    };
    super::engine::confine();
    // Before the signals are blocked, and not replaced later: what it inherits is its own affair.
    let guardian = Guardian::start(false)?;
    let mut engine = super::engine::engine(config, limits, guardian, gate);
    let signal = engine.signal();
    let interrupt = Interrupt::watch(engine.signal())?;
    begin();
    let checkpoint = Checkpoint {
        asked_by: AskedBy::Manual,
        only,
    };
    let frozen = engine.freeze_for(&checkpoint);
    let report = if frozen.is_ok() {
        let _ = signal.wait(Instant::now() + hold.min(engine.hold_limit()), true, || {
            false
        });
        engine.thaw()
    } else {
        engine.take_failed()
    };
    engine.after_answer();
    let Some(mut report) = report else {
        return Err("an internal error, a checkpoint without a report: please report it".into());
    };
    let went = if report.is_clean() {
        hooks::Outcome::Success
    } else {
        hooks::Outcome::Failure
    };
    engine.thaw_applications(went, || {});
    engine.applications_thawed(Some(&mut report), Until::Over);
    Ok((report, interrupt))
}

/// What the exit status tells.
fn outcome(report: &Report, interrupt: &Interrupt) -> CommandResult {
    if let Some(left) = report.file_systems.iter().find(|fs| fs.is_left_frozen()) {
        let name = left.name();
        return Err(format!(
            "{name} may still be frozen: the guardian goes on trying, and so does 'hv-vssd thaw'"
        )
        .into());
    }
    let held = report.last(PhaseName::Hold).is_some();
    if held && !report.is_clean() {
        return Err("the hold was broken, or the thaw went wrong: see above".into());
    }
    if has_unthawed_applications(report) {
        return Err("not every hook has let its application go on: see above".into());
    }
    if let Some(signal) = interrupt.by() {
        let what = if held {
            "everything was thawed before its time"
        } else {
            "nothing is frozen"
        };
        return Err(Special::interrupted(format!("interrupted by {signal}: {what}")).into());
    }
    match report.failures.last() {
        Some(failure) if !report.is_clean() => Err(failure.clone().into()),
        _ => Ok(()),
    }
}

fn has_unthawed_applications(report: &Report) -> bool {
    let mut thaws = report
        .hooks
        .iter()
        .filter(|hook| hook.operation == HookOperation::Thaw);
    thaws.any(|hook| hook.failure.is_some())
}

/// Everything is thawed by now.
fn show(report: &Report, arguments: &Arguments) -> CommandResult {
    if arguments.json {
        print::json(report)
    } else if arguments.report {
        print::text(&timeline::render(report, Look::of_stdout()))
    } else {
        print::text(&text::summary(report))
    }
}
