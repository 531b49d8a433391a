//! A report in three lines, and what timeline and summary share.

use std::fmt::Write as _;
use std::time::Duration;

use crate::filesystems::text::printable;
use crate::quiesce::Report;
use crate::quiesce::report::{FileSystemResult, HookOperation, PhaseName};

/// What was done, what it cost, where the time went; then what went wrong, a line each.
pub(super) fn summary(report: &Report) -> String {
    let mut text = format!(
        "{}\n{}\n{}\n",
        verdict(report),
        stall(report),
        phases(report)
    );
    text.push_str(&remarks(report));
    text
}

/// What was done.
pub(super) fn verdict(report: &Report) -> String {
    let is = |result| {
        let found = report.file_systems.iter().filter(|fs| fs.result == result);
        found.count()
    };
    let frozen = is(FileSystemResult::Frozen);
    let mut text = match report.last(PhaseName::Hold) {
        Some(_) if report.flush_only => {
            "nothing was frozen, by configuration: an image would be crash-consistent".to_owned()
        }
        Some(hold) => format!("{} frozen for {}", count(frozen), time(hold.duration)),
        None if frozen > 0 => format!(
            "the freeze failed: {} frozen and thawed at once",
            count(frozen)
        ),
        None => "the freeze failed: nothing was frozen".to_owned(),
    };
    for (result, what) in [
        (FileSystemResult::FlushedOnly, "only flushed"),
        (FileSystemResult::LeftOut, "left out"),
        (FileSystemResult::Foreign, "frozen by someone else"),
        (FileSystemResult::NotFrozen, "not frozen"),
        (FileSystemResult::Stuck, "STUCK"),
        (FileSystemResult::StillFrozen, "NOT THAWED"),
    ] {
        let number = is(result);
        if number > 0 {
            let _ = write!(text, ", {number} {what}");
        }
    }
    text
}

/// What it cost whoever writes.
pub(super) fn stall(report: &Report) -> String {
    match &report.worst_stall {
        Some(worst) => {
            let place = match worst.mount_point.as_str() {
                "" => worst.dev.to_string(),
                place => printable(place),
            };
            let beside = match report.last(PhaseName::Hold) {
                Some(_) => " longer than the hold",
                None => "",
            };
            format!(
                "a write could wait {}{beside}, at {place}",
                time(worst.stall)
            )
        }
        None => "no write had to wait for a freeze".to_owned(),
    }
}

/// Where the time went.
pub(super) fn phases(report: &Report) -> String {
    use PhaseName::{Flush, Freeze, Hold, Hooks, Prepare, Thaw, WriteBack};
    let mut parts = Vec::new();
    for phase in [Prepare, Hooks, WriteBack, Flush, Freeze, Hold, Thaw] {
        let of_it = report.phases.iter().filter(|other| other.phase == phase);
        let mut part = match of_it.count() {
            0 => continue,
            passes if phase == Flush && passes > 1 => format!("flush ({passes} passes)"),
            _ => label(phase).to_owned(),
        };
        let _ = write!(part, " {}", time(report.total(phase)));
        parts.push(part);
    }
    if report.attempts > 1 {
        parts.push(format!("{} attempts", report.attempts));
    }
    parts.join(", ")
}

/// What else there is to say: who had frozen what, what failed.
pub(super) fn remarks(report: &Report) -> String {
    let mut text = String::new();
    // One that made the freeze fail is named by the failure.
    for fs in report.foreign().filter(|_| report.is_clean()) {
        let _ = writeln!(text, "{} was frozen by someone else", fs.name());
    }
    for hook in &report.hooks {
        if let Some(failure) = &hook.failure {
            let operation = operation(hook.operation);
            let name = printable(&hook.name);
            let _ = writeln!(text, "hook {name} failed with '{operation}': {failure}");
        }
    }
    for unseen in &report.unseen {
        let _ = writeln!(text, "may be missing: {}", printable(unseen));
    }
    for failure in &report.failures {
        let _ = writeln!(text, "failed: {failure}");
    }
    text
}

/// What a hook was called with.
pub(super) const fn operation(operation: HookOperation) -> &'static str {
    match operation {
        HookOperation::Freeze => "freeze",
        HookOperation::Thaw => "thaw",
    }
}

/// A phase in a word.
pub(super) const fn label(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Prepare => "prepare",
        PhaseName::Hooks => "hooks",
        PhaseName::WriteBack => "write-back",
        PhaseName::Flush => "flush",
        PhaseName::Freeze => "freeze",
        PhaseName::Hold => "hold",
        PhaseName::Thaw => "thaw",
    }
}

/// A duration in at most eight characters, up to 27 hours.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    // What would be rounded up to the next unit is written in it.
    if seconds < 0.000_995 {
        format!("{:.2} ms", seconds * 1e3)
    } else if seconds < 0.999_95 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 99.995 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.0} s")
    }
}

fn count(number: usize) -> String {
    match number {
        1 => "1 file system".to_owned(),
        _ => format!("{number} file systems"),
    }
}
