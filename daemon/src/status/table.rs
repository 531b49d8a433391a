//! The status for a person's eyes.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Cause, Status, Work};
use crate::filesystems::DeviceNumber;
use crate::filesystems::table::{columns, shorten};
use crate::filesystems::text::printable;
use crate::quiesce::Report;
use crate::quiesce::report::{
    AskedBy, FileSystemReport, FileSystemResult, HookOperation, PhaseName, Span,
};

/// The service, the counters, a line for each checkpoint, and the last one's file systems; with `all` those of every one, and long paths whole.
#[must_use]
pub fn render_status(status: &Status, all: bool) -> String {
    let mut out = String::new();
    service(&mut out, status);
    counters(&mut out, status);
    let rows: Vec<[String; 9]> = status.checkpoints.iter().rev().map(row).collect();
    if rows.is_empty() {
        out.push_str("\nNo checkpoint since the start.\n");
        return out;
    }
    out.push_str("\nLast checkpoints, the newest first:\n\n");
    let titles = [
        "STARTED (UTC)",
        "ASKED BY",
        "OUTCOME",
        "FROZEN",
        "PREPARE",
        "FLUSH",
        "FREEZE",
        "HOLD",
        "WORST STALL",
    ];
    columns(&mut out, titles, &rows);
    let detailed = if all { usize::MAX } else { 1 };
    for report in status.checkpoints.iter().rev().take(detailed) {
        detail(&mut out, report, all);
    }
    out
}

fn service(out: &mut String, status: &Status) {
    let _ = writeln!(
        out,
        "Agent     hv-vssd {}, process {}, since {} UTC",
        status.version,
        status.pid,
        clock(&status.started)
    );
    let service = &status.service;
    let _ = if service.registered {
        let driver = service.driver_version.as_deref().map(printable);
        let driver = driver.map_or_else(String::new, |version| format!(" {version}"));
        let protocol = service.protocol.unwrap_or_default();
        writeln!(
            out,
            "Host      registered with the driver (hv_utils{driver}, protocol {protocol}) since {} UTC",
            clock(&service.since)
        )
    } else {
        writeln!(
            out,
            "Host      NOT registered since {} UTC: the host's backup service is off, or its driver is not there",
            clock(&service.since)
        )
    };
    let _ = match status.guardian.pid {
        Some(pid) if status.guardian.alive => writeln!(out, "Guardian  process {pid}"),
        Some(pid) => writeln!(
            out,
            "Guardian  process {pid} has ENDED: it is replaced at the next request"
        ),
        None => writeln!(out, "Guardian  none: nothing is frozen without one"),
    };
    let now = match status.work {
        Work::Idle => "nothing is frozen",
        Work::Checking => "looking into whether a checkpoint is possible; nothing is frozen",
        Work::Freezing => "freezing for the host",
        Work::Held => "HELD for the host",
        Work::Thawing => "thawing what was held for the host",
        Work::ManualFreezing => "freezing for a manual freeze",
        Work::ManualHeld => "HELD by a manual freeze",
        Work::ManualThawing => "thawing what a manual freeze held",
        Work::Stopping => "about to end",
    };
    let _ = write!(out, "Now       {now}");
    if let Some(hold) = status.hold {
        let _ = write!(
            out,
            " for {:.1} s so far; thawed in {:.1} s at the latest",
            hold.seconds, hold.ends_in_seconds
        );
    }
    out.push('\n');
}

fn counters(out: &mut String, status: &Status) {
    let counters = &status.counters;
    let _ = writeln!(
        out,
        "\nSince the start: {} HOT_BACKUP, {} refused; {} checkpoints, {} failed; {} manual freezes{}; {} holds ended early.",
        counters.hot_backups_promised + counters.hot_backups_refused,
        counters.hot_backups_refused,
        counters.host.succeeded + counters.host.failed,
        counters.host.failed,
        counters.manual.succeeded + counters.manual.failed,
        match counters.manual.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        },
        counters.holds_ended_early
    );
    let failed = |cause: &Cause| Some((*cause, *counters.failures.get(cause)?));
    let failed: Vec<String> = Cause::ALL
        .iter()
        .filter_map(failed)
        .map(|(cause, count)| format!("{} {count}", cause.word()))
        .collect();
    if !failed.is_empty() {
        let _ = writeln!(out, "Failures by cause: {}.", failed.join(", "));
    }
    if let Some(worst) = &counters.worst_stall {
        let _ = writeln!(
            out,
            "Worst stall: {:.1} ms at {} (checkpoint {}).",
            worst.stall_ms,
            printable(&worst.mount_point),
            printable(&worst.checkpoint)
        );
    }
}

fn row(report: &Report) -> [String; 9] {
    let frozen = report
        .file_systems
        .iter()
        .filter(|fs| fs.result == FileSystemResult::Frozen)
        .count();
    let frozen = match report.file_systems_omitted {
        0 => frozen.to_string(),
        omitted => format!("{frozen} of {}", report.file_systems.len() + omitted),
    };
    let total = |phase| {
        report
            .last(phase)
            .map_or_else(|| "-".to_owned(), |_| ms(report.total(phase)))
    };
    let flush = report.total(PhaseName::WriteBack) + report.total(PhaseName::Flush);
    let stall = report.worst_stall.as_ref();
    [
        clock(&report.started),
        match report.asked_by {
            AskedBy::Host => "host".to_owned(),
            AskedBy::Manual => "manual".to_owned(),
        },
        verdict(report).to_owned(),
        frozen,
        total(PhaseName::Prepare),
        if flush.is_zero() {
            "-".to_owned()
        } else {
            ms(flush)
        },
        total(PhaseName::Freeze),
        total(PhaseName::Hold),
        stall.map_or_else(|| "-".to_owned(), |worst| ms(worst.stall)),
    ]
}

fn verdict(report: &Report) -> &'static str {
    match (report.is_clean(), report.flush_only) {
        (true, true) => "flushed only",
        (true, false) => "success",
        (false, _) => "FAILURE",
    }
}

fn detail(out: &mut String, report: &Report, all: bool) {
    let _ = writeln!(
        out,
        "\nCheckpoint {}: {}{}",
        printable(&report.id),
        verdict(report),
        if report.attempts > 1 {
            format!(", in {} attempts", report.attempts)
        } else {
            String::new()
        }
    );
    for failure in &report.failures {
        let _ = writeln!(out, "  {}", printable(failure));
    }
    for unseen in &report.unseen {
        let _ = writeln!(out, "  may be missing: {}", printable(unseen));
    }
    for hook in &report.hooks {
        let operation = match hook.operation {
            HookOperation::Freeze => "freeze",
            HookOperation::Thaw => "thaw",
        };
        let _ = write!(
            out,
            "  hook {} {operation}: {}",
            printable(&hook.name),
            ms(hook.span.duration)
        );
        let _ = match &hook.failure {
            Some(failure) => writeln!(out, ", FAILED: {}", printable(failure)),
            None => writeln!(out),
        };
    }
    let rows: Vec<[String; 8]> = report
        .file_systems
        .iter()
        .map(|fs| file_system(fs, all))
        .collect();
    if !rows.is_empty() {
        out.push('\n');
        let titles = [
            "STAGE",
            "MOUNT POINT",
            "TYPE",
            "FLUSH",
            "FREEZE",
            "THAW",
            "STALL",
            "RESULT",
        ];
        columns(out, titles, &rows);
    }
    if report.file_systems_omitted > 0 {
        let _ = writeln!(
            out,
            "\nNot kept: {} file systems that went well, and that writers waited for no longer than for these.",
            report.file_systems_omitted
        );
    }
}

fn file_system(fs: &FileSystemReport, all: bool) -> [String; 8] {
    let took = |span: Option<Span>| span.map_or_else(|| "-".to_owned(), |span| ms(span.duration));
    let result = match fs.result {
        FileSystemResult::Frozen => "frozen, thawed",
        FileSystemResult::FlushedOnly => "flushed only",
        FileSystemResult::LeftOut => "left out",
        FileSystemResult::Foreign => "frozen by someone else",
        FileSystemResult::NotFrozen => "NOT FROZEN",
        FileSystemResult::Stuck => "STUCK",
        FileSystemResult::StillFrozen => "STILL FROZEN",
    };
    [
        fs.stage
            .map_or_else(|| "-".to_owned(), |stage| stage.to_string()),
        place(&fs.mount_point, fs.dev, all),
        printable(&fs.fstype),
        took(fs.flush),
        took(fs.freeze),
        took(fs.thaw),
        fs.stall.map_or_else(|| "-".to_owned(), ms),
        result.to_owned(),
    ]
}

fn place(mount_point: &str, dev: DeviceNumber, all: bool) -> String {
    if mount_point.is_empty() {
        return dev.to_string();
    }
    shorten(printable(mount_point), all)
}

/// `2026-11-22 02:41:26` of `2026-11-22T02:41:26.123456Z`.
fn clock(time: &str) -> String {
    let seconds: String = time.chars().take(19).collect();
    printable(seconds.replace('T', " "))
}

fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms >= 10_000.0 {
        format!("{:.1} s", ms / 1e3)
    } else {
        format!("{ms:.1} ms")
    }
}
