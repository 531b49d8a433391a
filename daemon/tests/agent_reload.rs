//! A configuration that is read again: between checkpoints, and all or nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;
mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use double::applications::Database;
use double::{Double, PATIENCE};
use driver::Driver;
use hv_vssd::agent::{Reload, Reloaded, session};
use hv_vssd::config::{ForeignFreeze, Strictness};
use hv_vssd::hooks::Operation as Call;
use hvutil_sys::vss::{Operation, Status};
use tokio::sync::mpsc;

/// How often the configuration was read, and what was made of it.
#[derive(Clone, Default)]
struct Reads(Arc<AtomicU32>);

impl Reads {
    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn until(&self, count: u32) {
        let deadline = Instant::now() + PATIENCE;
        while self.count() < count {
            assert!(Instant::now() < deadline, "read {} times", self.count());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Makes the agent freeze what `new` has, with a hold of `hold`.
    fn taking(&self, new: &Double, hold: Duration) -> Reload<Double> {
        let (reads, new) = (self.clone(), new.clone());
        Box::new(move |engine| {
            engine.configure(
                new.clone(),
                double::limits(PATIENCE),
                ForeignFreeze::Fail,
                Strictness::Normal,
            );
            reads.0.fetch_add(1, Ordering::SeqCst);
            let limits = session::Limits {
                freeze_request: PATIENCE,
                hold,
            };
            Ok(Reloaded {
                limits,
                textfile: None,
            })
        })
    }

    fn refusing(&self) -> Reload<Double> {
        let reads = self.clone();
        Box::new(move |_| {
            reads.0.fetch_add(1, Ordering::SeqCst);
            Err("/etc/hv-vssd/config.toml, line 3: unknown key".into())
        })
    }
}

fn checkpoint(driver: &Driver) {
    for operation in [Operation::HOT_BACKUP, Operation::FREEZE, Operation::THAW] {
        assert_eq!(driver.request(operation), Status::Ok, "{operation}");
    }
}

#[test]
fn a_reload_is_in_force_with_the_next_checkpoint() {
    let (old, new) = (Double::new(&[&[1]]), Double::new(&[&[7], &[8]]));
    let (ask, asked) = mpsc::channel(1);
    let reads = Reads::default();
    let reload = (asked, reads.taking(&new, PATIENCE));
    let driver = Driver::start_reloadable(&old, reload);
    checkpoint(&driver);
    ask.blocking_send(()).unwrap();
    reads.until(1);
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(new.frozen(), [7, 8]);
    assert_eq!(old.frozen(), [0; 0]);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}

#[test]
fn a_reload_in_a_hold_waits_for_the_thaw() {
    let (old, new) = (Double::new(&[&[1]]), Double::new(&[&[7]]));
    let (ask, asked) = mpsc::channel(1);
    let reads = Reads::default();
    let reload = (asked, reads.taking(&new, PATIENCE));
    let driver = Driver::start_reloadable(&old, reload);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    ask.blocking_send(()).unwrap();
    // The channel is empty: the agent has taken note.
    ask.blocking_send(()).unwrap();
    assert_eq!(driver.request(Operation(42)), Status::Fail);
    assert_eq!(reads.count(), 0, "read in a hold");
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
    assert_eq!(old.frozen(), [0; 0]);
    reads.until(1);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(new.frozen(), [7]);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}

#[test]
fn the_hold_limit_of_a_reload_ends_the_next_hold() {
    let (old, new) = (Double::new(&[&[1]]), Double::new(&[&[1]]));
    let (ask, asked) = mpsc::channel(1);
    let reads = Reads::default();
    let reload = (asked, reads.taking(&new, Duration::from_millis(50)));
    let driver = Driver::start_reloadable(&old, reload);
    ask.blocking_send(()).unwrap();
    reads.until(1);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    new.until("thawed by the limit", |double| double.frozen().is_empty());
    assert_eq!(driver.request(Operation::THAW), Status::Fail);
}

#[test]
fn what_cannot_be_taken_changes_nothing_and_is_told_in_one_line() {
    let old = Double::new(&[&[1]]);
    let (ask, asked) = mpsc::channel(1);
    let reads = Reads::default();
    let reload = (asked, reads.refusing());
    let driver = Driver::start_reloadable(&old, reload);
    ask.blocking_send(()).unwrap();
    reads.until(1);
    checkpoint(&driver);
    assert_eq!(old.done(double::Op::Freeze), [1]);
}

#[test]
fn a_reload_may_name_the_file_for_prometheus() {
    let double = Double::new(&[&[1]]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hv-vssd.prom");
    let named = file.clone();
    let (ask, asked) = mpsc::channel(1);
    let reload: Reload<Double> = Box::new(move |_| {
        Ok(Reloaded {
            limits: session::Limits {
                freeze_request: PATIENCE,
                hold: PATIENCE,
            },
            textfile: Some(named.clone()),
        })
    });
    let driver = Driver::start_reloadable(&double, (asked, reload));
    checkpoint(&driver);
    assert!(!file.exists());
    ask.blocking_send(()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "no file was written");
        thread::sleep(Duration::from_millis(2));
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("hv_vssd_"), "{text}");
}

#[test]
fn a_reload_that_waited_for_hooks_comes_before_the_next_hold_and_not_in_it() {
    let (double, new) = (Double::new(&[&[1]]), Double::new(&[&[7]]));
    let database = Database::new(&double);
    database.stick(Call::Thaw);
    let (ask, asked) = mpsc::channel(1);
    let reads = Reads::default();
    let reload = (asked, reads.taking(&new, PATIENCE));
    let driver = Driver::start_reloadable_with_applications(&double, &database, reload);
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
    database.wait_for(Call::Thaw);
    ask.blocking_send(()).unwrap();
    // The channel is empty: the agent has taken note.
    ask.blocking_send(()).unwrap();
    assert_eq!(driver.request(Operation::HOT_BACKUP), Status::Ok);
    driver.ask(Operation::FREEZE);
    database.release();
    assert_eq!(driver.answer(), Status::Ok);
    assert_eq!(
        new.frozen(),
        [7],
        "the hold is one of the new configuration"
    );
    assert_eq!(driver.request(Operation::THAW), Status::Ok);
}
