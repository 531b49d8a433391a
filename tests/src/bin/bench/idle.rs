//! What an agent costs while nothing is asked of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use ::tests::error::{BedResult, Step};
use ::tests::footprint::sum;
use ::tests::guest::Guest;

use crate::contender::Contender;

/// The cost.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// From its start until it serves, several times.
    pub(crate) starts: Vec<Duration>,
    pub(crate) processes: usize,
    pub(crate) threads: u64,
    /// Proportional share of memory of all its processes, in KiB.
    pub(crate) pss_kib: u64,
    /// Times any of its threads was scheduled.
    pub(crate) wake_ups: u64,
    /// In this time.
    pub(crate) seconds: u64,
    /// Of its program, in bytes.
    pub(crate) binary: u64,
}

/// How often it is started.
const STARTS: usize = 5;

/// Starts it, lets it serve one checkpoint, and looks at it for some time.
pub(crate) fn measure(guest: &mut Guest, agent: Contender, seconds: u64) -> Step<Idle> {
    let mut starts = vec![agent.start(guest)?];
    while starts.len() < STARTS {
        agent.stop(guest)?;
        starts.push(agent.start(guest)?);
    }
    agent.is_asked_first(guest)?;
    agent.asks(guest, true)?;
    agent.asks(guest, false)?;
    // What follows a checkpoint, such as its report, is over.
    std::thread::sleep(Duration::from_secs(3));
    let before = look(guest, agent)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let after = look(guest, agent)?;
    let binary = format!("readlink -f {} | xargs wc -c | cut -d' ' -f1", agent.path());
    let binary = guest.sh(&binary)?.trim().parse().unwrap_or_default();
    agent.stop(guest)?;
    Ok(Idle {
        starts,
        wake_ups: after.wake_ups.saturating_sub(before.wake_ups),
        seconds,
        binary,
        ..after
    })
}

fn look(guest: &Guest, agent: Contender) -> BedResult<Idle> {
    let processes = agent.processes(guest)?;
    let mut all = Idle {
        processes: processes.len(),
        ..Idle::default()
    };
    for pid in &processes {
        let memory = guest.read(&format!("/proc/{pid}/smaps_rollup"))?;
        all.pss_kib += sum(&memory, "Pss:");
        let status = guest.sh(&format!("cat /proc/{pid}/task/*/status"))?;
        all.threads +=
            u64::try_from(status.matches("\nvoluntary_ctxt_switches").count()).unwrap_or(0);
        all.wake_ups += sum(&status, "voluntary_ctxt_switches:");
    }
    Ok(all)
}
