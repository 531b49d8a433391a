//! What `status` tells of an agent, over its socket and as a command.

use std::path::Path;
use std::process::{Command, Output};

use hv_vssd::control::Request;
use hv_vssd::quiesce::report::AskedBy;
use hv_vssd::status::{Status, Work};
use hvutil_sys::vss::{Operation, Status as Answer};

use super::double::PATIENCE;
use super::{Scene, checkpoint};

#[test]
fn the_status_tells_of_the_service_of_a_hold_and_of_what_is_over() {
    let scene = Scene::new(PATIENCE);
    let status = scene.status();
    assert!(status.service.registered && status.checkpoints.is_empty());
    assert_eq!((status.work, status.hold), (Work::Idle, None));
    assert_eq!(status.service.protocol, Some(129));
    assert_eq!(status.pid, std::process::id());

    assert_eq!(scene.driver.request(Operation::HOT_BACKUP), Answer::Ok);
    assert_eq!(scene.driver.request(Operation::FREEZE), Answer::Ok);
    let status = scene.status();
    assert_eq!(status.work, Work::Held);
    let hold = status.hold.unwrap();
    assert_eq!(hold.asked_by, AskedBy::Host);
    assert!(hold.ends_in_seconds > 0.0 && hold.ends_in_seconds <= PATIENCE.as_secs_f64());

    assert_eq!(scene.driver.request(Operation::THAW), Answer::Ok);
    let status = scene.over(1);
    assert_eq!((status.work, status.hold), (Work::Idle, None));
    assert_eq!(status.counters.hot_backups_promised, 1);
    assert_eq!(status.counters.host.succeeded, 1);
    assert_eq!(
        status.counters.host.last_success_unix,
        Some(status.checkpoints[0].started_unix)
    );
    let report = &status.checkpoints[0];
    assert!(report.is_clean());
    assert_eq!(report.file_systems.len(), 2);
    assert!(status.counters.worst_stall.is_some());
}

#[test]
fn only_the_last_checkpoints_are_kept_and_all_are_counted() {
    let scene = Scene::new(PATIENCE);
    for _ in 0..20 {
        checkpoint(&scene.driver);
    }
    let status = scene.until("last report", |status| status.counters.host.succeeded == 20);
    assert_eq!(status.checkpoints.len(), 16);
    let ids: Vec<&str> = status
        .checkpoints
        .iter()
        .map(|report| report.id.as_str())
        .collect();
    assert!(ids.is_sorted(), "the newest last: {ids:?}");
}

#[test]
fn a_check_is_answered_without_the_checkpoints() {
    let scene = Scene::new(PATIENCE);
    checkpoint(&scene.driver);
    scene.over(1);
    let status: Status = scene.client().ask(&Request::Check).unwrap();
    assert!(status.checkpoints.is_empty() && status.service.registered);
}

/// The command itself, against the socket of an agent, or of none.
fn hv_vssd_status(socket: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
        .arg("status")
        .arg("--socket")
        .arg(socket)
        .args(options)
        .output()
        .unwrap()
}

#[test]
fn the_status_command_shows_the_checkpoint_as_a_table_as_json_and_as_metrics() {
    let scene = Scene::new(PATIENCE);
    checkpoint(&scene.driver);
    scene.over(1);
    let text = |options: &[&str]| {
        let output = hv_vssd_status(&scene.socket(), options);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(text(&[]).contains("registered"), "{}", text(&[]));
    let json: serde_json::Value = serde_json::from_str(&text(&["--json"])).unwrap();
    assert_eq!(json["checkpoints"].as_array().unwrap().len(), 1);
    let metrics = text(&["--prometheus"]);
    assert!(metrics.contains("# TYPE hv_vssd_"), "{metrics}");
}

#[test]
fn the_status_command_without_an_agent_fails_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let output = hv_vssd_status(&directory.path().join("control"), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("systemctl start hv-vssd"), "{said}");
}
