//! A scenario: one promise, checked for an agent on a kernel.
//!
//! Every scenario runs in the same way for hv-vssd and for the C daemon. hv-vssd must keep
//! the promise. For the C daemon a known gap is declared with its reason; a declared gap
//! that does not show fails the test, so that the table stays honest.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::assets::Kernel;
use crate::booted::System;
use crate::error::{Failure, Step};
use crate::guest::{self, Disk, Guest, Plan};
use crate::paths;
use crate::report::{self, Line, Verdict};

/// A promise and how it is checked.
#[derive(Debug)]
pub struct Scenario {
    /// Its row in the table of scenarios; empty for one beside the table.
    pub row: &'static str,
    /// What is done, for the report.
    pub title: &'static str,
    /// Why the C daemon does not keep the promise, if it does not.
    pub c_daemon_gap: Option<&'static str>,
    /// It is about something that the C daemon does not have.
    pub hv_vssd_alone: bool,
    /// Does it, and returns one sentence of what was seen.
    pub check: fn(&mut Bed) -> Step<String>,
}

/// What a scenario works with.
#[derive(Debug)]
pub struct Bed {
    /// The kernel under test.
    pub kernel: Kernel,
    /// The agent under test.
    pub agent: Agent,
    name: String,
    timings: Vec<(String, f64)>,
    dirs: Vec<PathBuf>,
}

impl Bed {
    /// A guest with these disks, `/dev/vda` first. No service is plugged in yet.
    ///
    /// # Errors
    /// The guest does not come up.
    pub fn boot(&mut self, disks: &[Disk]) -> Step<Guest> {
        let guest = Guest::ready(&Plan {
            kernel: self.kernel,
            with_hv_vssd: self.agent == Agent::HvVssd,
            disks,
            name: self.name.clone(),
        })?;
        self.dirs.push(guest.dir().to_path_buf());
        Ok(guest)
    }

    /// A booted Debian system with the agent as one of its services, when all of it is up. One that has nothing of its own
    /// goes on from the kept state of another that was booted in the same way.
    ///
    /// # Errors
    /// It does not come up, a unit fails, or the agent does not register.
    pub fn boot_system(&mut self, system: &System<'_>) -> Step<Guest> {
        if system.is_ordinary() {
            let guest = system.go_on(self.kernel, self.agent, &self.name)?;
            self.dirs.push(guest.dir().to_path_buf());
            return Ok(guest);
        }
        self.boot_system_from(system, system.fresh_disks(self.agent)?)
    }

    /// As [`Self::boot_system`], from these disks in place of the system's own.
    ///
    /// # Errors
    /// It does not come up, a unit fails, or the agent does not register.
    pub fn boot_system_from(&mut self, system: &System<'_>, disks: Vec<Disk>) -> Step<Guest> {
        let mut guest = system.power_on(disks, &self.name, self.kernel)?;
        self.dirs.push(guest.dir().to_path_buf());
        system.bring_up(&mut guest, self.agent)?;
        Ok(guest)
    }

    /// Plugs the service in, negotiates, starts the agent and waits until it is registered.
    ///
    /// # Errors
    /// The agent does not register.
    pub fn start_agent(&self, guest: &mut Guest) -> Step<()> {
        guest.plug_in()?;
        guest.host()?.negotiate()?;
        self.agent.start(guest)
    }

    /// Notes a duration for the report, under a name.
    pub fn measured(&mut self, what: &str, took: Duration) {
        self.timings
            .push((what.to_owned(), took.as_secs_f64() * 1e3));
    }
}

/// One scenario of a test program runs at a time where the runner does not see to it.
static ONE: Mutex<()> = Mutex::new(());

/// QEMU's software emulation now and then fails an assertion of its own, or loses a processor's timer, mostly at power-on; this often it may.
const EMULATOR_CRASHES: u32 = 2;

/// What the guest's kernel says when the emulator no longer wakes one of its processors.
const LOST_TIMER: &str = "Possible timer handling issue";

/// Whether the emulator of a guest of this scenario died of an assertion of its own, or lost a timer; its traces are removed.
fn forget_crashed_emulator(name: &str) -> bool {
    let prefix = format!("{}.", name.replace([':', '/', ' '], "-"));
    let runs = std::fs::read_dir(paths::testbed().join("runs"));
    let mut crashed = false;
    for dir in runs.into_iter().flatten().flatten() {
        let path = dir.path();
        let ours = dir.file_name().to_string_lossy().starts_with(&prefix);
        let console = std::fs::read_to_string(path.join("console.log")).unwrap_or_default();
        if ours && (guest::has_died(&path) || console.contains(LOST_TIMER)) {
            crashed = true;
            let _ = std::fs::remove_dir_all(path);
        }
    }
    crashed
}

/// Runs a scenario, adds its line to the report, and panics if the test has failed.
///
/// # Panics
/// If the promise was not kept and no gap was declared, if a declared gap did not show,
/// or if the bed broke.
#[allow(clippy::panic, reason = "a test fails by panicking")]
pub fn run(scenario: &Scenario, name: &str, kernel: Kernel, agent: Agent) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bed = Bed {
        kernel,
        agent,
        name: format!("{name}-{}-{}", kernel.series(), agent.name()),
        timings: Vec::new(),
        dirs: Vec::new(),
    };
    let started = Instant::now();
    let mut outcome = (scenario.check)(&mut bed);
    for _ in 0..EMULATOR_CRASHES {
        // Nothing was said about the agent: the emulator gave up on a condition of its own.
        if !matches!(outcome, Err(Failure::Bed(_))) || !forget_crashed_emulator(&bed.name) {
            break;
        }
        println!("the emulator failed, not the guest in it: trying again");
        bed.timings.clear();
        outcome = (scenario.check)(&mut bed);
    }
    let gap = scenario.c_daemon_gap.filter(|_| agent == Agent::CDaemon);
    let (verdict, seen) = match &outcome {
        Ok(seen) => (Verdict::Pass, seen.clone()),
        Err(Failure::Promise(seen)) => (Verdict::Fail, seen.clone()),
        Err(Failure::Bed(error)) => (Verdict::Error, error.to_string()),
    };
    report::add(&Line {
        name: name.to_owned(),
        row: scenario.row.to_owned(),
        title: scenario.title.to_owned(),
        kernel: kernel.series().to_owned(),
        agent: agent.name().to_owned(),
        verdict,
        seen: seen.clone(),
        gap: gap.map(ToOwned::to_owned),
        alone: scenario.hv_vssd_alone,
        timings_ms: std::mem::take(&mut bed.timings),
        took_s: started.elapsed().as_secs_f64(),
    });
    println!(
        "{} on {}: {verdict:?}: {seen}",
        agent.name(),
        kernel.series()
    );
    let problem = match (verdict, gap) {
        (Verdict::Pass, None) | (Verdict::Fail, Some(_)) => {
            for dir in &bed.dirs {
                let _ = std::fs::remove_dir_all(dir);
            }
            return;
        }
        (Verdict::Pass, Some(gap)) => format!("the known gap ({gap}) does not show: {seen}"),
        (Verdict::Fail | Verdict::Error, _) => seen,
    };
    for dir in &bed.dirs {
        println!("kept: {}", dir.display());
        for log in ["jobs.log", "console.log"] {
            if let Ok(text) = std::fs::read_to_string(dir.join(log)) {
                let tail: Vec<&str> = text.lines().rev().take(40).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                println!("--- {log}\n{}", tail.join("\n"));
            }
        }
    }
    panic!("{problem}");
}

/// Defines a scenario and its tests: both agents on both kernels; with `hv_vssd_alone` in place of a gap none of the C daemon's,
/// where there is nothing to compare. Which of them the default run of `tests/run` leaves out is told there.
#[macro_export]
macro_rules! scenario {
    (
        $(#[$doc:meta])*
        row: $row:literal, $title:literal,
        c_daemon_gap: $gap:expr,
        fn $name:ident($bed:ident) $body:block
    ) => {
        $crate::scenario!(@module [$(#[$doc])*] $row, $title, $gap, false, $name, $bed, $body, [hv_vssd HvVssd] [c_daemon CDaemon]);
    };
    (
        $(#[$doc:meta])*
        row: $row:literal, $title:literal,
        hv_vssd_alone,
        fn $name:ident($bed:ident) $body:block
    ) => {
        $crate::scenario!(@module [$(#[$doc])*] $row, $title, None, true, $name, $bed, $body, [hv_vssd HvVssd] []);
    };
    (
        @module [$(#[$doc:meta])*] $row:literal, $title:literal, $gap:expr, $alone:literal,
        $name:ident, $bed:ident, $body:block, [$($ours:tt)*] [$($peer:tt)*]
    ) => {
        $(#[$doc])*
        mod $name {
            use super::*;

            fn check($bed: &mut $crate::scenario::Bed) -> $crate::error::Step<String> $body

            const SCENARIO: $crate::scenario::Scenario = $crate::scenario::Scenario {
                row: $row,
                title: $title,
                c_daemon_gap: $gap,
                hv_vssd_alone: $alone,
                check,
            };

            $crate::scenario!(@kernel $name linux_6_1 V6_1 [$($ours)* $($peer)*]);
            $crate::scenario!(@kernel $name linux_6_12 V6_12 [$($ours)* $($peer)*]);
        }
    };
    (@kernel $name:ident $module:ident $kernel:ident [$($test:ident $agent:ident)+]) => {
        mod $module {
            use $crate::{agent::Agent, assets::Kernel, scenario::run};

            $(
                #[test]
                fn $test() {
                    run(&super::SCENARIO, stringify!($name), Kernel::$kernel, Agent::$agent);
                }
            )+
        }
    };
}
