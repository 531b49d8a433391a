//! The agent as its control socket shows it: status, manual freezes, and clients of every kind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod clients;
#[path = "../double/mod.rs"]
mod double;
#[path = "../driver/mod.rs"]
mod driver;
mod manual;
mod outlets;
mod status;
mod thaw;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use double::{Double, PATIENCE};
use driver::Driver;
use hv_vssd::agent::Outlets;
use hv_vssd::control::{Client, ClientError, FreezeAnswer, Request};
use hv_vssd::quiesce::Report;
use hv_vssd::status::Status;
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
