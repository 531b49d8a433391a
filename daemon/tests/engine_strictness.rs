//! What each strictness makes of file systems that cannot be frozen.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;

use std::io;
use std::time::Duration;

use double::{Double, Fault, Op};
use hv_vssd::config::Strictness;
use hv_vssd::filesystems::{Appeared, DeviceNumber};
use hv_vssd::quiesce::report::{FileSystemResult, Outcome};
use hv_vssd::quiesce::{Checkpoint, FreezeError};

const NOTHING: [u32; 0] = [];

#[test]
fn strict_refuses_a_file_system_that_cannot_be_frozen_and_names_it() {
    let double = Double::new(&[&[1]]).flushing(&[4]);
    let mut engine = double.engine().strictness(Strictness::Strict);
    for error in [engine.check(), engine.freeze()].map(Result::unwrap_err) {
        let FreezeError::Gap(name) = &error else {
            panic!("{error:?}");
        };
        assert!(name.starts_with("/fs4 ("), "{name}");
        assert!(error.to_string().contains("strict"), "{error}");
    }
    assert_eq!(double.done(Op::Open), NOTHING, "nothing is even opened");
    assert_eq!(double.done(Op::Freeze), NOTHING);
    let report = engine.take_failed().unwrap();
    assert_eq!(report.outcome, Outcome::Failure);
    assert!(report.failures[0].contains("/fs4"), "{report:?}");
}

#[test]
fn strict_takes_back_a_freeze_when_the_kernel_says_that_one_cannot_be_frozen() {
    let double = Double::new(&[&[1], &[2], &[3]]);
    double.fault(Op::Freeze, 2, Fault::Errno(libc::EOPNOTSUPP));
    let mut engine = double.engine().strictness(Strictness::Strict);
    let error = engine.freeze().unwrap_err();
    assert!(matches!(error, FreezeError::Gap(name) if name.starts_with("/fs2 (")));
    assert_eq!(double.done(Op::Thaw), [1]);
    assert_eq!(double.frozen(), NOTHING);
}

#[test]
fn strict_does_not_ask_for_more_than_a_manual_freeze_is_about() {
    let double = Double::new(&[&[1], &[2]]).flushing(&[4]);
    let mut engine = double.engine().strictness(Strictness::Strict);
    let one = Checkpoint {
        only: Some(vec![DeviceNumber::new(259, 2)]),
        ..Checkpoint::default()
    };
    engine.freeze_for(&one).unwrap();
    assert_eq!(double.frozen(), [2]);
    assert!(engine.thaw().unwrap().is_clean());
}

#[test]
fn normal_flushes_what_cannot_be_frozen() {
    let double = Double::new(&[&[1]]).flushing(&[4]);
    let mut engine = double.engine();
    engine.check().unwrap();
    engine.freeze().unwrap();
    assert_eq!(double.frozen(), [1]);
    let report = engine.thaw().unwrap();
    assert!(report.is_clean() && !report.flush_only);
    assert!(!report.to_string().contains("crash"), "{report}");
}

#[test]
fn flush_only_freezes_nothing_and_says_so() {
    // As the kernel's backend plans it.
    let double = Double::new(&[]).flushing(&[1, 2]);
    let mut engine = double.engine().strictness(Strictness::FlushOnly);
    engine.check().unwrap();
    engine.freeze().unwrap();
    assert_eq!(double.done(Op::Freeze), NOTHING);
    let mut flushed = double.done(Op::Sync);
    flushed.sort_unstable();
    flushed.dedup();
    assert_eq!(flushed, [1, 2]);
    let report = engine.thaw().unwrap();
    assert_eq!(double.done(Op::Thaw), NOTHING);
    assert!(report.is_clean() && report.flush_only);
    assert!(
        report
            .file_systems
            .iter()
            .all(|fs| fs.result == FileSystemResult::FlushedOnly)
    );
    let told = report.to_string();
    assert!(
        told.starts_with(
            "nothing was frozen, 2 file systems flushed only: the image is crash-consistent"
        ),
        "{told}"
    );
    assert_eq!(serde_json::to_value(&report).unwrap()["flush_only"], true);
}

#[test]
fn a_write_back_error_makes_flush_only_fail() {
    let double = Double::new(&[]).flushing(&[1]);
    double.fault(Op::Sync, 1, Fault::Errno(libc::EIO));
    let mut engine = double.engine().strictness(Strictness::FlushOnly);
    assert!(matches!(
        engine.freeze().unwrap_err(),
        FreezeError::Flush(..)
    ));
}

/// A disk that cannot be frozen has been mounted meanwhile.
fn gap() -> Appeared {
    Appeared {
        gaps: vec!["/usb".into()],
        ..Appeared::default()
    }
}

#[test]
fn strict_begins_anew_for_a_gap_that_appears_and_normal_notes_it() {
    let double = Double::new(&[&[1]]).appearing(Ok(gap()), Duration::ZERO);
    let mut engine = double.engine().strictness(Strictness::Strict);
    engine.freeze().unwrap();
    let report = engine.thaw().unwrap();
    assert_eq!(report.attempts, 2);
    assert!(report.unseen.is_empty(), "{report:?}");

    let double = Double::new(&[&[1]]).appearing(Ok(gap()), Duration::ZERO);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let report = engine.thaw().unwrap();
    assert_eq!((report.attempts, report.is_clean()), (1, true));
    let noted = "/usb was mounted during the freeze, and was neither flushed nor frozen";
    assert_eq!(report.unseen, [noted]);
}

#[test]
fn a_change_that_cannot_be_judged_in_time_never_ends_in_success() {
    for strictness in [Strictness::Normal, Strictness::Strict] {
        let unknown = || Err(io::ErrorKind::TimedOut.into());
        let mut double = Double::new(&[&[1]]);
        for _ in 0..3 {
            double = double.appearing(unknown(), Duration::ZERO);
        }
        let mut engine = double.engine().strictness(strictness);
        let error = engine.freeze().unwrap_err();
        assert!(matches!(error, FreezeError::Appearing(3)), "{error}");
        assert_eq!(double.frozen(), NOTHING);
    }
}

#[test]
fn what_nobody_could_look_at_is_refused_by_strict_and_noted_by_normal() {
    let double = Double::new(&[&[1]]).unread(67);
    let mut engine = double.engine().strictness(Strictness::Strict);
    for error in [engine.check(), engine.freeze()].map(Result::unwrap_err) {
        let told = error.to_string();
        assert!(
            told.contains("67 processes could not be looked into"),
            "{told}"
        );
        assert!(matches!(error, FreezeError::Unseen(_)), "{error:?}");
    }
    assert_eq!(double.done(Op::Freeze), NOTHING);
    // A freeze by hand of one file system is about nothing else.
    let one = Checkpoint {
        only: Some(vec![DeviceNumber::new(259, 1)]),
        ..Checkpoint::default()
    };
    engine.freeze_for(&one).unwrap();
    assert!(engine.thaw().unwrap().is_clean());

    let mut engine = double.engine();
    engine.freeze().unwrap();
    let report = engine.thaw().unwrap();
    assert_eq!(report.unseen.len(), 1);
    assert!(report.unseen[0].contains("67 processes"), "{report:?}");
}
