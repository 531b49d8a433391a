//! An agent that is asked to end, or dies, while a FIFREEZE waits for a writer: the call outlives its caller, and what it
//! freezes in the end is nobody's.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::error::{Failure, Step};
use tests::faults::{
    Victim, answer, armed, begin, configure, during, ended, fails, plug_in, process_names,
    start_with, start_with_each, writable_within,
};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::sleepers::{waits_in_a_freeze, write_slowly, written};
use tests::steps::{self, checkpoint, mount_all, succeeds};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// What a disk writes in a second, and the size of one write in MB.
const SPEED: u64 = 3_000_000;
const SIZE: u32 = 24;

/// The file of that write.
const LARGE: &str = "/mnt/ext4/large";

/// After the end of the write nothing is frozen within this time.
const SOON: Duration = Duration::from_secs(5);

/// The limit of a freeze, and the time to give it up.
const LIMIT: Duration = Duration::from_secs(40);

/// A guest with a slow disk and a fast one, without an agent; limits that the write stays within.
fn ready(bed: &mut Bed) -> Step<(Guest, Vec<String>)> {
    let mut guest = bed.boot(&[
        Disk::new(FsKind::Ext4).throttled(SPEED),
        Disk::new(FsKind::Xfs),
    ])?;
    let points = mount_all(&guest, &TWO)?;
    configure(&guest, "[limits]\nflush = 30\nfreeze = 30\n")?;
    plug_in(&mut guest)?;
    Ok((guest, points))
}

/// FREEZE is asked for, and FIFREEZE waits for a write that has begun after the flush. Gives the transaction.
fn freeze_behind_a_write(bed: &Bed, guest: &mut Guest) -> Step<u8> {
    if bed.agent == Agent::CDaemon {
        // It flushes nothing.
        bed.agent.start(guest)?;
        write_slowly(guest, LARGE, SIZE)?;
    } else {
        start_with(guest, "freeze", "sleep")?;
    }
    let transaction = begin(guest, Operation::FREEZE)?;
    if bed.agent == Agent::HvVssd {
        armed(guest)?;
        write_slowly(guest, LARGE, SIZE)?;
    }
    waits_in_a_freeze(guest, process_names(bed.agent))?;
    Ok(transaction)
}

/// The write has ended: nothing stays frozen, or on record as such.
fn nothing_stays(guest: &Guest, points: &[String]) -> Step<Duration> {
    let took = writable_within(guest, points, Instant::now(), SOON)?;
    // A record of what is thawed stays until the next checkpoint or start.
    let settled = poll_until(SOON, || {
        Ok::<_, Failure>(guest.sh("! grep '^[^.T-] ' /run/hv-vssd/ledger").ok())
    })?;
    promise!(
        settled.is_some(),
        "still on record: {}",
        guest.read("/run/hv-vssd/ledger")?
    );
    Ok(took)
}

/// A signal while FIFREEZE waits. Gives the time from the end of the write until all is writable.
fn struck_in_a_freeze(
    bed: &Bed,
    guest: &mut Guest,
    points: &[String],
    victim: Victim,
    signal: &str,
) -> Step<Duration> {
    let transaction = freeze_behind_a_write(bed, guest)?;
    victim.strike(guest, bed.agent, signal)?;
    written(guest)?;
    let over = Instant::now();
    // The driver tells it at the agent's death; a later request would take it away.
    let status = answer(guest, transaction, SOON)?;
    if victim == Victim::Both {
        ended(guest, bed.agent, SOON)?;
        bed.agent.start(guest)?;
    }
    if status == 0 {
        // Nobody meant to end it: the checkpoint goes on.
        promise!(
            victim == Victim::Guardian || signal == "USR1",
            "FREEZE was answered with success"
        );
        succeeds(guest, Operation::THAW)?;
    } else {
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
    }
    nothing_stays(guest, points)?;
    let took = over.elapsed();
    if matches!(victim, Victim::Agent) {
        ended(guest, bed.agent, SOON)?;
        bed.agent.start(guest)?;
    }
    checkpoint(guest)?;
    nothing_stays(guest, points)?;
    bed.agent.stop(guest)?;
    Ok(took)
}

fn struck_by_each(bed: &mut Bed, cases: &[(Victim, &str)]) -> Step<String> {
    let (mut guest, points) = ready(bed)?;
    let mut slowest = Duration::ZERO;
    for (victim, signal) in cases {
        let what = format!("SIG{signal} of {}", victim.name());
        let took = struck_in_a_freeze(bed, &mut guest, &points, *victim, signal);
        slowest = slowest.max(during(&what, took)?);
    }
    bed.measured("writable after the write", slowest);
    Ok(format!(
        "{} of {} times nothing frozen {} ms after the end of the write at the latest, nor on record as such, the next checkpoint works",
        cases.len(),
        cases.len(),
        slowest.as_millis()
    ))
}

scenario! {
    /// Row 28.
    row: "28", "FIFREEZE waits for a write of 24 MB to a disk of 3 MB/s; SIGTERM, then SIGUSR1 of the agent",
    c_daemon_gap: Some("ends, and its call freezes the disk for good"),
    fn slow_write_delays_a_freeze_and_an_agent_asked_to_end_leaves_nothing_frozen(bed) {
        struck_by_each(bed, &[(Victim::Agent, "TERM"), (Victim::Agent, "USR1")])
    }
}

scenario! {
    /// Row 28.
    row: "28", "FIFREEZE waits for a write of 24 MB to a disk of 3 MB/s; SIGKILL of the agent, of the guardian, of both",
    c_daemon_gap: Some("its call freezes the disk for good"),
    fn slow_write_delays_a_freeze_and_killed_processes_leave_nothing_frozen(bed) {
        struck_by_each(bed, &[(Victim::Agent, "KILL"), (Victim::Guardian, "KILL"), (Victim::Both, "KILL")])
    }
}

scenario! {
    /// Row 28: the engine unwinds while others still work for it.
    row: "28", "FIFREEZE waits for a write of 24 MB to a disk of 3 MB/s; a defect in the agent's engine",
    hv_vssd_alone,
    fn slow_write_delays_a_freeze_and_a_defect_leaves_nothing_frozen(bed) {
        let (mut guest, points) = ready(bed)?;
        start_with_each(&mut guest, &[("freeze", "sleep"), ("waiting", "panic")])?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        armed(&guest)?;
        write_slowly(&guest, LARGE, SIZE)?;
        let status = answer(&mut guest, transaction, LIMIT)?;
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        let told = guest.job(bed.agent.name())?.output;
        promise!(told.contains("a fault was asked for at waiting"), "no defect: {told}");
        written(&guest)?;
        let took = nothing_stays(&guest, &points)?;
        ended(&guest, bed.agent, SOON)?;
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        nothing_stays(&guest, &points)?;
        Ok(format!("FREEZE failed; nothing frozen {} ms after the end of the write, nor on record as such; the next agent's checkpoint works", took.as_millis()))
    }
}

scenario! {
    /// Row 28: Ctrl-C, and a second one by somebody who does not want to wait.
    row: "28", "FIFREEZE of hv-vssd freeze --for 60s waits for a write of 24 MB to a disk of 3 MB/s; SIGINT; the same, SIGINT twice; the same, SIGKILL",
    hv_vssd_alone,
    fn slow_write_delays_a_freeze_by_hand_and_interrupts_leave_nothing_frozen(bed) {
        let (mut guest, points) = ready(bed)?;
        for signals in [&[Signal::SIGINT][..], &[Signal::SIGINT; 2], &[Signal::SIGKILL]] {
            let command = ["/usr/sbin/hv-vssd-faults", "freeze", "--for", "60s"];
            guest.spawn_with("freeze", &command, &[("HV_VSSD_FAULT", "freeze=sleep")])?;
            armed(&guest)?;
            write_slowly(&guest, LARGE, SIZE)?;
            waits_in_a_freeze(&guest, process_names(bed.agent))?;
            for signal in signals {
                guest.signal("freeze", *signal)?;
            }
            written(&guest)?;
            during(&format!("{signals:?}"), nothing_stays(&guest, &points))?;
            let state = steps::ended(&guest, "freeze", SOON)?;
            promise!(state.status != Some(0), "hv-vssd freeze reports success: {}", state.output);
        }
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        fails(&mut guest, Operation::THAW, SOON)?;
        nothing_stays(&guest, &points)?;
        Ok("3 of 3 times nothing frozen, the next checkpoint works".into())
    }
}
