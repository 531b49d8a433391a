//! Calls that do not return, freezes that are given up, and threads that die: nothing stays frozen, nothing waits for ever.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;

use std::thread;
use std::time::{Duration, Instant};

use double::{Double, Entry, Fault, Op, PATIENCE, limits};
use hv_vssd::quiesce::error::with_causes;
use hv_vssd::quiesce::{Engine, FreezeError};

const LIMIT: Duration = Duration::from_millis(100);

/// Freezes on a thread of its own; the engine comes back with the result.
fn freeze_aside(
    mut engine: Engine<Double>,
) -> thread::JoinHandle<(Engine<Double>, Result<(), FreezeError>)> {
    thread::spawn(move || {
        let result = engine.freeze();
        (engine, result)
    })
}

fn freeze_when_possible(engine: &mut Engine<Double>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = engine.freeze() {
        assert!(matches!(error, FreezeError::Stuck(..)), "{error:?}");
        assert!(Instant::now() < deadline, "still refused: {error}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_freeze_that_does_not_return_is_given_up_thawed_when_it_returns_and_refuses_others_until_then()
{
    let double = Double::new(&[&[1], &[2], &[3]]);
    double.fault(Op::Freeze, 2, Fault::Stuck);
    let mut engine = double.engine_within(LIMIT);
    let error = engine.freeze().unwrap_err();
    assert!(matches!(error, FreezeError::FreezeLimit(..)), "{error:?}");
    assert!(error.to_string().contains("/fs2"), "{error}");
    assert_eq!(double.done(Op::Thaw), [1], "the others are thawed");

    for error in [engine.freeze().unwrap_err(), engine.check().unwrap_err()] {
        assert!(matches!(error, FreezeError::Stuck(..)), "{error:?}");
        assert!(error.to_string().contains("/fs2"), "{error}");
    }
    assert_eq!(double.done(Op::Freeze), [1], "nothing more was frozen");

    double.release(Op::Freeze, 2);
    double.wait_for(Entry::Done(Op::Thaw, 2, 0));
    assert_eq!(double.frozen(), [0; 0]);
    freeze_when_possible(&mut engine);
    assert_eq!(double.frozen(), [1, 2, 3]);
    assert!(engine.thaw().unwrap().is_clean());
}

#[test]
fn a_freeze_that_returns_once_the_others_are_thawed_is_thawed_before_the_error_is_told() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Freeze, 2, Fault::Stuck);
    let helper = double.clone();
    let kernel = thread::spawn(move || {
        helper.wait_for(Entry::Done(Op::Thaw, 1, 0));
        helper.release(Op::Freeze, 2);
    });
    let mut engine = double.engine_within(LIMIT);
    assert!(engine.freeze().is_err());
    kernel.join().unwrap();
    assert_eq!(double.frozen(), [0; 0]);
    freeze_when_possible(&mut engine);
    engine.thaw().unwrap();
}

#[test]
fn a_stuck_freeze_that_fails_in_the_end_is_not_thawed() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Freeze, 2, Fault::Stuck);
    let engine = double.engine();
    let signal = engine.signal();
    let freeze = freeze_aside(engine);
    double.wait_for(Entry::Begun(Op::Freeze, 2));
    signal.abort();
    double.wait_for(Entry::Done(Op::Thaw, 1, 0));
    double.freeze_by_someone_else(2);
    double.release(Op::Freeze, 2);
    let (mut engine, result) = freeze.join().unwrap();
    assert!(matches!(result, Err(FreezeError::Aborted)), "{result:?}");
    signal.reset();
    double.until("a freeze to be judged by the file system again", |_| {
        matches!(engine.freeze(), Err(FreezeError::Foreign(_)))
    });
    assert!(!double.thawed_for_someone_else());
    assert_eq!(double.frozen(), [0; 0]);
}

#[test]
fn an_abort_while_flushing_gives_up_before_anything_is_frozen() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Sync, 1, Fault::Stuck);
    let engine = double.engine();
    let signal = engine.signal();
    let freeze = freeze_aside(engine);
    double.wait_for(Entry::Begun(Op::Sync, 1));
    signal.abort();
    let (mut engine, result) = freeze.join().unwrap();
    assert!(matches!(result, Err(FreezeError::Aborted)), "{result:?}");
    assert_eq!(double.done(Op::Freeze), [0; 0]);

    double.release(Op::Sync, 1);
    signal.reset();
    freeze_when_possible(&mut engine);
    assert!(engine.thaw().unwrap().is_clean());
}

#[test]
fn an_abort_while_freezing_thaws_what_is_frozen_and_what_freezes_later() {
    let double = Double::new(&[&[1], &[2, 3]]);
    double.fault(Op::Freeze, 2, Fault::Stuck);
    let engine = double.engine();
    let signal = engine.signal();
    let freeze = freeze_aside(engine);
    double.wait_for(Entry::Begun(Op::Freeze, 2));
    double.wait_for(Entry::Done(Op::Freeze, 3, 0));
    signal.abort();
    double.wait_for(Entry::Done(Op::Thaw, 1, 0));
    double.release(Op::Freeze, 2);
    let (mut engine, result) = freeze.join().unwrap();
    assert!(matches!(result, Err(FreezeError::Aborted)), "{result:?}");
    double.until("nothing frozen", |double| double.frozen().is_empty());
    signal.reset();
    freeze_when_possible(&mut engine);
    engine.thaw().unwrap();
}

#[test]
fn a_thaw_that_is_slow_and_works_is_a_success_and_keeps_no_other() {
    let double = Double::new(&[&[1], &[2], &[3]]);
    let slow = Duration::from_secs(7);
    double.fault(Op::Thaw, 2, Fault::Slow(slow));
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let began = Instant::now();
    let thaw = thread::spawn(move || (engine.thaw(), engine));
    double.wait_for(Entry::Done(Op::Thaw, 1, 0));
    assert!(
        began.elapsed() < slow,
        "the first stage waited for the second"
    );
    let (report, _engine) = thaw.join().unwrap();
    let report = report.unwrap();
    assert!(report.is_clean(), "{:?}", report.failures);
    assert_eq!(double.frozen(), [0; 0]);
}

#[test]
fn six_stages_that_do_not_thaw_are_given_up_before_the_driver_answers_by_itself() {
    let double = Double::new(&[&[1], &[2], &[3], &[4], &[5], &[6], &[7]]);
    for fs in 2..=7 {
        double.fault(Op::Thaw, fs, Fault::Stuck);
    }
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let began = Instant::now();
    let report = engine.thaw().unwrap();
    let took = began.elapsed();
    // drivers/hv/hv_snapshot.c, VSS_FREEZE_TIMEOUT and its kin: 30 s for THAW.
    assert!(took < Duration::from_secs(28), "{took:?}");
    assert!(!report.is_clean());
    assert_eq!(double.done(Op::Thaw), [1], "the one that works is thawed");
    for fs in 2..=7 {
        double.release(Op::Thaw, fs);
    }
}

#[test]
fn a_thaw_that_does_not_return_does_not_keep_the_others() {
    let double = Double::new(&[&[1], &[2], &[3]]);
    double.fault(Op::Thaw, 3, Fault::Stuck);
    let mut engine = double.engine();
    engine.freeze().unwrap();
    let report = engine.thaw().unwrap();
    assert_eq!(double.done(Op::Thaw), [2, 1]);
    assert!(!report.is_clean());
    assert!(report.failures[0].contains("/fs3"), "{:?}", report.failures);
    assert!(matches!(engine.freeze(), Err(FreezeError::Stuck(..))));

    double.release(Op::Thaw, 3);
    double.until("nothing frozen", |double| double.frozen().is_empty());
    freeze_when_possible(&mut engine);
    assert!(engine.thaw().unwrap().is_clean());
}

#[test]
fn a_panic_in_a_freeze_leaves_nothing_frozen_and_ends_in_an_error() {
    let double = Double::new(&[&[1], &[2], &[3]]);
    double.fault(Op::Freeze, 2, Fault::Panic);
    let mut engine = double.engine_within(LIMIT);
    let error = engine.freeze().unwrap_err();
    assert!(with_causes(&error).contains("/fs2"), "{error}");
    assert_eq!(double.done(Op::Thaw), [1]);
    assert_eq!(double.frozen(), [0; 0]);
    drop(engine);
}

#[test]
fn more_file_systems_than_threads_are_all_frozen_and_all_thawed() {
    let many: Vec<u32> = (1..=200).collect();
    let double = Double::new(&[&many]);
    double.fault(Op::Freeze, 7, Fault::Slow(Duration::from_millis(50)));
    let mut engine = double.engine();
    engine.freeze().unwrap();
    assert_eq!(double.frozen().len(), 200);
    assert!(engine.thaw().unwrap().is_clean());
    assert_eq!(double.frozen(), [0; 0]);
}

#[test]
fn nothing_is_written_to_the_log_from_the_first_freeze_to_the_last_thaw() {
    use std::io::Write;
    use tracing_subscriber::fmt::MakeWriter;
    let double = Double::new(&[&[1], &[2]]);
    let gate = double.gate();
    let mut engine = Engine::new(double.clone(), limits(PATIENCE), gate.clone());
    let log = || gate.make_writer().write_all(b"a record\n").unwrap();
    log();
    engine.freeze().unwrap();
    log();
    log();
    engine.thaw().unwrap();
    engine.after_answer();
    let entries = double.entries();
    let place = |wanted| entries.iter().position(|entry| *entry == wanted).unwrap();
    let hold = place(Entry::Begun(Op::Freeze, 1))..place(Entry::Done(Op::Thaw, 1, 0));
    assert!(!entries[hold.clone()].contains(&Entry::Log), "{entries:?}");
    assert!(entries[..hold.start].contains(&Entry::Log));
    assert!(entries[hold.end..].contains(&Entry::Log), "{entries:?}");
}

#[test]
fn after_a_freeze_that_failed_the_log_opens_once_the_host_has_its_answer() {
    use std::io::Write;
    use tracing_subscriber::fmt::MakeWriter;
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Freeze, 2, Fault::Errno(libc::EIO));
    let gate = double.gate();
    let mut engine = Engine::new(double.clone(), limits(PATIENCE), gate.clone());
    assert!(engine.freeze().is_err());
    engine.after_answer();
    assert!(!gate.is_closed());
    gate.make_writer().write_all(b"the cause\n").unwrap();
    assert!(double.entries().ends_with(&[Entry::Log]));
}
