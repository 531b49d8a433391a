//! The status as people and programs read it: tables, JSON, Prometheus.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hv_vssd::filesystems::DeviceNumber;
use hv_vssd::quiesce::Report;
use hv_vssd::quiesce::report::{
    AskedBy, FileSystemReport, FileSystemResult, Phase, PhaseName, Span, WorstStall,
};
use hv_vssd::status::{
    Cause, Guardian, History, HoldNow, Service, Status, Work, render_prometheus, render_status,
};
use proptest::prelude::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn file_system(mount_point: &str, stall: u64) -> FileSystemReport {
    let span = |start, duration| {
        Some(Span {
            start: MS(start),
            duration: MS(duration),
        })
    };
    FileSystemReport {
        mount_point: mount_point.to_owned(),
        fstype: "ext4".to_owned(),
        dev: DeviceNumber::new(8, 1),
        source: "/dev/sda1".to_owned(),
        stage: Some(1),
        result: FileSystemResult::Frozen,
        flush: span(1, 2),
        freeze: span(3, 4),
        thaw: span(5_007, 1),
        suspended: false,
        reason: None,
        stall: Some(MS(stall)),
    }
}

fn report(id: &str, mount_point: &str, stall: u64) -> Report {
    let mut report = Report::begin(AskedBy::Host);
    report.id = id.to_owned();
    report.started = "2026-11-22T02:41:26.123456Z".to_owned();
    report.started_unix = 1_795_315_286.123;
    report.attempts = 1;
    for (phase, start, duration) in [
        (PhaseName::Prepare, 0, 1),
        (PhaseName::Flush, 1, 2),
        (PhaseName::Freeze, 3, 4),
        (PhaseName::Hold, 7, 5_000),
        (PhaseName::Thaw, 5_007, 1),
    ] {
        let span = Span {
            start: MS(start),
            duration: MS(duration),
        };
        report.phases.push(Phase { phase, span });
    }
    report.file_systems = vec![file_system(mount_point, stall)];
    report.worst_stall = Some(WorstStall {
        mount_point: mount_point.to_owned(),
        dev: DeviceNumber::new(8, 1),
        stall: MS(stall),
    });
    report
}

fn status(history: &History) -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 812,
        started: "2026-11-21T10:00:00.000001Z".to_owned(),
        started_unix: 1_795_255_200.0,
        service: Service {
            registered: true,
            since: "2026-11-21T10:00:00.100000Z".to_owned(),
            since_unix: 1_795_255_200.1,
            driver_version: Some("3.1".to_owned()),
            protocol: Some(129),
        },
        guardian: Guardian {
            pid: Some(815),
            alive: true,
        },
        work: Work::Idle,
        hold: None,
        counters: history.counters().clone(),
        checkpoints: history.checkpoints().cloned().collect(),
    }
}

/// One checkpoint that went well and one that did not.
fn two() -> Status {
    let mut history = History::default();
    history.checked(true);
    history.record(report("20261122-024126-123456", "/srv", 6), None);
    let mut failed = report("20261122-024200-000001", "/", 9);
    failed.phases.truncate(2);
    failed.file_systems[0].result = FileSystemResult::NotFrozen;
    failed.fail("/ (ext4 on 8:1) cannot be frozen: Input/output error".to_owned());
    history.record(failed, Some(Cause::FileSystem));
    status(&history)
}

#[test]
fn the_table_is_as_documented() {
    let text = render_status(&two(), false);
    let expected = "\
Agent     hv-vssd 0.1.0, process 812, since 2026-11-21 10:00:00 UTC
Host      registered with the driver (hv_utils 3.1, protocol 129) since 2026-11-21 10:00:00 UTC
Guardian  process 815
Now       nothing is frozen

Since the start: 1 HOT_BACKUP, 0 refused; 2 checkpoints, 1 failed; 0 manual freezes; 0 holds ended early.
Failures by cause: file-system 1.
Worst stall: 9.0 ms at / (checkpoint 20261122-024200-000001).

Last checkpoints, the newest first:

  STARTED (UTC)        ASKED BY  OUTCOME  FROZEN  PREPARE  FLUSH   FREEZE  HOLD       WORST STALL
  2026-11-22 02:41:26  host      FAILURE  0       1.0 ms   2.0 ms  -       -          9.0 ms
  2026-11-22 02:41:26  host      success  1       1.0 ms   2.0 ms  4.0 ms  5000.0 ms  6.0 ms

Checkpoint 20261122-024200-000001: FAILURE
  / (ext4 on 8:1) cannot be frozen: Input/output error

  STAGE  MOUNT POINT  TYPE  FLUSH   FREEZE  THAW    STALL   RESULT
  1      /            ext4  2.0 ms  4.0 ms  1.0 ms  9.0 ms  NOT FROZEN
";
    assert_eq!(text, expected);
    let all = render_status(&two(), true);
    assert!(
        all.contains("\nCheckpoint 20261122-024126-123456: success\n"),
        "{all}"
    );
}

#[test]
fn a_hold_a_dead_guardian_and_a_lost_host_cannot_be_overlooked() {
    let mut status = two();
    status.work = Work::Held;
    status.hold = Some(HoldNow {
        asked_by: AskedBy::Host,
        seconds: 3.21,
        ends_in_seconds: 116.79,
    });
    status.guardian.alive = false;
    status.service.registered = false;
    let text = render_status(&status, false);
    for line in [
        "Now       HELD for the host for 3.2 s so far; thawed in 116.8 s at the latest\n",
        "Guardian  process 815 has ENDED: it is replaced at the next request\n",
        "Host      NOT registered since 2026-11-21 10:00:00 UTC: the host's backup service is off, or its driver is not there\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

#[test]
fn a_hostile_mount_point_reaches_no_terminal() {
    let mut history = History::default();
    history.record(report("1", "/a\u{1b}[2J\nb", 1), None);
    let text = render_status(&status(&history), true);
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn the_json_reads_back_and_keeps_its_names() {
    let status = two();
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["service"]["registered"], true);
    assert_eq!(json["work"], "idle");
    assert_eq!(json["hold"], serde_json::Value::Null);
    assert_eq!(json["guardian"]["pid"], 815);
    assert_eq!(json["counters"]["host"]["failed"], 1);
    assert_eq!(json["counters"]["failures"]["file-system"], 1);
    assert_eq!(json["counters"]["phase_seconds"]["hold"], 5.0);
    assert_eq!(json["checkpoints"][1]["outcome"], "failure");
    let read: Status = serde_json::from_value(json).unwrap();
    assert_eq!(read.counters, status.counters);
    assert_eq!(read.checkpoints.len(), 2);
}

#[test]
fn a_history_is_bounded_and_keeps_what_matters() {
    let mut history = History::default();
    for number in 0..40_u64 {
        let mut report = report(&number.to_string(), "/", 1);
        report.file_systems = (0..500)
            .map(|disk| FileSystemReport {
                dev: DeviceNumber::new(8, disk),
                ..file_system("/srv", u64::from(disk))
            })
            .collect();
        history.record(report, None);
    }
    let kept: Vec<&Report> = history.checkpoints().collect();
    assert_eq!(kept.len(), 16);
    assert_eq!(kept[15].id, "39");
    for report in kept {
        assert_eq!(report.file_systems.len() + report.file_systems_omitted, 500);
        assert_eq!(report.file_systems.len(), 24);
        assert!(
            report
                .file_systems
                .iter()
                .all(|fs| fs.stall >= Some(MS(476)))
        );
    }
    assert_eq!(history.counters().host.succeeded, 40);
    let text = render_status(&status(&history), false);
    assert!(text.contains("\nNot kept: 476 file systems"), "{text}");
}

#[test]
fn the_metrics_are_valid_and_say_what_the_counters_say() {
    let samples = parse(&render_prometheus(&two()));
    let value = |name: &str| samples.get(name).copied();
    assert_eq!(value("hv_vssd_registered"), Some(1.0));
    assert_eq!(value("hv_vssd_guardian_up"), Some(1.0));
    assert_eq!(value("hv_vssd_hold_in_progress"), Some(0.0));
    assert_eq!(
        value(r#"hv_vssd_checkpoints_total{asked_by="host",outcome="success"}"#),
        Some(1.0)
    );
    assert_eq!(
        value(r#"hv_vssd_checkpoints_total{asked_by="host",outcome="failure"}"#),
        Some(1.0)
    );
    assert_eq!(
        value(r#"hv_vssd_checkpoint_failures_total{cause="file-system"}"#),
        Some(1.0)
    );
    assert_eq!(
        value(r#"hv_vssd_checkpoint_failures_total{cause="hook"}"#),
        Some(0.0)
    );
    assert_eq!(
        value(r#"hv_vssd_phase_seconds_total{phase="hold"}"#),
        Some(5.0)
    );
    assert_eq!(value("hv_vssd_worst_stall_seconds"), Some(0.009));
    assert_eq!(value("hv_vssd_last_checkpoint_success"), Some(0.0));
    assert_eq!(
        value(r#"hv_vssd_last_success_timestamp_seconds{asked_by="host"}"#),
        Some(1_795_315_286.123)
    );
    assert_eq!(
        value(r#"hv_vssd_last_checkpoint_stall_seconds{mount_point="/",fstype="ext4",dev="8:1"}"#),
        Some(0.009)
    );
}

#[test]
fn before_the_first_checkpoint_the_metrics_are_valid_too() {
    let samples = parse(&render_prometheus(&status(&History::default())));
    assert_eq!(
        samples[r#"hv_vssd_checkpoints_total{asked_by="host",outcome="success"}"#],
        0.0
    );
    assert!(!samples.keys().any(|name| name.contains("last_checkpoint")));
}

proptest! {
    #[test]
    fn no_mount_point_breaks_the_metrics(mount_point in any::<String>(), fstype in any::<String>()) {
        let mut history = History::default();
        let mut report = report("1", &mount_point, 1);
        report.file_systems[0].fstype = fstype;
        history.record(report, None);
        let samples = parse(&render_prometheus(&status(&history)));
        let found = samples.keys().any(|name| name.contains("last_checkpoint_stall_seconds"));
        prop_assert!(found);
    }
}

/// Reads the text format as its description has it, and fails at whatever is not in it.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = "";
    for line in text.strip_suffix('\n').unwrap().split('\n') {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name), "a second HELP of {name}");
            assert!(help.ends_with('.'), "{line}");
            current = name;
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "TYPE follows HELP");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(
                kinds.insert(name, kind).is_none(),
                "a second TYPE of {name}"
            );
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value
            .parse()
            .unwrap_or_else(|_| panic!("no number: {line:?}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let name = series.split('{').next().unwrap();
        assert_eq!(name, current, "samples stand together");
        assert!(name.strip_prefix("hv_vssd_").is_some_and(is_name), "{line}");
        if let Some(labels) = series
            .strip_prefix(name)
            .filter(|labels| !labels.is_empty())
        {
            parse_labels(labels);
        }
        assert!(
            samples.insert(series.to_owned(), value).is_none(),
            "twice: {series}"
        );
    }
    samples
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

fn parse_labels(labels: &str) {
    let mut rest = labels.strip_prefix('{').unwrap();
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(is_name(name), "{labels}");
        let mut escaped = false;
        let end = value
            .char_indices()
            .find_map(|(at, c)| match (escaped, c) {
                (true, '\\' | '"' | 'n') => {
                    escaped = false;
                    None
                }
                (true, other) => panic!("no escape: {other:?} in {labels}"),
                (false, '\\') => {
                    escaped = true;
                    None
                }
                (false, '"') => Some(at),
                (false, _) => None,
            })
            .unwrap();
        rest = &value[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    assert_eq!(rest, "}", "{labels}");
}
