use super::*;
use crate::filesystems::DeviceNumber;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn span(start: u64, duration: u64) -> Option<Span> {
    Some(Span {
        start: MS(start),
        duration: MS(duration),
    })
}

fn file_system(number: u32, stall: Option<Duration>) -> FileSystemReport {
    FileSystemReport {
        mount_point: format!("/mnt/{number}"),
        fstype: "ext4".to_owned(),
        dev: DeviceNumber::new(8, number),
        source: format!("/dev/sd{number}"),
        stage: Some(1),
        result: FileSystemResult::Frozen,
        flush: span(2, 1),
        freeze: span(u64::from(number) + 4, 3),
        thaw: span(5_010, 0),
        suspended: false,
        reason: None,
        stall,
    }
}

fn report() -> Report {
    let mut report = Report {
        id: "20261122-024126-123456".to_owned(),
        started: "2026-11-22T02:41:26.123456Z".to_owned(),
        started_unix: 1_795_315_286.123,
        attempts: 1,
        ..Report::begin(AskedBy::Manual)
    };
    for (phase, start, duration) in [
        (PhaseName::Prepare, 0, 1),
        (PhaseName::WriteBack, 1, 1),
        (PhaseName::Flush, 2, 1),
        (PhaseName::Flush, 3, 1),
        (PhaseName::Freeze, 4, 4),
        (PhaseName::Hold, 8, 5_000),
        (PhaseName::Thaw, 5_008, 2),
    ] {
        let span = Span {
            start: MS(start),
            duration: MS(duration),
        };
        report.phases.push(Phase { phase, span });
    }
    let flushed = FileSystemReport {
        stage: None,
        result: FileSystemResult::FlushedOnly,
        freeze: None,
        thaw: None,
        ..file_system(2, None)
    };
    let stall = Some(Duration::from_micros(6_250));
    report.set_file_systems(vec![file_system(1, stall), flushed]);
    report.hooks.push(HookReport {
        name: "10-database".to_owned(),
        operation: HookOperation::Freeze,
        span: span(1, 0).unwrap(),
        failure: None,
    });
    report
}

#[test]
fn the_json_keeps_its_names_and_units() {
    let expected = serde_json::json!({
        "id": "20261122-024126-123456",
        "started": "2026-11-22T02:41:26.123456Z",
        "started_unix": 1_795_315_286.123,
        "asked_by": "manual",
        "outcome": "success",
        "flush_only": false,
        "failures": [],
        "attempts": 1,
        "phases": [
            {"phase": "prepare", "start_ms": 0.0, "duration_ms": 1.0},
            {"phase": "write-back", "start_ms": 1.0, "duration_ms": 1.0},
            {"phase": "flush", "start_ms": 2.0, "duration_ms": 1.0},
            {"phase": "flush", "start_ms": 3.0, "duration_ms": 1.0},
            {"phase": "freeze", "start_ms": 4.0, "duration_ms": 4.0},
            {"phase": "hold", "start_ms": 8.0, "duration_ms": 5000.0},
            {"phase": "thaw", "start_ms": 5008.0, "duration_ms": 2.0},
        ],
        "file_systems": [
            {"mount_point": "/mnt/1", "fstype": "ext4", "dev": "8:1", "source": "/dev/sd1", "stage": 1, "result": "frozen",
             "flush": {"start_ms": 2.0, "duration_ms": 1.0}, "freeze": {"start_ms": 5.0, "duration_ms": 3.0},
             "thaw": {"start_ms": 5010.0, "duration_ms": 0.0}, "stall_ms": 6.25},
            {"mount_point": "/mnt/2", "fstype": "ext4", "dev": "8:2", "source": "/dev/sd2", "stage": null, "result": "flushed-only",
             "flush": {"start_ms": 2.0, "duration_ms": 1.0}, "freeze": null, "thaw": null, "stall_ms": null},
        ],
        "file_systems_omitted": 0,
        "worst_stall": {"mount_point": "/mnt/1", "dev": "8:1", "stall_ms": 6.25},
        "hooks": [{"name": "10-database", "operation": "freeze", "start_ms": 1.0, "duration_ms": 0.0, "failure": null}],
    });
    assert_eq!(serde_json::to_value(report()).unwrap(), expected);
}

#[test]
fn what_the_agent_tells_a_client_reads_back_the_same() {
    let report = report();
    let text = serde_json::to_string(&report).unwrap();
    let read = Report {
        begun: report.begun,
        ..serde_json::from_str(&text).unwrap()
    };
    assert_eq!(read, report);
    assert!(serde_json::from_str::<Report>(&text.replace("6.25", "-1")).is_err());
}

#[test]
fn the_log_line_names_the_worst_stall() {
    assert_eq!(
        report().to_string(),
        "1 file system held for 5000.0 ms, 1 only flushed, worst stall 6.2 ms at /mnt/1 \
         (prepare 1.0 ms, write-back 1.0 ms, flush 2.0 ms in 2 passes, freeze 4.0 ms, thaw 2.0 ms)"
    );
}

#[test]
fn the_worst_stall_is_that_of_all_attempts() {
    let mut report = report();
    report.set_file_systems(vec![file_system(3, Some(MS(2))), file_system(4, None)]);
    assert_eq!(report.worst_stall.as_ref().unwrap().mount_point, "/mnt/1");
    report.set_file_systems(vec![
        file_system(3, Some(MS(2))),
        file_system(4, Some(MS(9))),
    ]);
    assert_eq!(report.worst_stall.unwrap().mount_point, "/mnt/4");
}

#[test]
fn an_abridged_report_keeps_what_matters_in_freeze_order() {
    let mut report = report();
    let mut failed = file_system(7, None);
    failed.result = FileSystemResult::NotFrozen;
    let mut all: Vec<_> = (1..=6)
        .map(|number| file_system(number, Some(MS(u64::from(number % 4)))))
        .collect();
    all.push(failed);
    report.set_file_systems(all);
    let untouched = report.clone();
    report.abridge(7);
    assert_eq!(report, untouched);
    report.abridge(3);
    let kept: Vec<&str> = report
        .file_systems
        .iter()
        .map(|fs| fs.mount_point.as_str())
        .collect();
    assert_eq!(kept[1..], ["/mnt/3", "/mnt/7"]);
    assert!(["/mnt/2", "/mnt/6"].contains(&kept[0]), "{kept:?}");
    assert_eq!(report.file_systems_omitted, 4);
}

#[test]
fn a_report_is_named_after_its_start() {
    assert_eq!(id("2026-11-22T02:41:26.123456Z"), "20261122-024126-123456");
    let now = Report::begin(AskedBy::Host);
    assert!(now.id.len() > 15 && now.started.ends_with('Z'), "{now:?}");
    assert!(now.started_unix > 1.7e9);
}
