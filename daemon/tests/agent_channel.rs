//! The agent as the driver sees it: bytes in, bytes out, over a channel that keeps message boundaries.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;
mod driver;

use std::time::Duration;

use double::{Double, Entry, Fault, Op, PATIENCE};
use driver::Driver;
use hvutil_sys::vss::{Operation, Status};

const NOTHING: [u32; 0] = [];

/// An agent whose FREEZE was answered with success, and with this hold limit.
fn held(limit: Duration) -> (Double, Driver) {
    let double = Double::new(&[&[1], &[2]]);
    let driver = Driver::start_with(&double, limit, double.gate());
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    (double, driver)
}

/// An agent that was asked to FREEZE, has frozen the first file system, and waits for the second.
fn stuck_in_a_freeze() -> (Double, Driver) {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Freeze, 2, Fault::Stuck);
    let driver = Driver::start(&double);
    driver.ask(Operation::FREEZE);
    double.wait_for(Entry::Begun(Op::Freeze, 2));
    (double, driver)
}

fn thawed(double: &Double) {
    double.until("nothing frozen", |double| double.frozen().is_empty());
}

#[test]
fn a_checkpoint_is_answered_with_three_successes_and_leaves_nothing_frozen() {
    let double = Double::new(&[&[1], &[2]]);
    let driver = Driver::start(&double);
    for _ in 0..3 {
        assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
        assert_eq!(double.frozen(), NOTHING);
        assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
        assert_eq!(double.frozen(), [1, 2], "frozen when the host is told so");
        assert_eq!(driver.request(Operation::THAW), Status::Ok);
        assert_eq!(double.frozen(), NOTHING, "thawed when the host is told so");
    }
}

#[test]
fn a_freeze_that_fails_is_answered_with_failure_and_the_next_one_works() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Freeze, 2, Fault::Errno(libc::EIO));
    let driver = Driver::start(&double);
    assert_eq!(driver.request(Operation::FREEZE), Status::Fail);
    assert_eq!(double.frozen(), NOTHING);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}

#[test]
fn a_thaw_first_is_answered_with_failure_and_thaws_nothing() {
    let double = Double::new(&[&[1]]);
    double.freeze_by_someone_else(1);
    let driver = Driver::start(&double);
    assert_eq!(driver.request(Operation::THAW), Status::Fail);
    assert!(!double.thawed_for_someone_else());
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
}

#[test]
fn a_hold_that_someone_else_broke_is_answered_with_failure() {
    let (double, driver) = held(PATIENCE);
    double.thaw_by_someone_else(1);
    assert_eq!(driver.request(Operation::THAW), Status::Fail);
    assert_eq!(double.frozen(), NOTHING);
}

#[test]
fn unknown_operations_are_answered_with_failure_in_every_state() {
    let double = Double::new(&[&[1]]);
    let driver = Driver::start(&double);
    for operation in [0, 1, 3, 4, 7, 8, 100, 128, 129, 255].map(Operation) {
        assert_eq!(driver.request(operation), Status::Fail, "{operation}");
    }
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    for operation in [2, 5, 7, 200].map(Operation) {
        assert_eq!(driver.request(operation), Status::Fail, "{operation}");
        assert_eq!(double.frozen(), [1], "the hold stays");
    }
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}

#[test]
fn garbage_of_any_length_makes_the_agent_register_anew() {
    let double = Double::new(&[&[1]]);
    let mut driver = Driver::start(&double);
    for length in [1, 4, 11, 13, 24, 300] {
        driver.send(&vec![6; length]);
        assert_eq!(driver.receive(), None, "{length} bytes");
        driver.take_registration();
        assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
    }
}

#[test]
fn garbage_in_a_hold_thaws_everything() {
    for length in [1, 11, 13, 200] {
        let (double, mut driver) = held(PATIENCE);
        driver.send(&vec![5; length]);
        assert_eq!(driver.receive(), None, "{length} bytes");
        thawed(&double);
        assert_eq!(double.done(Op::Thaw), [2, 1]);
        driver.take_registration();
        assert_eq!(
            driver.request(Operation::THAW),
            Status::Fail,
            "that hold was not kept"
        );
        assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
        assert_eq!(driver.request(Operation::THAW), Status::Ok);
    }
}

#[test]
fn a_hang_up_in_a_hold_thaws_and_the_agent_comes_back_without_a_restart() {
    let (double, mut driver) = held(PATIENCE);
    driver.hang_up();
    thawed(&double);
    driver.take_registration();
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}

#[test]
fn a_hang_up_while_freezing_gives_the_freeze_up() {
    let (double, mut driver) = stuck_in_a_freeze();
    driver.hang_up();
    double.wait_for(Entry::Done(Op::Thaw, 1, 0));
    double.release(Op::Freeze, 2);
    thawed(&double);
    driver.take_registration();
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
}

#[test]
fn a_request_out_of_step_while_freezing_gives_the_freeze_up() {
    let (double, mut driver) = stuck_in_a_freeze();
    driver.ask(Operation::THAW);
    assert_eq!(driver.receive(), None);
    double.release(Op::Freeze, 2);
    thawed(&double);
    driver.take_registration();
    assert_eq!(driver.request(Operation::THAW), Status::Fail);
}

#[test]
fn asked_to_end_in_a_hold_the_agent_thaws_and_ends() {
    let (double, mut driver) = held(PATIENCE);
    driver.ask_to_end();
    assert_eq!(driver.receive(), None, "the driver tells the host failure");
    assert_eq!(double.frozen(), NOTHING);
    driver.join().unwrap();
}

#[test]
fn asked_to_end_while_freezing_the_agent_thaws_and_ends() {
    let (double, mut driver) = stuck_in_a_freeze();
    driver.ask_to_end();
    double.wait_for(Entry::Done(Op::Thaw, 1, 0));
    double.release(Op::Freeze, 2);
    assert_eq!(driver.answer(), Status::Fail);
    driver.join().unwrap();
    assert_eq!(double.frozen(), NOTHING);
}

#[test]
fn at_the_hold_limit_everything_is_thawed_and_the_late_thaw_is_answered_with_failure() {
    let (double, driver) = held(Duration::from_millis(50));
    thawed(&double);
    assert_eq!(driver.request(Operation::THAW), Status::Fail);
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
}

#[test]
fn a_thaw_that_comes_while_the_hold_limit_thaws_is_answered_with_failure() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Thaw, 2, Fault::Stuck);
    let driver = Driver::start_with(&double, Duration::from_millis(20), double.gate());
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    double.wait_for(Entry::Begun(Op::Thaw, 2));
    driver.ask(Operation::THAW);
    double.release(Op::Thaw, 2);
    assert_eq!(driver.answer(), Status::Fail);
    assert_eq!(double.frozen(), NOTHING);
}

#[test]
fn a_mount_table_that_cannot_be_read_is_answered_with_failure_and_the_agent_lives() {
    let double = Double::new(&[&[1]]);
    double.break_the_mount_table();
    let driver = Driver::start(&double);
    for operation in [Operation::HOT_BACKUP, Operation::FREEZE] {
        assert_eq!(driver.request(operation), Status::Fail, "{operation}");
    }
    assert_eq!(double.entries(), []);
    assert_eq!(driver.request(Operation::THAW), Status::Fail);
}

#[test]
fn a_stuck_freeze_makes_hot_backup_fail_until_it_is_thawed() {
    let (double, mut driver) = stuck_in_a_freeze();
    driver.hang_up();
    driver.take_registration();
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Fail);
    double.release(Op::Freeze, 2);
    thawed(&double);
    double.until("a checkpoint to be possible again", |_| {
        driver.request(Operation::HOT_BACKUP) == Status::Ok
    });
}
