//! The agent dies: whatever it held is thawed, the host hears failure, and the next start works.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::dice::Dice;
use tests::error::{Failure, Step};
use tests::faults::{
    POINTS, THAW_LIMIT, answer, begin, ended, fails, kill_all, plug_in, says, start_with, strike,
    writable_within,
};
use tests::guest::{Disk, FsKind, Guest};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::steps::{checkpoint, frozen, mount_all, succeeds, writable};
use tests::{promise, scenario};

const KINDS: [FsKind; 3] = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs];

/// The host hears of a broken checkpoint within this time.
const HEARD: Duration = Duration::from_secs(5);

/// A guest with three disks and the service in place, without an agent.
fn ready(bed: &mut Bed) -> Step<(Guest, Vec<String>)> {
    let mut guest = bed.boot(&KINDS.map(Disk::new))?;
    let points = mount_all(&guest, &KINDS)?;
    plug_in(&mut guest)?;
    Ok((guest, points))
}

/// Something went wrong at a phase boundary: says which.
fn at<T>(point: &str, step: Step<T>) -> Step<T> {
    step.map_err(|failure| match failure {
        Failure::Promise(sentence) => Failure::Promise(format!("at {point}: {sentence}")),
        bed => bed,
    })
}

/// A checkpoint in which hv-vssd dies of `action` at `point`. What the host has not been told
/// yet is answered with failure. Gives the time from that answer until all is writable.
fn dies_at(
    bed: &Bed,
    guest: &mut Guest,
    points: &[String],
    point: &str,
    action: &str,
) -> Step<Duration> {
    start_with(guest, point, action)?;
    let in_thaw = matches!(point, "thaw" | "thawed");
    if in_thaw {
        succeeds(guest, Operation::FREEZE)?;
    }
    let operation = if in_thaw {
        Operation::THAW
    } else {
        Operation::FREEZE
    };
    let transaction = begin(guest, operation)?;
    let status = answer(guest, transaction, HEARD)?;
    let took = writable_within(guest, points, Instant::now(), THAW_LIMIT)?;
    if (point, action) == ("open", "panic") {
        // In a thread of its own, before anything is frozen: the agent lives on.
        checkpoint(guest)?;
        bed.agent.stop(guest)?;
    }
    ended(guest, bed.agent, HEARD)?;
    // Asked to end at the last boundaries, it has kept its promise already: then a THAW that the host asked for
    // succeeds, and one that it has yet to ask for fails.
    if action == "term" && status == 0 {
        promise!(
            in_thaw || matches!(point, "stage" | "frozen"),
            "FREEZE was answered with success"
        );
        fails(guest, Operation::THAW, HEARD)?;
    } else {
        promise!(
            status == E_FAIL,
            "{} was answered {status:#x}",
            operation.name()
        );
    }
    Agent::HvVssd.start(guest)?;
    checkpoint(guest)?;
    Agent::HvVssd.stop(guest)?;
    Ok(took)
}

/// The same at every boundary. The C daemon has none that can be named: it dies in the hold.
fn dies_everywhere(bed: &mut Bed, action: &str, signal: Signal) -> Step<String> {
    let (mut guest, points) = ready(bed)?;
    if bed.agent == Agent::CDaemon {
        return dies_in_hold(bed, &mut guest, &points, signal);
    }
    let mut slowest = Duration::ZERO;
    for point in POINTS {
        let took = at(point, dies_at(bed, &mut guest, &points, point, action))?;
        slowest = slowest.max(took);
    }
    bed.measured("slowest thaw", slowest);
    let count = POINTS.len();
    let boundaries = format!(
        "{count} of {count} boundaries: writable, host told failure, next checkpoint works"
    );
    if signal == Signal::SIGSEGV {
        return Ok(boundaries);
    }
    let hold = dies_in_hold(bed, &mut guest, &points, signal)?;
    Ok(format!("{boundaries}; {hold}"))
}

fn dies_in_hold(
    bed: &mut Bed,
    guest: &mut Guest,
    points: &[String],
    signal: Signal,
) -> Step<String> {
    bed.agent.start(guest)?;
    succeeds(guest, Operation::FREEZE)?;
    let struck = strike(bed, guest, signal)?;
    let took = writable_within(guest, points, struck, THAW_LIMIT)?;
    bed.measured("thaw after death", took);
    fails(guest, Operation::THAW, HEARD)?;
    ended(guest, bed.agent, HEARD)?;
    bed.agent.start(guest)?;
    checkpoint(guest)?;
    writable(
        guest,
        &points.iter().map(String::as_str).collect::<Vec<_>>(),
    )?;
    Ok(format!(
        "writable {} ms after the death in the hold; THAW fails, next checkpoint works",
        took.as_millis()
    ))
}

scenario! {
    /// Row 3.
    row: "3", "SIGKILL of the agent at every phase boundary and in the hold (the C daemon: in the hold)",
    c_daemon_gap: Some("leaves everything frozen"),
    fn a_killed_agent_leaves_nothing_frozen(bed) {
        dies_everywhere(bed, "kill", Signal::SIGKILL)
    }
}

scenario! {
    /// Row 3.
    row: "3", "SIGTERM at every phase boundary and in the hold (the C daemon: in the hold)",
    c_daemon_gap: Some("ends and leaves everything frozen"),
    fn an_agent_asked_to_end_thaws_first(bed) {
        dies_everywhere(bed, "term", Signal::SIGTERM)
    }
}

scenario! {
    /// Row 3.
    row: "3", "a panic at every phase boundary (the C daemon: SIGSEGV in the hold)",
    c_daemon_gap: Some("leaves everything frozen"),
    fn a_crashed_agent_leaves_nothing_frozen(bed) {
        dies_everywhere(bed, "panic", Signal::SIGSEGV)
    }
}

scenario! {
    /// Row 3.
    row: "3", "the OOM killer chooses the agent in the hold",
    c_daemon_gap: Some("leaves everything frozen"),
    fn an_agent_killed_for_memory_leaves_nothing_frozen(bed) {
        let (mut guest, points) = ready(bed)?;
        bed.agent.spawn(&guest, bed.agent.name())?;
        bed.agent.wait_registered(&mut guest)?;
        let name = bed.agent.name();
        // The agent is the oldest process of its name; the kernel's own rule picks it.
        guest.sh(&format!("pid=$(pidof {name} | tr ' ' '\\n' | sort -n | head -n1); echo 1000 > /proc/$pid/oom_score_adj; echo 1 > /proc/sys/kernel/sysrq"))?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let struck = Instant::now();
        guest.sh("echo f > /proc/sysrq-trigger")?;
        ended(&guest, bed.agent, HEARD)?;
        let took = writable_within(&guest, &points, struck, THAW_LIMIT)?;
        bed.measured("thaw after death", took);
        fails(&mut guest, Operation::THAW, HEARD)?;
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        Ok(format!("writable {} ms after the OOM killer's choice", took.as_millis()))
    }
}

const TRIES: u32 = 100;

scenario! {
    /// The measure.
    row: "3", "SIGKILL at 100 random moments: half between FREEZE and its answer, half up to 60 ms after it",
    c_daemon_gap: Some("leaves everything frozen"),
    fn a_hundred_random_kills_leave_nothing_frozen(bed) {
        let (mut guest, points) = ready(bed)?;
        bed.agent.start(&mut guest)?;
        let typical = succeeds(&mut guest, Operation::FREEZE)?.took;
        succeeds(&mut guest, Operation::THAW)?;
        let typical = u64::try_from(typical.as_micros()).unwrap_or(100_000);
        let mut dice = Dice::new(0x5eed_5eed_5eed_5eed);
        let (mut slowest, mut held) = (Duration::ZERO, 0);
        for attempt in 1..=TRIES {
            let transaction = begin(&mut guest, Operation::FREEZE)?;
            if attempt % 2 == 0 {
                std::thread::sleep(Duration::from_micros(dice.below(typical * 5 / 4)));
            } else {
                let status = answer(&mut guest, transaction, HEARD)?;
                promise!(status == 0, "try {attempt}: FREEZE was answered {status:#x}");
                std::thread::sleep(Duration::from_millis(dice.below(60)));
                held += 1;
            }
            let struck = strike(bed, &guest, Signal::SIGKILL)?;
            let took = writable_within(&guest, &points, struck, THAW_LIMIT).map_err(|failure| match failure {
                Failure::Promise(sentence) => Failure::Promise(format!("try {attempt} of {TRIES}: {sentence}")),
                bed => bed,
            })?;
            slowest = slowest.max(took);
            ended(&guest, bed.agent, HEARD)?;
            bed.agent.start(&mut guest)?;
        }
        checkpoint(&mut guest)?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        bed.measured("slowest thaw", slowest);
        Ok(format!("{TRIES} of {TRIES} writable, {held} of them killed in a hold; slowest {} ms after the kill", slowest.as_millis()))
    }
}

const HURRY: &str = "/sys/kernel/rcu_expedited";

fn is_hurrying(guest: &Guest) -> Step<bool> {
    Ok(guest.read(HURRY)?.trim() != "0")
}

/// Freezes, kills agent and guardian at once, and checks that the disks stay frozen. RCU is expedited then, as it is when both
/// die in the freeze itself.
fn both_die(bed: &Bed, guest: &mut Guest, points: &[String]) -> Step<()> {
    succeeds(guest, Operation::FREEZE)?;
    kill_all(bed, guest)?;
    guest.sh(&format!("echo 1 > {HURRY}"))?;
    let left = frozen(
        guest,
        &points.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    left.map_err(|failure| match failure {
        Failure::Promise(_) => {
            tests::error::BedError::Setup("someone thawed, though all were killed".into()).into()
        }
        bed => bed,
    })
}

scenario! {
    /// Row 4.
    row: "4", "SIGKILL of agent and guardian together in the hold; then the agent is started again, or 'hv-vssd thaw' is run",
    c_daemon_gap: Some("keeps no record: what it froze stays frozen"),
    fn what_both_left_frozen_is_thawed_at_the_next_start_and_by_hand(bed) {
        let (mut guest, points) = ready(bed)?;
        bed.agent.start(&mut guest)?;
        both_die(bed, &mut guest, &points)?;
        let started = Instant::now();
        bed.agent.start(&mut guest)?;
        let took = writable_within(&guest, &points, started, HEARD)?;
        bed.measured("thaw after the start", took);
        says(&guest, bed.agent, "was left frozen by an earlier agent: thawed", HEARD)?;
        let no_ledger = "test ! -e /run/hv-vssd/ledger";
        promise!(!is_hurrying(&guest)?, "RCU is still expedited after the start");
        promise!(guest.sh(no_ledger).is_ok(), "the ledger is still there after the start");
        checkpoint(&mut guest)?;

        both_die(bed, &mut guest, &points)?;
        let said = guest.sh("/usr/sbin/hv-vssd thaw")?;
        for point in &points {
            promise!(said.contains(&format!("{point}: thawed")), "hv-vssd thaw does not name {point}: {said}");
        }
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        promise!(guest.sh(no_ledger).is_ok(), "the ledger is still there after the thaw by hand");
        promise!(!is_hurrying(&guest)?, "RCU is still expedited after the thaw by hand");
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        Ok("thawed at the start and by 'hv-vssd thaw', each disk named, the ledger gone, RCU as before, next checkpoint works".into())
    }
}

scenario! {
    /// Row 4: whoever is left goes on.
    row: "4", "the guardian alone is killed between checkpoints and in a hold (the C daemon has none)",
    c_daemon_gap: None,
    fn a_dead_guardian_is_replaced(bed) {
        if bed.agent == Agent::CDaemon {
            return Ok("none to kill".into());
        }
        let (mut guest, points) = ready(bed)?;
        bed.agent.start(&mut guest)?;
        let kill = "set -- $(pidof hv-vssd | tr ' ' '\\n' | sort -n); kill -KILL $2";
        guest.sh(kill)?;
        checkpoint(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        guest.sh(kill)?;
        frozen(&guest, &["/mnt/ext4"])?;
        succeeds(&mut guest, Operation::THAW)?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        checkpoint(&mut guest)?;
        Ok("replaced before the next freeze; the hold goes on without it".into())
    }
}
