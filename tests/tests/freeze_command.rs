//! `hv-vssd freeze` on a whole guest, without an agent.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::error::Step;
use tests::guest::{FsKind, Guest};
use tests::proto::JobState;
use tests::steps::{
    self, LIFE_LIMIT, checkpoint, with_writers, writable, writers_go_on, writers_sleep,
};
use tests::{promise, scenario};

const KINDS: [FsKind; 3] = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs];

const JOB: &str = "freeze";

/// Starts the command, and returns when every writer waits.
fn hold(guest: &Guest, time: &str, points: &[String]) -> Step<()> {
    guest.spawn(
        JOB,
        &["/usr/sbin/hv-vssd", "freeze", "--for", time, "--report"],
    )?;
    writers_sleep(guest, points)
}

/// How the command ended.
fn ended(guest: &Guest) -> Step<JobState> {
    steps::ended(guest, JOB, LIFE_LIMIT * 2)
}

scenario! {
    /// The whole guest, as a checkpoint would freeze it.
    row: "", "hv-vssd freeze --for 3s --report, ext4, xfs and btrfs under a writer, no agent",
    hv_vssd_alone,
    fn a_freeze_by_hand_holds_the_whole_guest_and_thaws(bed) {
        let (guest, points) = with_writers(bed, &KINDS)?;
        hold(&guest, "3s", &points)?;
        let state = ended(&guest)?;
        promise!(state.status == Some(0), "status {:?}: {}", state.status, state.output);
        writers_go_on(&guest, &points)?;
        promise!(state.output.contains("\n3 file systems frozen for 3.0"), "said: {}", state.output);
        for point in &points {
            promise!(state.output.contains(&format!("\n{point} ")), "{point} is not in: {}", state.output);
        }
        let stall = state.output.lines().find(|line| line.starts_with("a write could wait"));
        Ok(format!("status 0; {}", stall.unwrap_or_default()))
    }
}

scenario! {
    row: "", "SIGINT in the hold of hv-vssd freeze --for 100s",
    hv_vssd_alone,
    fn an_interrupted_freeze_by_hand_thaws_at_once(bed) {
        let (guest, points) = with_writers(bed, &KINDS)?;
        hold(&guest, "100s", &points)?;
        guest.signal(JOB, Signal::SIGINT)?;
        writers_go_on(&guest, &points)?;
        let state = ended(&guest)?;
        promise!(state.status == Some(4), "status {:?}: {}", state.status, state.output);
        promise!(state.output.contains("interrupted by SIGINT"), "said: {}", state.output);
        Ok("thawed at once, status 4".into())
    }
}

scenario! {
    row: "", "SIGKILL in the hold of hv-vssd freeze --for 100s; then another one, then a checkpoint",
    hv_vssd_alone,
    fn a_killed_freeze_by_hand_is_thawed_by_its_guardian(bed) {
        let (mut guest, points) = with_writers(bed, &KINDS)?;
        hold(&guest, "100s", &points)?;
        guest.signal(JOB, Signal::SIGKILL)?;
        writers_go_on(&guest, &points)?;
        let state = ended(&guest)?;
        promise!(state.output.contains("guardian: "), "the guardian said nothing: {}", state.output);
        let limit = Duration::from_secs(20);
        let again = guest.exec(&["/usr/sbin/hv-vssd", "freeze", "--for", "100ms"], limit)?;
        promise!(again.status == Some(0), "the next one: {}{}", again.stdout, again.stderr);
        bed.start_agent(&mut guest)?;
        checkpoint(&mut guest)?;
        let points: Vec<&str> = points.iter().map(String::as_str).collect();
        writable(&guest, &points)?;
        Ok("thawed by the guardian; the next freeze and the next checkpoint work".into())
    }
}
