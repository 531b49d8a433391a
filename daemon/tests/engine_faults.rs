//! The engine with a scripted backend: what it freezes, what it thaws, and what it says when something fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;

use double::{Double, Entry, Fault, Fs, Op};
use hv_vssd::quiesce::error::with_causes;
use hv_vssd::quiesce::report::{FileSystemResult, PhaseName};
use hv_vssd::quiesce::{Engine, FreezeError, Limits};
use std::time::{Duration, Instant};

fn sorted(mut numbers: Vec<Fs>) -> Vec<Fs> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_the_device_mapper_suspends_within_the_hold_was_held_to_the_end() {
    let double = Double::new(&[&[1], &[2]]);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    double.suspend(2);
    let report = engine.thaw().unwrap();
    assert!(report.is_clean(), "{:?}", report.failures);
    let suspended: Vec<_> = report.file_systems.iter().map(|fs| fs.suspended).collect();
    assert_eq!(suspended, [false, true]);
    assert_eq!(double.frozen(), [0; 0]);
}

#[test]
fn stages_are_frozen_in_their_order_and_thawed_in_exact_reverse() {
    let double = Double::new(&[&[1], &[2], &[3]]);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    assert_eq!(double.done(Op::Freeze), [1, 2, 3]);
    assert_eq!(double.frozen(), [1, 2, 3]);
    let report = engine.thaw().unwrap();
    assert_eq!(double.done(Op::Thaw), [3, 2, 1]);
    assert!(report.is_clean());
    assert_eq!(report.file_systems.len(), 3);
    assert!(engine.thaw().is_none());
}

#[test]
fn what_was_held_open_is_closed_once_the_host_has_its_answer() {
    for fault in [None, Some(Fault::Errno(libc::EIO))] {
        let double = Double::new(&[&[1], &[2]]);
        if let Some(fault) = fault {
            double.fault(Op::Freeze, 2, fault);
        }
        let mut engine = double.engine();
        assert_eq!(engine.freeze().is_ok(), fault.is_none());
        engine.thaw();
        let before = double.let_go_of();
        assert_eq!(double.done(Op::Close), [0; 0], "{fault:?}");
        engine.after_answer();
        // In a thread of its own.
        double.until("the handles to be closed", |double| {
            sorted(double.done(Op::Close)) == [1, 2]
        });
        assert_eq!(double.let_go_of(), before + 1);
    }
}

#[test]
fn nothing_is_closed_while_a_thaw_is_stuck() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Thaw, 2, Fault::Stuck);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    engine.thaw();
    engine.after_answer();
    assert!(!engine.is_free());
    assert_eq!(double.done(Op::Close), [0; 0]);
    double.release(Op::Thaw, 2);
    double.wait_for(Entry::Done(Op::Thaw, 2, 0));
    double.until("the stuck thaw to be noticed", |_| {
        engine.check().is_ok() && engine.is_free()
    });
    engine.after_answer();
    double.until("the handles to be closed", |double| {
        sorted(double.done(Op::Close)) == [1, 2]
    });
}

#[test]
fn write_back_that_goes_on_for_ever_leaves_half_of_the_limit_to_the_flush() {
    let double = Double::new(&[&[1]]).kept_dirty();
    let limits = Limits {
        flush: Duration::from_secs(3),
        ..double::limits(double::PATIENCE)
    };
    let mut engine = Engine::new(double.clone(), limits, double.gate());
    engine.freeze().unwrap();
    let report = engine.thaw().unwrap();
    let write_back = report.last(PhaseName::WriteBack).unwrap();
    assert!(
        write_back.duration >= Duration::from_millis(1500),
        "{write_back:?}"
    );
    assert_eq!(double.done(Op::Sync), [1]);
}

#[test]
fn a_stage_begins_only_when_the_one_before_is_done() {
    let double = Double::new(&[&[1, 2, 3], &[4, 5]]);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let order = double.done(Op::Freeze);
    assert_eq!(sorted(order[..3].to_vec()), [1, 2, 3]);
    assert_eq!(sorted(order[3..].to_vec()), [4, 5]);
    engine.thaw().unwrap();
    let order = double.done(Op::Thaw);
    assert_eq!(sorted(order[..2].to_vec()), [4, 5]);
    assert_eq!(sorted(order[2..].to_vec()), [1, 2, 3]);
}

#[test]
fn everything_is_opened_and_flushed_before_the_first_freeze() {
    let double = Double::new(&[&[1, 2], &[3]]).flushing(&[4]);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let entries = double.entries();
    let first = entries
        .iter()
        .position(|entry| matches!(entry, Entry::Begun(Op::Freeze, _)))
        .unwrap();
    for fs in 1..=4 {
        for op in [Op::Open, Op::Sync] {
            let done = Entry::Done(op, fs, 0);
            assert!(entries[..first].contains(&done), "{done:?}");
        }
    }
    let after = &entries[first..];
    assert!(!after.iter().any(|entry| matches!(
        entry,
        Entry::Begun(Op::Open, _) | Entry::Begun(Op::Freeze, 4)
    )));
}

#[test]
fn when_the_fifth_of_eight_fails_the_four_before_it_are_thawed_and_only_those() {
    for errno in [libc::EIO, libc::EPERM] {
        let double = Double::new(&[&[1], &[2], &[3], &[4], &[5], &[6], &[7], &[8]]);
        double.fault(Op::Freeze, 5, Fault::Errno(errno));
        let mut engine = double.engine();
        let error = engine.freeze().unwrap_err();
        assert_eq!(double.done(Op::Thaw), [4, 3, 2, 1]);
        assert_eq!(double.frozen(), [0; 0]);
        let text = with_causes(&error);
        let cause = std::io::Error::from_raw_os_error(errno).to_string();
        assert!(
            text.contains("/fs5") && text.contains(&cause) && !text.contains('\n'),
            "{text}"
        );
        assert!(!double.entries().contains(&Entry::Begun(Op::Thaw, 5)));
    }
}

#[test]
fn within_a_stage_those_that_were_frozen_beside_the_failed_one_are_thawed() {
    let double = Double::new(&[&[1, 2, 3]]);
    double.fault(Op::Freeze, 2, Fault::Errno(libc::EIO));
    assert!(double.engine().freeze().is_err());
    assert_eq!(sorted(double.done(Op::Thaw)), [1, 3]);
}

#[test]
fn what_someone_else_froze_is_named_and_never_thawed() {
    let double = Double::new(&[&[1], &[2], &[3]]);
    double.freeze_by_someone_else(2);
    let mut engine = double.engine();
    let error = engine.freeze().unwrap_err();
    assert!(matches!(error, FreezeError::Foreign(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("/fs2") && text.contains("someone else"),
        "{text}"
    );
    assert_eq!(double.done(Op::Thaw), [1]);
    drop(engine);
    assert!(!double.thawed_for_someone_else());
}

#[test]
fn a_type_that_turns_out_unable_to_freeze_is_listed_as_flushed_only() {
    let double = Double::new(&[&[1, 2], &[3]]).flushing(&[4]);
    double.fault(Op::Freeze, 2, Fault::Errno(libc::EOPNOTSUPP));
    let mut engine = double.engine();
    engine.freeze().unwrap();
    assert_eq!(double.frozen(), [1, 3]);
    let report = engine.thaw().unwrap();
    assert!(report.is_clean(), "{:?}", report.failures);
    let flushed_only: Vec<&str> = report
        .file_systems
        .iter()
        .filter(|fs| fs.result == FileSystemResult::FlushedOnly)
        .map(|fs| fs.mount_point.as_str())
        .collect();
    assert_eq!(flushed_only.len(), 2, "{flushed_only:?}");
    assert!(flushed_only.contains(&"/fs2"));
    assert!(flushed_only.contains(&"/fs4"));
    assert_eq!(report.file_systems.len(), 4);
    assert!(!double.entries().contains(&Entry::Begun(Op::Thaw, 2)));
}

#[test]
fn a_flush_error_is_no_success_and_the_next_freeze_works() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Sync, 1, Fault::Errno(libc::EIO));
    let mut engine = double.engine();
    let error = engine.freeze().unwrap_err();
    assert!(error.to_string().contains("/fs1"), "{error}");
    assert_eq!(double.frozen(), [0; 0]);
    engine.freeze().unwrap();
    assert!(engine.thaw().unwrap().is_clean());
}

#[test]
fn a_mount_that_vanished_makes_a_new_plan() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Open, 2, Fault::Errno(libc::ENOENT));
    let mut engine = double.engine();
    engine.freeze().unwrap();
    assert_eq!(double.plans(), 2);
    assert_eq!(double.frozen(), [1, 2]);
    engine.thaw().unwrap();
}

#[test]
fn a_file_system_that_can_never_be_opened_fails_the_freeze_before_anything_is_frozen() {
    let double = Double::new(&[&[1], &[2]]);
    for _ in 0..100 {
        double.fault(Op::Open, 2, Fault::Errno(libc::EACCES));
    }
    let mut engine = double.engine();
    let error = engine.freeze().unwrap_err();
    assert!(matches!(error, FreezeError::Open(_)), "{error:?}");
    assert!(with_causes(&error).contains("disk2") || with_causes(&error).contains("259:2"));
    assert!(double.plans() < 100);
    assert!(
        !double
            .entries()
            .iter()
            .any(|entry| matches!(entry, Entry::Begun(Op::Freeze | Op::Sync, _)))
    );
}

#[test]
fn a_mount_table_that_cannot_be_read_freezes_nothing_and_names_the_line() {
    let double = Double::new(&[&[1]]);
    double.break_the_mount_table();
    let mut engine = double.engine();
    for error in [engine.check().unwrap_err(), engine.freeze().unwrap_err()] {
        let text = with_causes(&error);
        assert!(
            text.contains("mountinfo") && text.contains("line 2"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    assert_eq!(double.entries(), []);
}

#[test]
fn errors_of_the_thaw_are_all_told_and_stop_nothing() {
    let double = Double::new(&[&[1], &[2], &[3], &[4]]);
    double.fault(Op::Thaw, 2, Fault::Errno(libc::EIO));
    double.fault(Op::Thaw, 4, Fault::Errno(libc::EPERM));
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let report = engine.thaw().unwrap();
    let attempts: Vec<Fs> = double
        .entries()
        .iter()
        .filter_map(|entry| match entry {
            Entry::Begun(Op::Thaw, fs) => Some(*fs),
            _ => None,
        })
        .collect();
    assert_eq!(attempts[..4], [4, 3, 2, 1]);
    assert_eq!(
        double.frozen(),
        [0; 0],
        "what failed once is tried once more"
    );
    assert!(!report.is_clean());
    assert_eq!(report.failures.len(), 2, "{:?}", report.failures);
    let told = |fs: &str| report.failures.iter().any(|text| text.contains(fs));
    assert!(told("/fs2") && told("/fs4"), "{:?}", report.failures);
}

#[test]
fn what_someone_else_thawed_makes_the_checkpoint_unclean() {
    let double = Double::new(&[&[1], &[2]]);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    double.thaw_by_someone_else(1);
    let report = engine.thaw().unwrap();
    assert!(!report.is_clean());
    assert!(report.failures[0].contains("/fs1"), "{:?}", report.failures);
    assert_eq!(double.frozen(), [0; 0]);
    engine.freeze().unwrap();
    assert!(engine.thaw().unwrap().is_clean());
}

#[test]
fn a_second_freeze_in_a_hold_is_refused_and_the_hold_stays() {
    let double = Double::new(&[&[1]]);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    assert!(matches!(engine.freeze(), Err(FreezeError::Held)));
    assert_eq!(double.frozen(), [1]);
    assert!(engine.thaw().unwrap().is_clean());
}

#[test]
fn dropping_the_engine_in_a_hold_thaws_in_reverse() {
    let double = Double::new(&[&[1], &[2], &[3]]);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    drop(engine);
    assert_eq!(double.done(Op::Thaw), [3, 2, 1]);
}

#[test]
fn an_engine_that_is_dropped_by_a_panic_in_a_hold_thaws() {
    let double = Double::new(&[&[1], &[2]]);
    let mut engine = double.engine();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        engine.freeze().unwrap();
        panic!("in the middle of a hold");
    }));
    assert!(result.is_err());
    assert_eq!(double.done(Op::Thaw), [2, 1]);
}

#[test]
fn what_took_longest_to_flush_is_among_the_first_that_threads_take() {
    let many: Vec<u32> = (1..=300).collect();
    let double = Double::new(&[&many]);
    double.fault(Op::Sync, 300, Fault::Slow(Duration::from_millis(80)));
    let mut engine = double.engine();
    engine.freeze().unwrap();
    assert_eq!(double.frozen().len(), 300);
    assert!(engine.thaw().unwrap().is_clean());
    let begun = double
        .entries()
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Begun(Op::Freeze, fs) => Some(fs),
            _ => None,
        });
    // Each thread has taken one at most before it has.
    let place = begun.into_iter().position(|fs| fs == 300).unwrap();
    assert!(place < 64, "it began as number {place}");
}

#[test]
fn a_scrub_is_waited_for_before_anything_is_frozen_and_not_for_long() {
    let double = Double::new(&[&[1, 2]]);
    let mut engine = double.engine();
    double.scrub(2, Duration::from_millis(700));
    let error = engine.check().unwrap_err();
    assert!(matches!(error, FreezeError::AtWork(..)), "{error:?}");
    let begun = Instant::now();
    engine.freeze().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    engine.thaw().unwrap();

    double.scrub(2, Duration::from_secs(1000));
    let error = engine.freeze().unwrap_err();
    assert!(error.to_string().contains("(scrub)"), "{error}");
    assert!(begun.elapsed() < double::PATIENCE);
    assert_eq!(double.done(Op::Freeze).len(), 2, "the first freeze's alone");
    assert!(engine.is_free());
}
