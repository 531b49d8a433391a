//! Steps of the fault scenarios: an agent with a fault in it, and what must hold after it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::Agent;
use crate::error::{BedError, BedResult, Failure, Step};
use crate::guest::{Guest, poll_until};
use crate::host::{Answer, Operation};
use crate::scenario::Bed;

/// After whatever fault, everything is writable within this time.
pub const THAW_LIMIT: Duration = Duration::from_secs(1);

/// What the phases of a checkpoint are called in `HV_VSSD_FAULT`, in their order.
pub const POINTS: [&str; 9] = [
    "plan", "open", "flush", "arm", "freeze", "stage", "frozen", "thaw", "thawed",
];

/// Writes hv-vssd's configuration.
///
/// # Errors
/// The guest is gone.
pub fn configure(guest: &Guest, text: &str) -> BedResult<()> {
    guest.sh("mkdir -p /etc/hv-vssd")?;
    guest.write("/etc/hv-vssd/config.toml", text)
}

/// Starts the agent of the build with fault points, to do `action` at `point`, and waits until
/// it is registered.
///
/// # Errors
/// It does not register in time.
pub fn start_with(guest: &mut Guest, point: &str, action: &str) -> Step<()> {
    start_with_each(guest, &[(point, action)])
}

/// As [`start_with`], with several faults, each at its own point.
///
/// # Errors
/// It does not register in time.
pub fn start_with_each(guest: &mut Guest, faults: &[(&str, &str)]) -> Step<()> {
    let faults: Vec<_> = faults
        .iter()
        .map(|(point, action)| format!("{point}={action}"))
        .collect();
    guest.spawn_with(
        Agent::HvVssd.name(),
        &["/usr/sbin/hv-vssd-faults", "run"],
        &[("HV_VSSD_FAULT", &faults.join(","))],
    )?;
    Agent::HvVssd.wait_registered(guest)
}

/// Puts the service in place without an agent.
///
/// # Errors
/// A module does not load.
pub fn plug_in(guest: &mut Guest) -> Step<()> {
    guest.plug_in()?;
    guest.host()?.negotiate()?;
    Ok(())
}

/// Sends FREEZE and does not wait; gives the transaction's number.
///
/// # Errors
/// The guest is gone.
pub fn begin(guest: &mut Guest, operation: Operation) -> Step<u8> {
    let packet = |transaction| crate::host::vss(operation, transaction);
    Ok(guest.host()?.start(packet)?)
}

/// The status of the answer to a transaction, within a time.
///
/// # Errors
/// There is none in time.
pub fn answer(guest: &mut Guest, transaction: u8, limit: Duration) -> Step<u32> {
    let packet = guest.host()?.answer_to(transaction, limit)?;
    let header = packet.as_deref().and_then(crate::host::Header::of);
    header
        .map(|header| header.status)
        .ok_or_else(|| Failure::Promise(format!("the host had no answer within {limit:?}")))
}

/// A request that the host must see fail, within a time.
///
/// # Errors
/// It succeeds, or is not answered.
pub fn fails(guest: &mut Guest, operation: Operation, limit: Duration) -> Step<Answer> {
    match guest.host()?.try_request(operation, limit)? {
        Some(answer) if !answer.ok() => Ok(answer),
        Some(_) => Err(Failure::Promise(format!(
            "{} was answered with success",
            operation.name()
        ))),
        None => Err(Failure::Promise(format!(
            "{} was not answered within {limit:?}",
            operation.name()
        ))),
    }
}

/// New files can be made in all directories within `limit` from `since` on; gives how long it took.
///
/// # Errors
/// One is still frozen then.
pub fn writable_within(
    guest: &Guest,
    directories: &[String],
    since: Instant,
    limit: Duration,
) -> Step<Duration> {
    let touches: String = directories
        .iter()
        .map(|directory| format!("touch {directory}/.alive & "))
        .collect();
    let left = limit.saturating_sub(since.elapsed());
    // At least this long, or a busy machine would be taken for a frozen disk.
    let left = left.max(Duration::from_millis(200));
    let ended = guest.exec(&["/bin/sh", "-c", &format!("{touches} wait")], left)?;
    let took = since.elapsed();
    if !ended.timed_out && took <= limit.max(Duration::from_millis(500)) {
        return Ok(took);
    }
    let mut still = Vec::new();
    for directory in directories {
        if guest.write_sleeps(directory)? {
            still.push(directory.as_str());
        }
    }
    Err(Failure::Promise(if still.is_empty() {
        format!("writable only after {took:?}")
    } else {
        format!("still frozen after {limit:?}: {}", still.join(", "))
    }))
}

/// Waits until the agent's process has ended.
///
/// # Errors
/// It lives on.
pub fn ended(guest: &Guest, agent: Agent, limit: Duration) -> Step<()> {
    let gone = poll_until(limit, || {
        let state = agent.state(guest)?;
        Ok::<_, Failure>((!state.running).then_some(()))
    })?;
    gone.ok_or_else(|| Failure::Promise(format!("{} has not ended in {limit:?}", agent.name())))
}

/// Waits until the agent's log has a line with these words.
///
/// # Errors
/// It never says so.
pub fn says(guest: &Guest, agent: Agent, words: &str, limit: Duration) -> Step<()> {
    let said = poll_until(limit, || {
        Ok::<_, Failure>(agent.log(guest)?.contains(words).then_some(()))
    })?;
    match said {
        Some(()) => Ok(()),
        None => Err(Failure::Promise(format!(
            "the log does not say {words:?}: {}",
            agent.log(guest)?
        ))),
    }
}

/// Kills the agent and everything it has started, none of which gets to act on it.
///
/// # Errors
/// The guest is gone.
pub fn kill_all(bed: &Bed, guest: &Guest) -> Step<()> {
    let name = bed.agent.name();
    guest.sh(&format!(
        "pids=$(pidof {name}); kill -STOP $pids; kill -KILL $pids"
    ))?;
    ended(guest, bed.agent, Duration::from_secs(5))
}

/// Sends the agent a signal and gives the moment.
///
/// # Errors
/// The guest is gone.
pub fn strike(bed: &Bed, guest: &Guest, signal: Signal) -> Step<Instant> {
    let struck = Instant::now();
    guest.signal(bed.agent.name(), signal)?;
    Ok(struck)
}

/// Puts a device-mapper disk of this name over a disk, mounts it at `/mnt/NAME` and returns that.
///
/// # Errors
/// It cannot be made or mounted.
pub fn mount_mapped(guest: &Guest, disk: &str, name: &str, kind: &str) -> BedResult<String> {
    guest.sh(&format!(
        "modprobe dm_mod; dmsetup create {name} --table \"0 $(blockdev --getsz {disk}) linear {disk} 0\"
        dmsetup mknodes; mkdir -p /mnt/{name}; mount -t {kind} /dev/mapper/{name} /mnt/{name}"
    ))?;
    Ok(format!("/mnt/{name}"))
}

/// From now on the device-mapper disk answers nothing; its file system is not told.
///
/// # Errors
/// It cannot be suspended.
pub fn stall(guest: &Guest, name: &str) -> BedResult<()> {
    guest.sh(&format!("dmsetup suspend --nolockfs --noflush {name}"))?;
    Ok(())
}

/// The device-mapper disk goes on where it was stalled.
///
/// # Errors
/// It cannot be resumed.
pub fn go_on(guest: &Guest, name: &str) -> BedResult<()> {
    guest.sh(&format!("dmsetup resume {name}"))?;
    Ok(())
}

/// Who of an agent's processes: the agent is the oldest of its name, its guardian the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The agent.
    Agent,
    /// The guardian; of an agent that has none, nobody.
    Guardian,
    /// Both, at the same moment.
    Both,
    /// All of that name.
    All,
}

impl Victim {
    /// As a sentence has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "the agent",
            Self::Guardian => "the guardian",
            Self::Both => "agent and guardian",
            Self::All => "all processes of the name",
        }
    }

    /// The shell's words for their process ids.
    fn pids(self, agent: Agent) -> String {
        let name = process_names(agent);
        let which = match self {
            Self::Agent => "1p",
            Self::Guardian => "2p",
            Self::Both => "1,2p",
            Self::All => "p",
        };
        format!("$(pidof {name} | tr ' ' '\\n' | sort -n | sed -n {which})")
    }

    /// Sends them a signal and gives the moment. None of two gets to act on the other's death by SIGKILL.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn strike(self, guest: &Guest, agent: Agent, signal: &str) -> Step<Instant> {
        let pids = self.pids(agent);
        let at_once = if signal == "KILL" {
            "kill -STOP $pids;"
        } else {
            ""
        };
        let struck = Instant::now();
        guest.sh(&format!(
            "pids={pids}; [ -n \"$pids\" ] || exit 0; {at_once} kill -{signal} $pids"
        ))?;
        Ok(struck)
    }
}

/// From now on in wait for the agent's next freeze: SIGKILL at the first sight of a FIFREEZE that has not come back. The background
/// process `assassin` ends when it is done.
///
/// # Errors
/// The guest is gone.
pub fn kill_in_the_next_freeze(guest: &Guest, agent: Agent, victim: Victim) -> Step<()> {
    let (names, pids) = (process_names(agent), victim.pids(agent));
    let script = format!(
        "pids={pids}; echo ready; while :; do for pid in $(pidof {names}); do
            if grep -q freeze_super /proc/$pid/task/*/stack 2> /dev/null; then kill -STOP $pids; kill -KILL $pids; exit 0; fi
        done; done"
    );
    guest.spawn("assassin", &["/bin/sh", "-c", &script])?;
    let limit = Duration::from_secs(10);
    let ready = poll_until(limit, || {
        Ok::<_, Failure>(
            guest
                .job("assassin")?
                .output
                .contains("ready")
                .then_some(()),
        )
    })?;
    ready.ok_or_else(|| BedError::Guest("the assassin is not ready".into()).into())
}

/// What the agent's processes are called, in both its builds: words for pidof(1).
#[must_use]
pub fn process_names(agent: Agent) -> &'static str {
    match agent {
        Agent::HvVssd => "hv-vssd hv-vssd-faults",
        Agent::CDaemon => "hv_vss_daemon",
    }
}

/// Waits until a checkpoint, or a freeze by hand, is about to freeze: the ledger is there. An agent that sleeps at the
/// boundary `freeze` does so from now on, for 3 s.
///
/// # Errors
/// It does not come to that.
pub fn armed(guest: &Guest) -> Step<()> {
    let limit = Duration::from_secs(20);
    let found = poll_until(limit, || {
        Ok::<_, Failure>(guest.sh("test -s /run/hv-vssd/ledger").ok().map(drop))
    })?;
    found.ok_or_else(|| Failure::Promise(format!("no ledger within {limit:?}")))
}

/// Says what was being done when something went wrong.
///
/// # Errors
/// That of the step.
pub fn during<T>(what: &str, step: Step<T>) -> Step<T> {
    step.map_err(|failure| match failure {
        Failure::Promise(sentence) => Failure::Promise(format!("{what}: {sentence}")),
        bed => bed,
    })
}
