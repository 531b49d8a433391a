//! The guest's clock, the same for everything that is measured in it.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::Outcome;

/// Nanoseconds since boot.
pub(crate) fn now() -> Result<u64, nix::Error> {
    of(ClockId::CLOCK_MONOTONIC)
}

fn of(clock: ClockId) -> Result<u64, nix::Error> {
    let now = Duration::from(clock_gettime(clock)?);
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// Prints the time and, on a line each, the processor time of processes with all threads they ever had.
pub(crate) fn cpu(pids: &[&str]) -> Outcome {
    println!("{}", now()?);
    for pid in pids {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.parse()?))?;
        println!("{}", of(clock)?);
    }
    Ok(())
}

/// Prints how far the wall clock is ahead of the guest's own, in nanoseconds.
pub(crate) fn wall() -> Outcome {
    println!("{}", of(ClockId::CLOCK_REALTIME)? - now()?);
    Ok(())
}
