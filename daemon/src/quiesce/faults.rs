//! Marks the boundaries between phases for the fault bench. Release builds carry nothing of it: the feature
//! `fault-points` is for test builds alone.
//!
//! `HV_VSSD_FAULT=POINT=ACTION` makes the process do something the first time it comes to POINT: `kill` (SIGKILL),
//! `stop` (SIGSTOP), `term` (SIGTERM), `panic`, `sleep` (for 3 s, so that a fault from outside can be timed). Several
//! are separated by commas.
//! The points, in the order of a checkpoint: plan, open, hooks, flush, arm, freeze, waiting (a FIFREEZE has not returned
//! for a moment), stage, frozen, thaw, thawed.

/// The process comes to a boundary.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub fn reach(_point: &'static str) {}

/// The process comes to a boundary.
#[cfg(feature = "fault-points")]
#[expect(clippy::panic, reason = "a panic is one of the faults to be tried")]
pub fn reach(point: &'static str) {
    use nix::sys::signal::{Signal, kill};
    use std::sync::{Mutex, PoisonError};
    static DONE: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let Some(faults) = std::env::var_os("HV_VSSD_FAULT") else {
        return;
    };
    let faults = faults.to_string_lossy();
    let mut each = faults.split(',').filter_map(|fault| fault.split_once('='));
    let Some((_, action)) = each.find(|(wanted, _)| *wanted == point) else {
        return;
    };
    {
        let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        if done.contains(&point) {
            return;
        }
        done.push(point);
    }
    let signal = match action {
        "kill" => Signal::SIGKILL,
        "stop" => Signal::SIGSTOP,
        "term" => Signal::SIGTERM,
        "panic" => panic!("a fault was asked for at {point}"),
        _ => return std::thread::sleep(std::time::Duration::from_secs(3)),
    };
    let _ = kill(nix::unistd::Pid::this(), signal);
}
