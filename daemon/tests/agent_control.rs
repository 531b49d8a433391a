//! The agent as its control socket shows it: status, manual freezes, and clients of every kind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;
mod driver;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use double::{Double, Entry, Fault, Op, PATIENCE};
use driver::Driver;
use hv_vssd::agent::Outlets;
use hv_vssd::control::{Client, ClientError, FreezeAnswer, Request, Thawed};
use hv_vssd::quiesce::Report;
use hv_vssd::quiesce::report::AskedBy;
use hv_vssd::status::{Cause, Status, Work};
use hvutil_sys::vss::{Operation, Status as Answer};

const NOTHING: [u32; 0] = [];

struct Scene {
    double: Double,
    driver: Driver,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(hold: Duration) -> Self {
        Self::on(&Double::new(&[&[1], &[2]]), hold)
    }

    fn on(double: &Double, hold: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let outlets = Outlets {
            control: Some(directory.path().join("run/control")),
            textfile: Some(directory.path().join("hv-vssd.prom")),
            journal: None,
        };
        let driver = Driver::start_with_outlets(double, hold, double.gate(), outlets);
        Self {
            double: double.clone(),
            driver,
            directory,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/control")
    }

    fn client(&self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Client::connect(&self.socket()) {
                Ok(client) => return client,
                // The agent registers before it listens.
                Err(ClientError::NotRunning) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn raw(&self) -> UnixStream {
        drop(self.client());
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn status(&self) -> Status {
        self.client().ask(&Request::Status).unwrap()
    }

    /// Polls until the agent says so.
    fn until(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "no {what}: {status:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn over(&self, checkpoints: usize) -> Status {
        self.until("report", |status| status.checkpoints.len() == checkpoints)
    }

    fn freeze(&self, seconds: f64) -> Client {
        let mut client = self.client();
        let held: FreezeAnswer = client.ask(&freeze(seconds)).unwrap();
        assert!(matches!(held, FreezeAnswer::Held { .. }), "{held:?}");
        client.set_patience(Some(PATIENCE)).unwrap();
        client
    }
}

fn freeze(seconds: f64) -> Request {
    Request::Freeze {
        seconds,
        paths: vec![],
    }
}

fn report(client: &mut Client) -> Report {
    match client.answer().unwrap() {
        FreezeAnswer::Done { report } => *report,
        other => panic!("{other:?}"),
    }
}

fn checkpoint(driver: &Driver) {
    assert_eq!(driver.request(Operation::HOT_BACKUP), Answer::Ok);
    assert_eq!(driver.request(Operation::FREEZE), Answer::Ok);
    assert_eq!(driver.request(Operation::THAW), Answer::Ok);
}

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

#[test]
fn the_socket_is_for_root_alone_and_replaces_what_a_dead_agent_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
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
fn nonsense_is_answered_with_what_is_wrong_and_the_connection_goes_on() {
    let scene = Scene::new(PATIENCE);
    let mut stream = scene.raw();
    for line in ["", "x", "{}", "{\"command\":\"freeze\"}", "\u{0}\u{1}"] {
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let answer = read_line(&mut stream);
        assert!(answer.starts_with("{\"error\":\""), "{line:?}: {answer}");
    }
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert!(read_line(&mut stream).starts_with("{\"ok\":{"));
    checkpoint(&scene.driver);
}

#[test]
fn a_line_without_an_end_is_refused_and_the_connection_closed() {
    let scene = Scene::new(PATIENCE);
    let mut stream = scene.raw();
    // The agent stops reading at its bound, and closes.
    let _ = stream.write_all(&vec![b'x'; 200 * 1024]);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.is_empty() || answer.contains("longer than"),
        "{answer}"
    );
    checkpoint(&scene.driver);
}

#[test]
fn many_requests_at_once_are_answered_in_their_order() {
    let scene = Scene::new(PATIENCE);
    let mut stream = scene.raw();
    let requests = "{\"command\":\"check\"}\n{\"command\":\"thaw\"}\n".repeat(100);
    stream.write_all(requests.as_bytes()).unwrap();
    for _ in 0..100 {
        assert!(read_line(&mut stream).contains("\"version\""));
        assert!(read_line(&mut stream).contains("\"held\":false"));
    }
}

#[test]
fn clients_that_do_not_read_or_do_not_speak_delay_no_checkpoint() {
    let scene = Scene::new(PATIENCE);
    for _ in 0..16 {
        checkpoint(&scene.driver);
    }
    let silent: Vec<UnixStream> = (0..3).map(|_| scene.raw()).collect();
    let deaf: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = scene.raw();
            stream
                .set_write_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            // More answers than any buffer holds.
            let _ = stream.write_all("{\"command\":\"status\"}\n".repeat(2_000).as_bytes());
            stream
        })
        .collect();
    for _ in 0..5 {
        checkpoint(&scene.driver);
    }
    assert_eq!(scene.status().counters.host.failed, 0);
    drop((silent, deaf));
}

#[test]
fn when_there_are_too_many_clients_the_oldest_idle_one_goes_and_none_that_holds() {
    let scene = Scene::new(PATIENCE);
    let mut holder = scene.freeze(3600.0);
    let mut idle: Vec<UnixStream> = (0..20).map(|_| scene.raw()).collect();
    let mut byte = [0];
    assert_eq!(idle[0].read(&mut byte).unwrap(), 0, "the oldest is dropped");
    assert_eq!(scene.double.frozen(), [1, 2], "the hold stays");
    idle.clear();
    let _: Thawed = scene.client().ask(&Request::Thaw).unwrap();
    assert!(report(&mut holder).is_clean());
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

/// The command itself, against the socket of an agent, or of none.
fn hv_vssd_status(socket: &std::path::Path, options: &[&str]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
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

fn read_line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}
