//! The agent's outlets: its socket, the file for Prometheus, the journal.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};

use hv_vssd::agent::Outlets;
use hv_vssd::control::{Client, ClientError};
use hvutil_sys::vss::{Operation, Status as Answer};

use super::double::{Double, PATIENCE};
use super::driver::Driver;
use super::{Scene, checkpoint};

#[test]
fn the_socket_is_for_root_alone_and_replaces_what_a_dead_agent_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(
        Client::connect(&path),
        Err(ClientError::NotRunning)
    ));
    let double = Double::new(&[&[1]]);
    let outlets = Outlets {
        control: Some(path.clone()),
        ..Outlets::default()
    };
    let _driver = Driver::start_with_outlets(&double, PATIENCE, double.gate(), outlets);
    double.until("a listener", |_| Client::connect(&path).is_ok());
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_socket_that_cannot_be_made_does_not_keep_the_agent_from_serving() {
    let double = Double::new(&[&[1]]);
    let outlets = Outlets {
        control: Some("/proc/no/such/control".into()),
        textfile: Some("/proc/no/such/file.prom".into()),
        journal: Some("/proc/no/such/socket".into()),
    };
    let driver = Driver::start_with_outlets(&double, PATIENCE, double.gate(), outlets);
    checkpoint(&driver);
}

#[test]
fn the_file_for_prometheus_is_written_at_the_start_and_after_the_thaw() {
    let scene = Scene::new(PATIENCE);
    let file = scene.directory.path().join("hv-vssd.prom");
    let has = |line: &str| std::fs::read_to_string(&file).is_ok_and(|text| text.contains(line));
    scene
        .double
        .until("a file", |_| has("hv_vssd_registered 1\n"));
    checkpoint(&scene.driver);
    let line = "hv_vssd_checkpoints_total{asked_by=\"host\",outcome=\"success\"} 1\n";
    scene.double.until("the checkpoint in it", |_| has(line));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn the_end_of_the_agent_is_the_last_word_for_prometheus() {
    let mut scene = Scene::new(PATIENCE);
    let file = scene.directory.path().join("hv-vssd.prom");
    assert_eq!(scene.driver.request(Operation::FREEZE), Answer::Ok);
    scene.driver.ask_to_end();
    assert_eq!(scene.driver.receive(), None);
    scene.driver.join().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("hv_vssd_registered 0\n"), "{text}");
    assert!(
        text.contains("hv_vssd_checkpoint_failures_total{cause=\"ended-early\"} 1\n"),
        "{text}"
    );
}

#[test]
fn a_checkpoint_is_one_record_of_the_journal_and_none_comes_during_the_hold() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let double = Double::new(&[&[1], &[2]]);
    let outlets = Outlets {
        journal: Some(path),
        ..Outlets::default()
    };
    let driver = Driver::start_with_outlets(&double, PATIENCE, double.gate(), outlets);
    // The agent answers this only when its outlets are open.
    assert_eq!(driver.request(Operation::HOT_BACKUP), Answer::Ok);
    assert_eq!(driver.request(Operation::FREEZE), Answer::Ok);
    journal.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    assert!(
        journal.recv(&mut buffer).is_err(),
        "nothing during the hold"
    );
    journal.set_nonblocking(false).unwrap();
    assert_eq!(driver.request(Operation::THAW), Answer::Ok);
    let length = journal.recv(&mut buffer).unwrap();
    let record = String::from_utf8(buffer[..length].to_vec()).unwrap();
    for field in [
        "MESSAGE_ID=7ab593a661f3491bb65d1cf959a19844\n",
        "PRIORITY=6\n",
        "HV_VSSD_OUTCOME=success\n",
        "HV_VSSD_ASKED_BY=host\n",
        "HV_VSSD_FILE_SYSTEMS=2\n",
    ] {
        assert!(record.contains(field), "{field}: {record}");
    }
    assert!(record.contains("HV_VSSD_STALL_MSEC=") && record.contains("HV_VSSD_HOLD_MSEC="));
}
