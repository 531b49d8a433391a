//! Time passes without the agent: hibernation, a paused machine, a stopped process.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::error::{Failure, Step};
use tests::faults::{
    POINTS, THAW_LIMIT, answer, begin, configure, plug_in, start_with, strike, writable_within,
};
use tests::guest::{Disk, FsKind, Guest};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::steps::{checkpoint, frozen, mount_all, succeeds};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

fn hibernate(bed: &Bed, guest: &mut Guest, points: &[String]) -> Step<()> {
    guest.host_does("suspend")?.wait(SOON)?;
    guest.host_does("resume")?.wait(SOON)?;
    writable_within(guest, points, Instant::now(), THAW_LIMIT)?;
    promise!(bed.agent.state(guest)?.running, "the agent has ended");
    bed.agent.wait_registered(guest)?;
    checkpoint(guest)
}

scenario! {
    /// Row 20: VSS-05.
    row: "20", "hibernation while idle and in a hold, twice",
    c_daemon_gap: None,
    fn hibernation_thaws_and_the_agent_goes_on(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        for _ in 0..2 {
            hibernate(bed, &mut guest, &points)?;
            succeeds(&mut guest, Operation::FREEZE)?;
            hibernate(bed, &mut guest, &points)?;
        }
        Ok("thawed, agent alive, the next checkpoint works, each time".into())
    }
}

scenario! {
    /// Row 20.
    row: "20", "the machine paused for 2 s while idle, while freezing, in a hold and while thawing",
    c_daemon_gap: None,
    fn a_paused_machine_goes_on_where_it_was(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        let pause = |guest: &mut Guest| -> Step<()> {
            guest.pause(true)?;
            std::thread::sleep(Duration::from_secs(2));
            Ok(guest.pause(false)?)
        };
        pause(&mut guest)?;
        for operation in [Operation::FREEZE, Operation::THAW] {
            let transaction = begin(&mut guest, operation)?;
            std::thread::sleep(Duration::from_millis(15));
            pause(&mut guest)?;
            let status = answer(&mut guest, transaction, SOON)?;
            promise!(status == 0, "{} was answered {status:#x}", operation.name());
            if operation == Operation::FREEZE {
                pause(&mut guest)?;
                frozen(&guest, &["/mnt/ext4", "/mnt/xfs"])?;
            }
        }
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        checkpoint(&mut guest)?;
        Ok("all statuses 0, frozen until THAW, the next checkpoint works".into())
    }
}

scenario! {
    /// Row 20: a debugger, a freezer cgroup.
    row: "20", "SIGSTOP at every phase boundary, SIGCONT 0.3 s later (the C daemon: in the hold)",
    c_daemon_gap: None,
    fn a_moment_of_stop_does_no_harm(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        let moment = Duration::from_millis(300);
        if bed.agent == Agent::CDaemon {
            bed.agent.start(&mut guest)?;
            succeeds(&mut guest, Operation::FREEZE)?;
            strike(bed, &guest, Signal::SIGSTOP)?;
            std::thread::sleep(moment);
            strike(bed, &guest, Signal::SIGCONT)?;
            succeeds(&mut guest, Operation::THAW)?;
            checkpoint(&mut guest)?;
            return Ok("goes on".into());
        }
        for point in POINTS {
            start_with(&mut guest, point, "stop")?;
            for operation in [Operation::FREEZE, Operation::THAW] {
                let transaction = begin(&mut guest, operation)?;
                let stops = matches!(point, "thaw" | "thawed") == (operation == Operation::THAW);
                if stops {
                    std::thread::sleep(moment * 2);
                    strike(bed, &guest, Signal::SIGCONT)?;
                }
                let status = answer(&mut guest, transaction, SOON)?;
                promise!(status == 0, "stopped at {point}: {} was answered {status:#x}", operation.name());
            }
            writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
            checkpoint(&mut guest)?;
            bed.agent.stop(&guest)?;
        }
        Ok(format!("{} of {} boundaries: goes on, all statuses 0", POINTS.len(), POINTS.len()))
    }
}

scenario! {
    /// Row 20, row 3: stopped in a hold until even the driver has given up.
    row: "20", "SIGSTOP in a hold, limits of 1 s; the host's THAW runs out of time (30 s); SIGCONT",
    c_daemon_gap: Some("nobody thaws while it is stopped"),
    fn a_stopped_agent_is_thawed_for(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        configure(&guest, "[limits]\nhold = 1\nfreeze = 1\n")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let struck = strike(bed, &guest, Signal::SIGSTOP)?;
        let transaction = begin(&mut guest, Operation::THAW)?;
        // The agent's own limits, and the 10 s that the guardian grants it.
        let took = writable_within(&guest, &points, struck, Duration::from_secs(14))?;
        bed.measured("thaw by the guardian", took);
        let status = answer(&mut guest, transaction, Duration::from_secs(40))?;
        promise!(status == E_FAIL, "THAW was answered {status:#x}");
        strike(bed, &guest, Signal::SIGCONT)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        promise!(bed.agent.state(&guest)?.running, "the agent has ended");
        Ok::<_, Failure>(format!("thawed by the guardian after {:.1} s, the host told failure, agent alive, the next checkpoint works", took.as_secs_f64()))
    }
}

scenario! {
    /// The driver has no numbers: after its own time limit the next request may be answered by the reply to the last one.
    row: "20", "SIGSTOP while thawing until the driver has given THAW up (30 s); FREEZE is asked; SIGCONT",
    hv_vssd_alone,
    fn a_late_reply_to_thaw_is_not_taken_for_the_next_freezes(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        start_with(&mut guest, "thaw", "stop")?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let thaw = begin(&mut guest, Operation::THAW)?;
        let status = answer(&mut guest, thaw, Duration::from_secs(40))?;
        promise!(status == E_FAIL, "THAW was answered {status:#x}");
        let freeze = begin(&mut guest, Operation::FREEZE)?;
        strike(bed, &guest, Signal::SIGCONT)?;
        let status = answer(&mut guest, freeze, SOON * 2)?;
        promise!(status == E_FAIL, "FREEZE was answered {status:#x} by the thaw of the checkpoint before");
        writable_within(&guest, &points, Instant::now(), SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        promise!(bed.agent.state(&guest)?.running, "the agent has ended");
        Ok("FREEZE is answered with failure, nothing is frozen, the next checkpoint works".into())
    }
}
