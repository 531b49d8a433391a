//! What the engine reports of a checkpoint, also of one that failed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;

use std::time::Duration;

use double::{Double, Entry, Fault, Op};
use hv_vssd::config::ForeignFreeze;
use hv_vssd::filesystems::DeviceNumber;
use hv_vssd::quiesce::report::{FileSystemReport, FileSystemResult, Outcome, PhaseName};
use hv_vssd::quiesce::{AskedBy, Checkpoint, Report};

const SLOW: Duration = Duration::from_millis(40);

fn of<'a>(report: &'a Report, mount_point: &str) -> &'a FileSystemReport {
    let mut all = report.file_systems.iter();
    all.find(|fs| fs.mount_point == mount_point).unwrap()
}

fn names(report: &Report) -> Vec<PhaseName> {
    report.phases.iter().map(|phase| phase.phase).collect()
}

#[test]
fn every_phase_follows_the_one_before_and_the_hold_is_no_stall() {
    let double = Double::new(&[&[1], &[2, 3]]).flushing(&[4]);
    double.fault(Op::Freeze, 2, Fault::Slow(SLOW));
    let mut engine = double.engine();
    engine.freeze().unwrap();
    std::thread::sleep(10 * SLOW);
    let report = engine.thaw().unwrap();
    use PhaseName::{Flush, Freeze, Hold, Prepare, Thaw, WriteBack};
    assert_eq!(
        names(&report),
        [Prepare, WriteBack, Flush, Freeze, Hold, Thaw]
    );
    for pair in report.phases.windows(2) {
        assert!(pair[0].span.end() <= pair[1].span.start, "{pair:?}");
    }
    assert_eq!(report.asked_by, AskedBy::Host);
    assert_eq!((report.outcome, report.attempts), (Outcome::Success, 1));
    let stages: Vec<_> = report.file_systems.iter().map(|fs| fs.stage).collect();
    assert_eq!(stages, [Some(1), Some(2), Some(2), None]);
    let hold = report.last(Hold).unwrap().duration;
    assert!(hold >= 10 * SLOW, "{hold:?}");
    for fs in &report.file_systems[..3] {
        assert_eq!(fs.result, FileSystemResult::Frozen);
        let (freeze, thaw) = (fs.freeze.unwrap(), fs.thaw.unwrap());
        assert!(fs.flush.unwrap().end() <= freeze.start);
        assert_eq!(fs.stall, Some(thaw.end() - freeze.start - hold));
    }
    // The one that was frozen first waited for the slow one of the next stage.
    assert!(of(&report, "/fs1").stall.unwrap() >= SLOW);
    assert!(of(&report, "/fs2").freeze.unwrap().duration >= SLOW);
    let worst = report.worst_stall.as_ref().unwrap();
    assert_eq!((worst.mount_point.as_str(), worst.dev.minor), ("/fs1", 1));
    let flushed = of(&report, "/fs4");
    assert_eq!(flushed.result, FileSystemResult::FlushedOnly);
    assert!(flushed.flush.is_some() && flushed.stall.is_none());
}

#[test]
fn a_freeze_that_failed_is_reported_too_with_what_was_tried() {
    let double = Double::new(&[&[1], &[2], &[3]]);
    double.fault(Op::Freeze, 2, Fault::Errno(libc::EIO));
    let mut engine = double.engine();
    assert_eq!(engine.take_failed(), None);
    engine.freeze().unwrap_err();
    let report = engine.take_failed().unwrap();
    assert_eq!(engine.take_failed(), None);
    assert_eq!(report.outcome, Outcome::Failure);
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    assert!(report.failures[0].starts_with("/fs2 (ext4 on 259:2) cannot be frozen: "));
    assert_eq!(of(&report, "/fs1").result, FileSystemResult::Frozen);
    assert!(of(&report, "/fs1").stall.is_some());
    assert_eq!(of(&report, "/fs2").result, FileSystemResult::NotFrozen);
    assert!(of(&report, "/fs2").freeze.is_some());
    assert_eq!(of(&report, "/fs3").freeze, None);
    assert_eq!(report.last(PhaseName::Hold), None);
    assert!(report.last(PhaseName::Thaw).is_some());

    engine.freeze().unwrap();
    assert_eq!(engine.take_failed(), None);
    let next = engine.thaw().unwrap();
    assert!(next.id > report.id, "{} {}", next.id, report.id);
}

#[test]
fn a_freeze_that_failed_before_anything_was_opened_says_how_far_it_came() {
    let double = Double::new(&[&[1]]);
    double.break_the_mount_table();
    let mut engine = double.engine();
    engine.freeze().unwrap_err();
    let report = engine.take_failed().unwrap();
    assert_eq!(names(&report), [PhaseName::Prepare]);
    assert!(report.file_systems.is_empty() && report.failures.len() == 1);
}

#[test]
fn someone_elses_freeze_and_a_broken_hold_are_told_apart() {
    let double = Double::new(&[&[1], &[2]]);
    double.freeze_by_someone_else(2);
    let mut engine = double.engine().foreign_freeze(ForeignFreeze::Accept);
    engine.freeze().unwrap();
    double.thaw_by_someone_else(1);
    let report = engine.thaw().unwrap();
    assert_eq!(of(&report, "/fs2").result, FileSystemResult::Foreign);
    assert_eq!(of(&report, "/fs2").stall, None);
    assert_eq!(report.foreign().count(), 1);
    assert!(!report.is_clean());
    assert!(report.failures[0].contains("/fs1"), "{:?}", report.failures);
}

#[test]
fn a_stuck_thaw_is_told_with_the_stall_so_far() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Thaw, 2, Fault::Stuck);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let report = engine.thaw().unwrap();
    assert_eq!(of(&report, "/fs1").result, FileSystemResult::Frozen);
    let stuck = of(&report, "/fs2");
    assert_eq!((stuck.result, stuck.thaw), (FileSystemResult::Stuck, None));
    let worst = report.worst_stall.as_ref().unwrap();
    assert!(worst.stall >= stuck.freeze.unwrap().duration);
    double.release(Op::Thaw, 2);
}

#[test]
fn a_freeze_that_was_given_up_and_comes_back_is_thawed_and_its_stall_told() {
    let double = Double::new(&[&[1, 2]]);
    double.fault(Op::Freeze, 2, Fault::Slow(SLOW));
    double.fault(Op::Thaw, 2, Fault::Slow(2 * SLOW));
    let mut engine = double.engine();
    let signal = engine.signal();
    let theirs = double.clone();
    let interrupt = std::thread::spawn(move || {
        theirs.wait_for(Entry::Begun(Op::Freeze, 2));
        signal.abort();
    });
    engine.freeze().unwrap_err();
    interrupt.join().unwrap();
    let report = engine.take_failed().unwrap();
    assert_eq!(double.frozen(), [0; 0]);
    let undone = of(&report, "/fs2");
    assert_eq!(undone.result, FileSystemResult::NotFrozen);
    assert!(undone.stall.unwrap() >= 3 * SLOW, "{undone:?}");
}

#[test]
fn a_checkpoint_by_hand_touches_nothing_but_what_was_named() {
    let double = Double::new(&[&[1], &[2], &[3]]).flushing(&[4, 5]);
    let mut engine = double.engine();
    let checkpoint = Checkpoint {
        asked_by: AskedBy::Manual,
        only: Some(vec![DeviceNumber::new(259, 2), DeviceNumber::new(259, 4)]),
    };
    engine.freeze_for(&checkpoint).unwrap();
    assert_eq!(double.frozen(), [2]);
    let report = engine.thaw().unwrap();
    assert_eq!(report.asked_by, AskedBy::Manual);
    let places = report.file_systems.iter().map(|fs| fs.mount_point.as_str());
    assert_eq!(places.collect::<Vec<_>>(), ["/fs2", "/fs4"]);
    assert_eq!(of(&report, "/fs2").stage, Some(1));
    assert_eq!(double.done(Op::Open), [2, 4]);
    // Both at once.
    let mut flushed = double.done(Op::Sync);
    flushed.sort_unstable();
    assert_eq!(flushed, [2, 4]);
}
