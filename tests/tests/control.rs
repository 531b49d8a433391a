//! A running agent asked over its control socket: its status during and after a checkpoint, and freezes by hand that
//! meet the host's.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::error::{Failure, Step};
use tests::guest::{FsKind, Guest, poll_until};
use tests::host::Operation;
use tests::proto::JobState;
use tests::scenario::Bed;
use tests::steps::{
    self, LIFE_LIMIT, checkpoint, succeeds, with_writers, writable, writers_go_on, writers_sleep,
};
use tests::{promise, scenario};

const KINDS: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

const JOB: &str = "freeze";

const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// A guest with a writer on every disk, whose agent has served a checkpoint: nothing of the host's is at work.
fn served(bed: &mut Bed) -> Step<(Guest, Vec<String>)> {
    let (mut guest, points) = with_writers(bed, &KINDS)?;
    bed.start_agent(&mut guest)?;
    checkpoint(&mut guest)?;
    Ok((guest, points))
}

fn status(guest: &Guest) -> Step<Value> {
    let asked = guest.exec(&["/usr/sbin/hv-vssd", "status", "--json"], COMMAND_LIMIT)?;
    promise!(
        asked.status == Some(0),
        "status: {}{}",
        asked.stdout,
        asked.stderr
    );
    serde_json::from_str(&asked.stdout)
        .map_err(|error| Failure::Promise(format!("the status is no JSON: {error}")))
}

/// What stands at this place of the status.
fn says(status: &Value, place: &str, what: impl Into<Value>) -> bool {
    status.pointer(place) == Some(&what.into())
}

/// Starts a freeze by hand, and returns when every writer waits.
fn hold(guest: &Guest, time: &str, points: &[String]) -> Step<()> {
    guest.spawn(JOB, &["/usr/sbin/hv-vssd", "freeze", "--for", time])?;
    writers_sleep(guest, points)
}

fn ended(guest: &Guest) -> Step<JobState> {
    steps::ended(guest, JOB, LIFE_LIMIT * 2)
}

/// All disks are writable, and the host's next checkpoint works.
fn all_is_well(guest: &mut Guest, points: &[String]) -> Step<()> {
    checkpoint(guest)?;
    writers_go_on(guest, points)?;
    let points: Vec<&str> = points.iter().map(String::as_str).collect();
    writable(guest, &points)
}

scenario! {
    row: "", "hv-vssd status during a checkpoint of the host, and after it",
    hv_vssd_alone,
    fn the_status_is_told_during_a_hold_and_after_it(bed) {
        let (mut guest, points) = served(bed)?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        let held = status(&guest)?;
        promise!(says(&held, "/work", "held"), "in the hold: {held}");
        promise!(says(&held, "/hold/asked_by", "host"), "in the hold: {held}");
        promise!(says(&held, "/guardian/alive", true), "in the hold: {held}");
        succeeds(&mut guest, Operation::THAW)?;
        writers_go_on(&guest, &points)?;
        let after = status(&guest)?;
        promise!(says(&after, "/work", "idle") && says(&after, "/hold", Value::Null), "after it: {after}");
        promise!(says(&after, "/counters/host/succeeded", 2), "after it: {after}");
        promise!(says(&after, "/checkpoints/1/outcome", "success"), "after it: {after}");
        let listed = after.pointer("/checkpoints/1/file_systems").and_then(Value::as_array);
        promise!(listed.is_some_and(|listed| listed.len() == KINDS.len()), "after it: {after}");
        let metrics = guest.sh("/usr/sbin/hv-vssd status --prometheus")?;
        let line = "hv_vssd_checkpoints_total{asked_by=\"host\",outcome=\"success\"} 2\n";
        promise!(metrics.contains(line), "metrics: {metrics}");
        let version = after.pointer("/service/driver_version").and_then(Value::as_str);
        Ok(format!("held, then idle with 2 successes; the driver's version is {version:?}"))
    }
}

scenario! {
    row: "", "hv-vssd freeze while the host holds",
    hv_vssd_alone,
    fn a_freeze_by_hand_is_refused_while_the_host_holds(bed) {
        let (mut guest, points) = served(bed)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        let asked = guest.exec(&["/usr/sbin/hv-vssd", "freeze", "--for", "1s"], COMMAND_LIMIT)?;
        promise!(asked.status == Some(3), "status {:?}: {}{}", asked.status, asked.stdout, asked.stderr);
        promise!(asked.stderr.contains("the host is at work"), "said: {}", asked.stderr);
        writers_sleep(&guest, &points)?;
        succeeds(&mut guest, Operation::THAW)?;
        all_is_well(&mut guest, &points)?;
        Ok("refused with status 3; the host's checkpoint was not disturbed".into())
    }
}

scenario! {
    row: "", "SIGKILL of the client in the hold of hv-vssd freeze --for 100s, with an agent",
    hv_vssd_alone,
    fn a_freeze_by_hand_ends_with_its_client(bed) {
        let (mut guest, points) = served(bed)?;
        hold(&guest, "100s", &points)?;
        let held = poll_until(LIFE_LIMIT, || {
            let is_held = says(&status(&guest)?, "/work", "manual-held");
            Ok::<_, Failure>(is_held.then_some(()))
        })?;
        promise!(held.is_some(), "not the agent holds");
        guest.signal(JOB, Signal::SIGKILL)?;
        writers_go_on(&guest, &points)?;
        all_is_well(&mut guest, &points)?;
        Ok("thawed by the agent".into())
    }
}

scenario! {
    row: "", "SIGKILL of the agent in the hold of hv-vssd freeze --for 100s",
    hv_vssd_alone,
    fn a_freeze_by_hand_is_thawed_when_the_agent_dies(bed) {
        let (mut guest, points) = served(bed)?;
        hold(&guest, "100s", &points)?;
        guest.signal(bed.agent.name(), Signal::SIGKILL)?;
        writers_go_on(&guest, &points)?;
        let state = ended(&guest)?;
        promise!(state.status == Some(1), "status {:?}: {}", state.status, state.output);
        bed.agent.start(&mut guest)?;
        all_is_well(&mut guest, &points)?;
        Ok("thawed by the guardian; the command says that the agent has gone".into())
    }
}

scenario! {
    row: "", "the host's HOT_BACKUP and FREEZE in the hold of hv-vssd freeze",
    hv_vssd_alone,
    fn the_host_is_refused_in_a_freeze_by_hand_and_its_next_checkpoint_works(bed) {
        let (mut guest, points) = served(bed)?;
        hold(&guest, "100s", &points)?;
        for operation in [Operation::HOT_BACKUP, Operation::FREEZE] {
            let answer = guest.host()?.request(operation)?;
            promise!(!answer.ok(), "{operation:?} was answered with success");
        }
        writers_sleep(&guest, &points)?;
        let thawed = guest.exec(&["/usr/sbin/hv-vssd", "thaw"], COMMAND_LIMIT)?;
        promise!(thawed.status == Some(0), "thaw: {}{}", thawed.stdout, thawed.stderr);
        for point in &points {
            promise!(thawed.stdout.contains(point.as_str()), "thaw: {}", thawed.stdout);
        }
        writers_go_on(&guest, &points)?;
        ended(&guest)?;
        all_is_well(&mut guest, &points)?;
        Ok("both answered with failure; hv-vssd thaw ended the hold, and the next checkpoint works".into())
    }
}

scenario! {
    row: "", "hv-vssd thaw in the host's hold, with an agent",
    hv_vssd_alone,
    fn a_thaw_by_hand_makes_the_hosts_checkpoint_fail(bed) {
        let (mut guest, points) = served(bed)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        let thawed = guest.exec(&["/usr/sbin/hv-vssd", "thaw"], COMMAND_LIMIT)?;
        promise!(thawed.status == Some(0), "thaw: {}{}", thawed.stdout, thawed.stderr);
        writers_go_on(&guest, &points)?;
        let answer = guest.host()?.request(Operation::THAW)?;
        promise!(!answer.ok(), "THAW was answered with success");
        let after = status(&guest)?;
        promise!(says(&after, "/counters/holds_ended_early", 1), "the status: {after}");
        all_is_well(&mut guest, &points)?;
        Ok("thawed by the agent; THAW answered with failure".into())
    }
}
