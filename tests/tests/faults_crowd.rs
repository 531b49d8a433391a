//! What an ordinary user of the guest can do with mount namespaces of his own, and what he must not get by it.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::agent::Agent;
use tests::error::{Failure, Step};
use tests::faults::{Victim, configure, fails, plug_in, says, writable_within};
use tests::footprint::sum;
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{checkpoint, mount_all, succeeds};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// His binds, under paths of 4 KB that each line has twice: a table of some 70 MB. His namespaces.
const BINDS: &str = "10000";
const NAMESPACES: &str = "1000";

/// The user.
const NOBODY: &str = "65534";

/// So long his mounts take to be made.
const MADE: Duration = Duration::from_secs(120);

/// A thaw by the ledger is over within this time on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Agent and guardian together have never had more.
const MAX_KIB: u64 = 64 * 1024;

const LIMIT: Duration = Duration::from_secs(30);

fn gather_crowd(guest: &Guest) -> Step<()> {
    let crowd = ["/sbin/hv-testguest", "crowd", NOBODY, BINDS, NAMESPACES];
    guest.spawn("crowd", &crowd)?;
    let ready = poll_until(MADE, || {
        let job = guest.job("crowd")?;
        promise!(job.running, "the user cannot mount: {}", job.output);
        Ok::<_, Failure>(job.output.contains("ready").then_some(()))
    })?;
    ready.ok_or_else(|| Failure::Promise("the mounts are not made in time".into()))
}

/// What `hv-vssd` answers in JSON, whatever its status.
fn asked(guest: &Guest, command: &[&str]) -> Step<Value> {
    let ended = guest.exec(command, LIMIT)?;
    let said = || Failure::Promise(format!("no JSON: {}{}", ended.stdout, ended.stderr));
    serde_json::from_str(&ended.stdout).map_err(|_| said())
}

/// The longest stall of the last checkpoint.
fn worst_stall(guest: &Guest) -> Step<Duration> {
    let status = asked(guest, &["/usr/sbin/hv-vssd", "status", "--json"])?;
    let last = status.pointer("/checkpoints").and_then(Value::as_array);
    let last = last.and_then(|all| all.last());
    let stall = last.and_then(|last| last.pointer("/worst_stall/stall_ms")?.as_f64());
    let stall = stall.ok_or_else(|| Failure::Promise(format!("no stall is told: {status}")))?;
    Ok(Duration::from_secs_f64(stall / 1e3))
}

/// The worst of some checkpoints.
fn stalled(guest: &mut Guest) -> Step<Duration> {
    let mut worst = Duration::ZERO;
    for _ in 0..3 {
        checkpoint(guest)?;
        worst = worst.max(worst_stall(guest)?);
    }
    Ok(worst)
}

fn crowded(bed: &mut Bed) -> Step<String> {
    let mut guest = bed.boot(&TWO.map(Disk::new))?;
    let points = mount_all(&guest, &TWO)?;
    plug_in(&mut guest)?;
    if bed.agent == Agent::CDaemon {
        gather_crowd(&guest)?;
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        return Ok("a checkpoint works: it looks at no other namespace".into());
    }
    bed.agent.start(&mut guest)?;
    let before = stalled(&mut guest)?;
    gather_crowd(&guest)?;
    let during = stalled(&mut guest)?;
    bed.measured("worst stall without the crowd", before);
    bed.measured("worst stall with the crowd", during);
    let status = guest.sh("for pid in $(pidof hv-vssd); do cat /proc/$pid/status; done")?;
    let peak = sum(&status, "VmHWM:");
    promise!(
        peak > 0 && peak < MAX_KIB,
        "agent and guardian have had {peak} KiB"
    );

    let found = asked(&guest, &["/usr/sbin/hv-vssd", "check", "--json"])?;
    let told = found.to_string();
    promise!(
        told.contains("unseen-mounts") && told.contains("user 65534"),
        "check does not tell whose mounts are too many: {told}"
    );

    // With everything frozen, nobody lives who would thaw; then somebody does it by hand.
    succeeds(&mut guest, Operation::FREEZE)?;
    Victim::All.strike(&guest, bed.agent, "KILL")?;
    let asked_for = Instant::now();
    let thaw = guest.exec(&["/usr/sbin/hv-vssd", "thaw"], LIMIT)?;
    let took = asked_for.elapsed();
    promise!(thaw.status == Some(0), "thaw: {thaw:?}");
    writable_within(&guest, &points, asked_for, SOON)?;
    bed.measured("thaw by the ledger", took);

    configure(&guest, "strictness = \"strict\"\n")?;
    bed.agent.spawn(&guest, bed.agent.name())?;
    says(&guest, bed.agent, "registered with the driver", LIMIT)?;
    fails(&mut guest, Operation::HOT_BACKUP, LIMIT)?;
    says(
        &guest,
        bed.agent,
        "which strictness = \"strict\" does not accept",
        LIMIT,
    )?;
    Ok(format!(
        "{BINDS} binds and {NAMESPACES} namespaces of an ordinary user's, changing all the time: worst stall {} ms, {} ms without; {peak} KiB at most; \
         check names the user; thawed by the ledger in {} ms; refused by strict",
        during.as_millis(),
        before.as_millis(),
        took.as_millis()
    ))
}

scenario! {
    row: "", "an ordinary user with 10,000 mounts of long paths and 1,000 mount namespaces, who mounts and unmounts all the time: three checkpoints; \
              SIGKILL of all processes in a hold, then hv-vssd thaw; strict",
    c_daemon_gap: None,
    fn a_crowd_of_an_ordinary_users_mounts_holds_up_nothing_and_is_told(bed) {
        crowded(bed)
    }
}
