//! Faults of the engine that were found once, with the scripted backend.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod double;
mod driver;
use double::{Double, Entry, Fault, Op};
use driver::Driver;
use hv_vssd::telemetry::Gate;
use hvutil_sys::vss::{Operation, Status};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[test]
fn what_could_neither_be_frozen_nor_flushed_is_no_success() {
    let double = Double::new(&[&[1]]).flushing(&[4]);
    double.fault(Op::Sync, 4, Fault::Errno(libc::EIO));
    assert!(double.engine().freeze().is_err());
}

#[test]
fn a_thaw_that_failed_is_tried_again_before_the_next_freeze() {
    let double = Double::new(&[&[1]]);
    double
        .fault(Op::Thaw, 1, Fault::Errno(libc::EIO))
        .fault(Op::Thaw, 1, Fault::Errno(libc::EIO));
    let mut engine = double.engine();
    engine.freeze().unwrap();
    assert!(!engine.thaw().unwrap().is_clean());
    let _ = engine.check();
    drop(engine);
    assert_eq!(double.frozen(), [0; 0]);
}

#[test]
fn a_freeze_that_was_given_up_while_queued_is_not_made() {
    let many: Vec<u32> = (1..=33).collect();
    let double = Double::new(&[&many]);
    for fs in 1..=32 {
        double.fault(Op::Freeze, fs, Fault::Slow(Duration::from_millis(400)));
    }
    assert!(
        double
            .engine_within(Duration::from_millis(100))
            .freeze()
            .is_err()
    );
    assert!(!double.entries().contains(&Entry::Begun(Op::Freeze, 33)));
}

#[derive(Clone, Default)]
struct Blocked(Arc<(Mutex<bool>, Condvar)>);
impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let free = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(free, |free| !*free).unwrap());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_answer_to_thaw_does_not_wait_for_the_log() {
    use tracing_subscriber::fmt::MakeWriter;
    let double = Double::new(&[&[1]]);
    let log = Blocked::default();
    let gate = Gate::new(log.clone());
    let driver = Driver::start_with(&double, double::PATIENCE, gate.clone());
    assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
    gate.make_writer().write_all(b"in the hold\n").unwrap();
    let freer = {
        let log = log.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(3));
            *log.0.0.lock().unwrap() = true;
            log.0.1.notify_all();
        })
    };
    let asked = Instant::now();
    let status = driver.request(Operation::THAW);
    let took = asked.elapsed();
    freer.join().unwrap();
    assert_eq!(status, Status::Ok);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_defect_while_opening_is_told_at_once_and_the_engine_lives_on() {
    let double = Double::new(&[&[1], &[2]]);
    double.fault(Op::Open, 2, Fault::Panic);
    let mut engine = double.engine();
    let started = Instant::now();
    let error = engine.freeze().unwrap_err();
    assert!(error.to_string().contains("internal error"), "{error}");
    // Its limit is a minute.
    assert!(started.elapsed() < Duration::from_secs(30));
    engine.freeze().unwrap();
    assert!(engine.thaw().unwrap().is_clean());
}
