//! Holds that end before the one who asked for them wants it: by `thaw`, and at the limit.

use std::time::Duration;

use hv_vssd::control::{Request, Thawed};
use hv_vssd::status::Cause;
use hvutil_sys::vss::{Operation, Status as Answer};

use super::double::PATIENCE;
use super::{NOTHING, Scene, checkpoint, report};

#[test]
fn a_thaw_ends_a_manual_freeze_and_says_what_it_thawed() {
    let scene = Scene::new(PATIENCE);
    let mut client = scene.freeze(3600.0);
    let thawed: Thawed = scene.client().ask(&Request::Thaw).unwrap();
    assert!(thawed.held);
    assert_eq!(thawed.thawed.len(), 2);
    assert_eq!(scene.double.frozen(), NOTHING);
    assert!(report(&mut client).is_clean());
    let thawed: Thawed = scene.client().ask(&Request::Thaw).unwrap();
    assert_eq!(thawed, Thawed::default(), "nothing is held any more");
}

#[test]
fn a_thaw_on_the_connection_of_the_freeze_ends_it_too() {
    let scene = Scene::new(PATIENCE);
    let mut client = scene.freeze(3600.0);
    client.send(&Request::Thaw).unwrap();
    let thawed: Thawed = client.answer().unwrap();
    assert_eq!(thawed.thawed.len(), 2);
    assert!(report(&mut client).is_clean());
}

#[test]
fn a_thaw_in_the_hosts_hold_is_the_end_of_its_checkpoint_and_the_host_hears_failure() {
    let scene = Scene::new(PATIENCE);
    assert_eq!(scene.driver.request(Operation::FREEZE), Answer::Ok);
    let thawed: Thawed = scene.client().ask(&Request::Thaw).unwrap();
    assert_eq!(thawed.thawed.len(), 2);
    assert_eq!(scene.double.frozen(), NOTHING);
    assert_eq!(scene.driver.request(Operation::THAW), Answer::Fail);
    let status = scene.over(1);
    assert_eq!(status.counters.holds_ended_early, 1);
    assert_eq!(status.counters.host.failed, 1);
    assert!(status.checkpoints[0].failures[0].contains("'hv-vssd thaw'"));
    checkpoint(&scene.driver);
}

#[test]
fn a_hold_that_ended_at_its_limit_is_a_failed_checkpoint_in_the_status() {
    let scene = Scene::new(Duration::from_millis(30));
    assert_eq!(scene.driver.request(Operation::FREEZE), Answer::Ok);
    let status = scene.over(1);
    assert_eq!(status.counters.failures.get(&Cause::EndedEarly), Some(&1));
    assert_eq!(status.counters.holds_ended_early, 1);
    assert!(!status.checkpoints[0].is_clean());
}
