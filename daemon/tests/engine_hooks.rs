//! When the engine brings applications to rest, and that it always lets them go on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;
mod driver;

use std::sync::Arc;
use std::time::Duration;

use double::applications::Database;
use double::{Double, Entry, Fault, Op};
use driver::Driver;
use hv_vssd::filesystems::Appeared;
use hv_vssd::hooks::{Operation as Call, Outcome};
use hv_vssd::quiesce::report::HookOperation;
use hv_vssd::quiesce::{Engine, FreezeError, Until};
use hvutil_sys::vss::{Operation, Status};

fn engine(double: &Double, database: &Arc<Database>) -> Engine<Double> {
    double.engine().with_applications(database.clone())
}

#[test]
fn applications_rest_before_the_flush_and_go_on_after_the_thaw() {
    let double = Double::new(&[&[1], &[2]]);
    let database = Database::new(&double);
    let mut engine = engine(&double, &database);
    engine.freeze().unwrap();
    let mut report = engine.thaw().unwrap();
    assert!(engine.thaw_applications(Outcome::Success, || {}));
    assert!(engine.applications_thawed(Some(&mut report), Until::Over));
    let calls = database.calls();
    assert_eq!(database.operations(), [Call::Freeze, Call::Thaw]);
    assert_eq!(calls[0].flushed, [0; 0], "before anything is flushed");
    assert_eq!(calls[1].frozen, [0; 0], "after everything is thawed");
    assert_eq!(calls[1].outcome, Some(Outcome::Success));
    let told: Vec<_> = report.hooks.iter().map(|hook| hook.operation).collect();
    assert_eq!(told, [HookOperation::Freeze, HookOperation::Thaw]);
    assert!(
        !engine.thaw_applications(Outcome::Success, || {}),
        "owed once"
    );
}

#[test]
fn a_hook_that_fails_keeps_everything_from_being_frozen_and_gets_its_thaw() {
    let double = Double::new(&[&[1]]);
    let database = Database::new(&double);
    database.fail(true);
    let mut engine = engine(&double, &database);
    assert!(matches!(engine.freeze(), Err(FreezeError::Hook(_))));
    assert_eq!(double.done(Op::Sync), [0; 0]);
    let report = engine.take_failed().unwrap();
    assert_eq!(report.hooks.len(), 1);
    assert!(
        report.failures[0].contains("10-database failed"),
        "{report:?}"
    );
    database.fail(false);
    // Nobody has asked for it; the next freeze does not begin before.
    engine.freeze().unwrap();
    assert_eq!(
        database.operations(),
        [Call::Freeze, Call::Thaw, Call::Freeze]
    );
}

#[test]
fn applications_go_on_after_a_freeze_that_failed() {
    let double = Double::new(&[&[1]]);
    double.fault(Op::Freeze, 1, Fault::Errno(libc::EIO));
    let database = Database::new(&double);
    let driver = Driver::start_with_applications(&double, &database);
    assert_eq!(driver.request(Operation::FREEZE), Status::Fail);
    double.until("the thaw", |_| database.calls().len() == 2);
    assert_eq!(database.calls()[1].outcome, Some(Outcome::Failure));
}

#[test]
fn applications_go_on_when_the_engine_is_dropped_in_a_hold() {
    let double = Double::new(&[&[1]]);
    let database = Database::new(&double);
    let mut engine = engine(&double, &database);
    engine.freeze().unwrap();
    drop(engine);
    assert_eq!(database.operations(), [Call::Freeze, Call::Thaw]);
    assert_eq!(
        database.calls()[1].frozen,
        [0; 0],
        "after everything is thawed"
    );
}

#[test]
fn what_keeps_hooks_from_being_run_is_known_at_hot_backup() {
    let double = Double::new(&[&[1]]);
    let database = Database::new(&double);
    let driver = Driver::start_with_applications(&double, &database);
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
    database.refuse();
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Fail);
    assert_eq!(driver.request(Operation::FREEZE), Status::Fail);
    assert!(database.calls().is_empty(), "nothing was started");
}

#[test]
fn the_host_waits_for_no_hook_after_the_thaw_but_the_next_freeze_does() {
    let double = Double::new(&[&[1]]);
    let database = Database::new(&double);
    database.stick(Call::Thaw);
    let driver = Driver::start_with_applications(&double, &database);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
    database.wait_for(Call::Thaw);
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
    driver.ask(Operation::FREEZE);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(database.operations(), [Call::Freeze, Call::Thaw]);
    assert_eq!(double.frozen(), [0; 0], "the freeze waits");
    database.release();
    assert_eq!(driver.answer(), Status::Ok);
    assert_eq!(
        database.operations(),
        [Call::Freeze, Call::Thaw, Call::Freeze]
    );
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}

#[test]
fn a_host_that_goes_while_a_hook_is_at_work_ends_it_and_gets_no_freeze() {
    let double = Double::new(&[&[1]]);
    let database = Database::new(&double);
    database.stick(Call::Freeze);
    let mut driver = Driver::start_with_applications(&double, &database);
    driver.ask(Operation::FREEZE);
    database.wait_for(Call::Freeze);
    driver.hang_up();
    double.until("the thaw", |_| database.calls().len() == 2);
    assert_eq!(double.done(Op::Freeze), [0; 0]);
    driver.take_registration();
    database.release();
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}

#[test]
fn an_agent_asked_to_end_lets_applications_go_on_first() {
    for at in [None, Some(Call::Freeze), Some(Call::Thaw)] {
        let double = Double::new(&[&[1]]);
        let database = Database::new(&double);
        let mut driver = Driver::start_with_applications(&double, &database);
        if let Some(call) = at {
            database.stick(call);
        }
        driver.ask(Operation::FREEZE);
        if at == Some(Call::Freeze) {
            database.wait_for(Call::Freeze);
        } else {
            assert_eq!(driver.answer(), Status::Ok);
        }
        driver.ask_to_end();
        if at == Some(Call::Thaw) {
            database.wait_for(Call::Thaw);
            database.release();
        }
        driver.join().unwrap();
        assert_eq!(database.operations(), [Call::Freeze, Call::Thaw], "{at:?}");
        assert_eq!(double.frozen(), [0; 0]);
    }
}

#[test]
fn hooks_hear_of_success_only_if_the_host_has_ended_the_hold() {
    let double = Double::new(&[&[1]]);
    let database = Database::new(&double);
    let heard = |database: &Database| database.calls().pop().unwrap().outcome;
    let driver = Driver::start_with_applications(&double, &database);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
    double.until("the thaw", |_| database.calls().len() == 2);
    assert_eq!(heard(&database), Some(Outcome::Success));
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    drop(driver);
    assert_eq!(database.calls().len(), 4);
    assert_eq!(heard(&database), Some(Outcome::Failure));
}

#[test]
fn what_an_earlier_agent_owes_is_thawed_at_the_start() {
    let double = Double::new(&[&[1]]);
    let database = Database::new(&double);
    database.owe();
    let driver = Driver::start_with_applications(&double, &database);
    double.until("the thaw", |_| database.calls().len() == 1);
    assert_eq!(database.calls()[0].outcome, Some(Outcome::Failure));
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}

#[test]
fn hooks_are_called_once_however_often_the_freeze_is_begun() {
    let appeared = Appeared {
        to_freeze: vec!["/new".into()],
        ..Appeared::default()
    };
    let double = Double::new(&[&[1]]).appearing(Ok(appeared), Duration::ZERO);
    let database = Database::new(&double);
    let mut engine = engine(&double, &database);
    engine.freeze().unwrap();
    assert!(
        double.entries().contains(&Entry::Done(Op::Thaw, 1, 0)),
        "begun twice"
    );
    let report = engine.thaw().unwrap();
    assert_eq!(report.attempts, 2);
    assert_eq!(database.operations(), [Call::Freeze]);
    assert_eq!(report.hooks.len(), 1);
}
