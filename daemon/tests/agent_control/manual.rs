//! A freeze that a person asks the agent for: how it ends, and what the host hears meanwhile.

use std::time::Duration;

use hv_vssd::control::{Client, ClientError, FreezeAnswer, Request};
use hv_vssd::quiesce::report::AskedBy;
use hv_vssd::status::{Cause, Work};
use hvutil_sys::vss::{Operation, Status as Answer};

use super::double::{Double, Entry, Fault, Op, PATIENCE};
use super::{NOTHING, Scene, checkpoint, freeze, report};

#[test]
fn a_manual_freeze_ends_at_its_time_and_tells_how_it_went() {
    let scene = Scene::new(PATIENCE);
    let mut client = scene.freeze(0.05);
    let report = report(&mut client);
    assert_eq!(scene.double.frozen(), NOTHING);
    assert_eq!(report.asked_by, AskedBy::Manual);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(scene.double.done(Op::Thaw), [2, 1]);
    let status = scene.over(1);
    assert_eq!(status.counters.manual.succeeded, 1);
    assert_eq!(status.counters.host.succeeded, 0);
    checkpoint(&scene.driver);
}

#[test]
fn a_manual_freeze_ends_with_its_client() {
    let scene = Scene::new(PATIENCE);
    let client = scene.freeze(3600.0);
    assert_eq!(scene.double.frozen(), [1, 2]);
    assert_eq!(scene.status().work, Work::ManualHeld);
    drop(client);
    scene
        .double
        .until("nothing frozen", |double| double.frozen().is_empty());
    scene.over(1);
    checkpoint(&scene.driver);
}

#[test]
fn a_client_that_goes_while_its_freeze_is_stuck_ends_it() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Freeze, 2, Fault::Stuck);
    let scene = Scene::on(&double, PATIENCE);
    let mut client = scene.client();
    client.send(&freeze(5.0)).unwrap();
    double.wait_for(Entry::Begun(Op::Freeze, 2));
    assert_eq!(scene.status().work, Work::ManualFreezing);
    drop(client);
    double.wait_for(Entry::Done(Op::Thaw, 1, 0));
    double.release(Op::Freeze, 2);
    double.until("nothing frozen", |double| double.frozen().is_empty());
    let status = scene.over(1);
    assert_eq!(status.counters.failures.get(&Cause::GivenUp), Some(&1));
}

#[test]
fn a_manual_freeze_ends_at_the_hold_limit_whatever_was_asked() {
    let scene = Scene::new(Duration::from_millis(50));
    let mut client = scene.client();
    match client.ask(&freeze(3600.0)).unwrap() {
        FreezeAnswer::Held { held } => assert_eq!(held, 0.05),
        other => panic!("{other:?}"),
    }
    client.set_patience(Some(PATIENCE)).unwrap();
    assert!(report(&mut client).is_clean());
    assert_eq!(scene.double.frozen(), NOTHING);
}

#[test]
fn a_manual_freeze_is_refused_while_the_host_is_at_work_and_does_not_disturb_it() {
    let scene = Scene::new(PATIENCE);
    assert_eq!(scene.driver.request(Operation::HOT_BACKUP), Answer::Ok);
    let refused = |asked: Result<FreezeAnswer, ClientError>| {
        let error = asked.unwrap_err();
        assert!(error.is_busy(), "{error}");
        assert!(error.to_string().contains("the host is at work"), "{error}");
    };
    refused(scene.client().ask(&freeze(1.0)));
    assert_eq!(scene.driver.request(Operation::FREEZE), Answer::Ok);
    refused(scene.client().ask(&freeze(1.0)));
    assert_eq!(scene.double.frozen(), [1, 2]);
    assert_eq!(scene.driver.request(Operation::THAW), Answer::Ok);
    drop(scene.freeze(1.0));
}

#[test]
fn the_host_is_told_failure_during_a_manual_freeze_and_its_next_checkpoint_works() {
    let scene = Scene::new(PATIENCE);
    let client = scene.freeze(3600.0);
    for operation in [Operation::HOT_BACKUP, Operation::FREEZE, Operation::THAW] {
        assert_eq!(scene.driver.request(operation), Answer::Fail, "{operation}");
        assert_eq!(scene.double.frozen(), [1, 2], "the manual hold stays");
    }
    let second: Result<FreezeAnswer, _> = scene.client().ask(&freeze(1.0));
    let error = second.unwrap_err();
    assert!(
        error.is_busy() && error.to_string().contains("another manual freeze"),
        "{error}"
    );
    drop(client);
    scene.over(1);
    checkpoint(&scene.driver);
}

#[test]
fn a_freeze_that_fails_tells_its_client_why() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Freeze, 2, Fault::Errno(libc::EIO));
    let scene = Scene::on(&double, PATIENCE);
    let mut client = scene.client();
    client.send(&freeze(5.0)).unwrap();
    let report = report(&mut client);
    assert!(!report.is_clean());
    assert!(
        report.failures[0].contains("cannot be frozen"),
        "{report:?}"
    );
    assert_eq!(double.frozen(), NOTHING);
    let status = scene.over(1);
    assert_eq!(status.counters.failures.get(&Cause::FileSystem), Some(&1));
}

#[test]
fn a_path_whose_file_system_no_checkpoint_freezes_freezes_nothing() {
    let scene = Scene::new(PATIENCE);
    let mut client = scene.client();
    client
        .send(&Request::Freeze {
            seconds: 1.0,
            paths: vec!["/proc/self".into()],
        })
        .unwrap();
    let report = report(&mut client);
    assert!(
        report.failures[0].contains("is not frozen in a checkpoint"),
        "{report:?}"
    );
    assert_eq!(scene.double.done(Op::Freeze), NOTHING);
    checkpoint(&scene.driver);
}

#[test]
fn a_channel_lost_in_a_manual_hold_ends_it_so_that_the_agent_registers_again() {
    let mut scene = Scene::new(PATIENCE);
    let mut client = scene.freeze(3600.0);
    scene.driver.hang_up();
    report(&mut client);
    assert_eq!(scene.double.frozen(), NOTHING);
    scene.driver.take_registration();
    let status = scene.until("registration", |status| status.service.registered);
    assert_eq!(status.counters.channel_losses, 1);
    checkpoint(&scene.driver);
}

#[test]
fn asked_to_end_in_a_manual_hold_the_agent_thaws_ends_and_takes_its_socket_away() {
    let mut scene = Scene::new(PATIENCE);
    let _client = scene.freeze(3600.0);
    scene.driver.ask_to_end();
    assert_eq!(scene.driver.receive(), None);
    scene.driver.join().unwrap();
    assert_eq!(scene.double.frozen(), NOTHING);
    assert!(!scene.socket().exists());
    let error = Client::connect(&scene.socket()).unwrap_err();
    assert!(matches!(error, ClientError::NotRunning));
}
