use super::*;
use crate::cli::freeze::text::summary;
use crate::filesystems::DeviceNumber;
use crate::quiesce::AskedBy;
use crate::quiesce::report::{Phase, PhaseName, WorstStall};

const PLAIN: Look = Look {
    width: 100,
    unicode: true,
    colour: false,
};

/// Microseconds.
fn span(start: u64, duration: u64) -> Span {
    Span {
        start: Duration::from_micros(start),
        duration: Duration::from_micros(duration),
    }
}

fn file_system(number: u32, place: &str, calls: [Option<Span>; 3]) -> FileSystemReport {
    let [flush, freeze, thaw] = calls;
    FileSystemReport {
        mount_point: place.to_owned(),
        fstype: "ext4".to_owned(),
        dev: DeviceNumber::new(8, number),
        source: format!("/dev/sd{number}"),
        stage: Some(1),
        result: FileSystemResult::Frozen,
        flush,
        freeze,
        thaw,
        suspended: false,
        reason: None,
        stall: freeze.map(|freeze| freeze.duration + Duration::from_micros(800)),
    }
}

fn with_phases(phases: &[(PhaseName, u64, u64)]) -> Report {
    let mut report = Report::begin(AskedBy::Manual);
    report.attempts = 1;
    let phases = phases.iter().map(|(phase, start, duration)| Phase {
        phase: *phase,
        span: span(*start, *duration),
    });
    report.phases = phases.collect();
    report
}

use PhaseName::{Flush, Freeze, Hold, Hooks, Prepare, Thaw, WriteBack};

/// Three disks held for 5 s, one that can only be flushed, a hook.
fn success() -> Report {
    let mut report = with_phases(&[
        (Prepare, 0, 1_250),
        (Hooks, 1_300, 120_000),
        (WriteBack, 121_400, 900_000),
        (Flush, 1_021_500, 130_000),
        (Flush, 1_151_600, 2_000),
        (Freeze, 1_153_900, 5_000),
        (Hold, 1_158_950, 5_000_000),
        (Thaw, 6_158_950, 900),
    ]);
    let fs = |number, place, flush, freeze, thaw| {
        let calls = [
            Some(span(1_151_650, flush)),
            Some(span(1_153_950, freeze)),
            Some(span(6_159_000, thaw)),
        ];
        file_system(number, place, calls)
    };
    report.file_systems = vec![
        fs(1, "/", 1_900, 4_900, 300),
        fs(2, "/var/lib/postgresql/15/main/pg_wal", 800, 2_500, 100),
        fs(3, "/mnt/\x1b[2J", 40, 300, 90),
        FileSystemReport {
            result: FileSystemResult::FlushedOnly,
            ..file_system(4, "/boot/efi", [Some(span(1_151_650, 30)), None, None])
        },
    ];
    report.worst_stall = Some(WorstStall {
        mount_point: "/".to_owned(),
        dev: DeviceNumber::new(8, 1),
        stall: Duration::from_micros(5_700),
    });
    let hook = |operation, span| HookReport {
        name: "10-postgresql".to_owned(),
        operation,
        span,
        failure: None,
    };
    report.hooks = vec![
        hook(HookOperation::Freeze, span(1_400, 119_000)),
        hook(HookOperation::Thaw, span(6_160_500, 40_000)),
    ];
    report
}

/// The second of three disks was frozen by someone else.
fn failure() -> Report {
    let mut report = with_phases(&[
        (Prepare, 0, 1_000),
        (WriteBack, 1_000, 0),
        (Flush, 1_000, 500),
        (Freeze, 1_700, 2_004_000),
        (Thaw, 2_005_700, 400),
    ]);
    let flush = Some(span(1_050, 400));
    let freeze = |took| Some(span(1_750, took));
    report.file_systems = vec![
        file_system(1, "/a", [flush, freeze(3_000), Some(span(2_005_750, 300))]),
        FileSystemReport {
            result: FileSystemResult::Foreign,
            ..file_system(2, "/b", [flush, freeze(2_003_000), None])
        },
        FileSystemReport {
            result: FileSystemResult::NotFrozen,
            ..file_system(3, "/c", [flush, None, None])
        },
        FileSystemReport {
            result: FileSystemResult::Stuck,
            ..file_system(4, "/d", [flush, freeze(2_000), None])
        },
    ];
    report.worst_stall = Some(WorstStall {
        mount_point: "/a".to_owned(),
        dev: DeviceNumber::new(8, 1),
        stall: Duration::from_micros(2_004_300),
    });
    report.fail("/b (ext4 on 8:2) is frozen already by someone else".to_owned());
    report
}

/// Compares with `golden/NAME.txt`; with HV_VSSD_RENEW set, writes it.
fn is_golden(name: &str, text: &str) {
    let path = format!(
        "{}/src/cli/freeze/golden/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    if std::env::var_os("HV_VSSD_RENEW").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(
        text == golden,
        "{path} has\n{golden}\nbut this was drawn:\n{text}"
    );
}

#[test]
fn the_time_line_looks_as_it_should_in_every_width() {
    for (name, look) in [
        (
            "wide",
            Look {
                width: 140,
                ..PLAIN
            },
        ),
        ("usual", PLAIN),
        ("narrow", Look { width: 60, ..PLAIN }),
        ("narrowest", Look { width: 40, ..PLAIN }),
        (
            "ascii",
            Look {
                unicode: false,
                ..PLAIN
            },
        ),
        (
            "colour",
            Look {
                colour: true,
                ..PLAIN
            },
        ),
    ] {
        let text = render(&success(), look);
        is_golden(name, &text);
        if !look.colour {
            // The sentences on top are as long as they are.
            let picture = text.lines().skip(2);
            let longest = picture.map(|line| line.chars().count()).max();
            assert!(longest <= Some(look.width), "{longest:?}\n{text}");
            assert!(look.unicode || text.is_ascii());
            assert!(!text.contains('\x1b'));
        }
    }
}

#[test]
fn what_failed_is_seen() {
    is_golden("failure", &render(&failure(), PLAIN));
}

#[test]
fn what_was_left_to_someone_else_is_named() {
    let mut report = failure();
    report.failures.clear();
    report.outcome = crate::quiesce::report::Outcome::Success;
    let text = summary(&report);
    assert!(
        text.ends_with("\n/b (ext4 on 8:2) was frozen by someone else\n"),
        "{text}"
    );
}

#[test]
fn a_hook_that_failed_is_named_and_seen() {
    let mut report = success();
    report.hooks[1].failure = Some("it ended with status 3".to_owned());
    let told = "hook 10-postgresql failed with 'thaw': it ended with status 3\n";
    assert!(summary(&report).ends_with(&format!("\n{told}")));
    let drawn = render(&report, PLAIN);
    assert!(
        drawn.ends_with(told) && drawn.contains("✗ failed"),
        "{drawn}"
    );
}

#[test]
fn a_freeze_that_failed_before_anything_was_open_has_no_picture() {
    let mut report = with_phases(&[(Prepare, 0, 1_000)]);
    report.fail("the mount table cannot be read".to_owned());
    let expected = "the freeze failed: nothing was frozen\nno write had to wait for a freeze\nprepare 1.0 ms\n";
    let failed = "failed: the mount table cannot be read\n";
    assert_eq!(summary(&report), format!("{expected}{failed}"));
    assert_eq!(render(&report, PLAIN), format!("{expected}\n{failed}"));
}

#[test]
fn without_the_time_line_it_is_three_lines() {
    let text = summary(&success());
    assert_eq!(text.lines().count(), 3, "{text}");
    is_golden("summary", &text);
    is_golden("summary-of-a-failure", &summary(&failure()));
}

#[test]
fn times_are_short_enough_for_their_column() {
    for (micros, text) in [
        (0, "0.00 ms"),
        (994, "0.99 ms"),
        (999, "1.0 ms"),
        (999_949, "999.9 ms"),
        (999_951, "1.00 s"),
        (99_994_000, "99.99 s"),
        (99_996_000, "100 s"),
    ] {
        assert_eq!(time(Duration::from_micros(micros)), text);
    }
}
