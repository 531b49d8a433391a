//! An agent that is asked to make way for a new program: the host notices nothing, and a hook gets its thaw.

#![allow(clippy::unwrap_used)]

mod double;
mod driver;

use double::Double;
use double::applications::Database;
use driver::Driver;
use hv_vssd::hooks::Operation as Call;
use hvutil_sys::vss::{Operation, Status};

#[test]
fn an_idle_agent_ends_and_closes_the_channel() {
    let double = Double::new(&[&[1]]);
    let mut driver = Driver::start(&double);
    driver.ask_to_retire();
    assert_eq!(driver.receive(), None, "the channel is still open");
    driver.join().unwrap();
}

#[test]
fn a_hold_is_kept_until_the_host_thaws() {
    let double = Double::new(&[&[1], &[2]]);
    let mut driver = Driver::start(&double);
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    driver.ask_to_retire();
    assert_eq!(driver.request(Operation(42)), Status::Fail, "it serves on");
    assert_eq!(double.frozen(), [1, 2]);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
    assert_eq!(double.frozen(), [0; 0]);
    driver.join().unwrap();
}

#[test]
fn the_hooks_thaw_comes_before_the_end() {
    let double = Double::new(&[&[1]]);
    let database = Database::new(&double);
    let mut driver = Driver::start_with_applications(&double, &database);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    driver.ask_to_retire();
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
    driver.join().unwrap();
    assert!(
        database.operations().ends_with(&[Call::Thaw]),
        "no thaw for the hook"
    );
}
