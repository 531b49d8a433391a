//! File systems that take no writes any more, or that no way leads to.

// A helper of a test fails by panicking, like the test itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;

use double::{Double, Fault, Op};
use hv_vssd::config::Strictness;
use hv_vssd::quiesce::FreezeError;
use hv_vssd::quiesce::report::FileSystemResult;

const EIO: Fault = Fault::Errno(libc::EIO);

#[test]
fn one_that_is_dead_is_left_out_and_told_and_the_others_are_held() {
    for (op, errno) in [
        (Op::Freeze, libc::EIO),
        (Op::Sync, libc::EIO),
        (Op::Freeze, libc::ESHUTDOWN),
        (Op::Freeze, libc::EROFS),
    ] {
        let double = Double::new(&[&[1, 2], &[3]]);
        double.fault(op, 2, Fault::Errno(errno));
        double.die(2);
        let mut engine = double.engine();
        engine.freeze().unwrap();
        let report = engine.thaw().unwrap();
        assert!(report.is_clean(), "{:?}", report.failures);
        let results: Vec<_> = report
            .file_systems
            .iter()
            .map(|fs| (fs.mount_point.as_str(), fs.result))
            .collect();
        assert_eq!(
            results,
            [
                ("/fs1", FileSystemResult::Frozen),
                ("/fs3", FileSystemResult::Frozen),
                ("/fs2", FileSystemResult::LeftOut)
            ]
        );
        let text = report.file_systems[2].to_string();
        assert!(text.contains("left out: shut down by its driver"), "{text}");
        assert!(report.to_string().contains(", 1 left out"), "{report}");
        assert_eq!(double.frozen(), [0; 0]);
    }
}

#[test]
fn several_that_died_are_no_reason_to_give_up() {
    let all = [1, 2, 3, 4, 5, 6];
    let double = Double::new(&[&all]);
    for fs in 1..6 {
        // In every attempt: one of them is found in each.
        for _ in 0..fs {
            double.fault(Op::Freeze, fs, EIO);
        }
        double.die(fs);
    }
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let report = engine.thaw().unwrap();
    assert!(report.is_clean());
    let frozen = report
        .file_systems
        .iter()
        .filter(|fs| fs.result == FileSystemResult::Frozen);
    assert_eq!(frozen.count(), 1);
}

#[test]
fn strict_fails_for_one_that_is_dead() {
    let double = Double::new(&[&[1, 2]]);
    double.fault(Op::Freeze, 2, EIO);
    double.die(2);
    let mut engine = double.engine().strictness(Strictness::Strict);
    let error = engine.freeze().unwrap_err();
    assert!(matches!(error, FreezeError::Gap(_)), "{error}");
    assert_eq!(double.frozen(), [0; 0]);
}

#[test]
fn one_that_lives_fails_the_freeze() {
    let double = Double::new(&[&[1, 2]]);
    double.fault(Op::Freeze, 2, EIO);
    let mut engine = double.engine();
    let error = engine.freeze().unwrap_err();
    assert!(matches!(error, FreezeError::Freeze(..)), "{error}");
    // Nor is a full disk a dead one.
    double.fault(Op::Freeze, 2, Fault::Errno(libc::ENOSPC));
    double.die(2);
    assert!(engine.freeze().is_err());
}

#[test]
fn the_look_ahead_fails_where_the_freeze_would() {
    let double = Double::new(&[&[1, 2]]);
    let mut engine = double.engine();
    engine.check().unwrap();
    double.hide(2);
    let error = engine.check().unwrap_err();
    assert!(matches!(error, FreezeError::Open(_)), "{error}");
}
