//! Freezes of others on the same file system, in progress or complete, while agent or guardian act or die: theirs stays, ours goes.

use std::time::{Duration, Instant};

use tests::agent::Agent;
use tests::assets::Kernel;
use tests::dice::Dice;
use tests::error::{Failure, Step};
use tests::faults::{
    THAW_LIMIT, Victim, answer, armed, begin, configure, during, ended, mount_mapped, plug_in,
    process_names, says, start_with, writable_within,
};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::sleepers::{waits_in_a_freeze, write_slowly, written};
use tests::steps::{self, checkpoint, frozen, mount_all, succeeds, writable};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

/// Someone freezes the first disk.
const THEIRS: [&str; 3] = ["/bin/fsfreeze", "--freeze", "/mnt/ext4"];

/// Theirs waits for a write, ours comes second, and somebody of ours is killed.
fn struck_behind_theirs(bed: &Bed, guest: &mut Guest, victim: Victim) -> Step<()> {
    let ours = ["/mnt/xfs".to_owned()];
    if bed.agent == Agent::CDaemon {
        bed.agent.start(guest)?;
    } else {
        start_with(guest, "freeze", "sleep")?;
        begin(guest, Operation::FREEZE)?;
        armed(guest)?;
    }
    write_slowly(guest, "/mnt/ext4/large", 24)?;
    guest.spawn("theirs", &THEIRS)?;
    waits_in_a_freeze(guest, "fsfreeze")?;
    if bed.agent == Agent::CDaemon {
        begin(guest, Operation::FREEZE)?;
    }
    if bed.kernel == Kernel::V6_1 {
        // It says EBUSY to ours; the other disk is frozen at the same time.
        let begun = poll_until(SOON * 2, || {
            Ok::<_, Failure>(guest.write_sleeps("/mnt/xfs")?.then_some(()))
        })?;
        promise!(begun.is_some(), "the freeze has not begun");
    } else {
        // Ours waits behind theirs.
        waits_in_a_freeze(guest, process_names(bed.agent))?;
    }
    victim.strike(guest, bed.agent, "KILL")?;
    written(guest)?;
    let state = steps::ended(guest, "theirs", SOON * 2)?;
    promise!(
        state.status == Some(0),
        "theirs did not freeze: {}",
        state.output
    );
    if victim != Victim::Guardian {
        ended(guest, bed.agent, SOON)?;
        bed.agent.spawn(guest, bed.agent.name())?;
    }
    writable_within(guest, &ours, Instant::now(), SOON)?;
    frozen(guest, &["/mnt/ext4"])?;
    // What agent and guardian do late they have done by the next request.
    let status = guest.host()?.try_request(Operation::HOT_BACKUP, SOON * 4)?;
    promise!(status.is_some(), "HOT_BACKUP is not answered");
    frozen(guest, &["/mnt/ext4"])?;
    guest.sh("fsfreeze --unfreeze /mnt/ext4")?;
    writable_within(guest, &["/mnt/ext4".to_owned()], Instant::now(), THAW_LIMIT)?;
    bed.agent.wait_registered(guest)?;
    checkpoint(guest)?;
    bed.agent.stop(guest)
}

scenario! {
    /// Row 31.
    row: "31", "someone's fsfreeze waits for a write of 24 MB to a disk of 3 MB/s, ours comes second; SIGKILL of the agent, of the guardian, of both",
    c_daemon_gap: Some("leaves everything frozen"),
    fn fsfreeze_in_progress_keeps_its_freeze_whoever_of_ours_dies(bed) {
        let slow = Disk::new(FsKind::Ext4).throttled(3_000_000);
        let mut guest = bed.boot(&[slow, Disk::new(FsKind::Xfs)])?;
        mount_all(&guest, &TWO)?;
        configure(&guest, "[limits]\nflush = 30\nfreeze = 30\n")?;
        plug_in(&mut guest)?;
        for victim in [Victim::Agent, Victim::Guardian, Victim::Both] {
            during(&format!("SIGKILL of {}", victim.name()), struck_behind_theirs(bed, &mut guest, victim))?;
        }
        Ok("3 of 3 times theirs stays until fsfreeze -u, nothing of ours does; the next checkpoint works".into())
    }
}

/// How often an agent is killed beside a freeze of others.
const TRIES: u32 = 20;

scenario! {
    /// Row 31, row 9: ours tries again for a while, and dies at some moment of it.
    row: "31", "a disk that someone has frozen; SIGKILL of the agent at 20 random moments of FREEZE",
    c_daemon_gap: Some("leaves everything frozen"),
    fn fsfrozen_disk_stays_so_when_the_agent_is_killed_at_any_moment(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        mount_all(&guest, &TWO)?;
        let ours = ["/mnt/xfs".to_owned()];
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        guest.sh("fsfreeze --freeze /mnt/ext4")?;
        let mut dice = Dice::new(0x5eed_0031);
        for attempt in 1..=TRIES {
            begin(&mut guest, Operation::FREEZE)?;
            std::thread::sleep(Duration::from_millis(dice.below(1200)));
            let struck = Victim::Agent.strike(&guest, bed.agent, "KILL")?;
            during(&format!("try {attempt}"), writable_within(&guest, &ours, struck, THAW_LIMIT))?;
            during(&format!("try {attempt}"), frozen(&guest, &["/mnt/ext4"]))?;
            ended(&guest, bed.agent, SOON)?;
            bed.agent.start(&mut guest)?;
        }
        frozen(&guest, &["/mnt/ext4"])?;
        guest.sh("fsfreeze --unfreeze /mnt/ext4")?;
        checkpoint(&mut guest)?;
        writable(&guest, &["/mnt/ext4", "/mnt/xfs"])?;
        Ok(format!("{TRIES} of {TRIES} times theirs stayed and ours went; the next checkpoint works"))
    }
}

scenario! {
    /// Row 32: from 6.8 on such a freeze is counted beside ours, and FITHAW says that there is nothing to thaw.
    row: "32", "dmsetup suspend of a frozen disk in a hold, and not resumed before THAW",
    hv_vssd_alone,
    fn dm_suspend_within_a_hold_and_across_thaw_is_told_as_it_is(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let volume = mount_mapped(&guest, "/dev/vda", "volume", "ext4")?;
        let other = mount_mapped(&guest, "/dev/vdb", "other", "xfs")?;
        // What is known of it needs no disk.
        writable(&guest, &[&volume, &other])?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let suspended = guest.exec(&["/sbin/dmsetup", "suspend", "volume"], SOON)?;
        let on = guest.read("/sys/block/dm-0/dm/suspended")?.trim() == "1";
        frozen(&guest, &[&volume, &other])?;
        // Held to the end.
        succeeds(&mut guest, Operation::THAW)?;
        writable_within(&guest, std::slice::from_ref(&other), Instant::now(), THAW_LIMIT)?;
        if on {
            frozen(&guest, &[&volume])?;
            if bed.kernel == Kernel::V6_12 {
                says(&guest, bed.agent, "suspended", SOON)?;
            }
            guest.sh("dmsetup resume volume")?;
        }
        writable_within(&guest, &[volume, other], Instant::now(), SOON)?;
        if bed.kernel == Kernel::V6_1 {
            // On 6.12 the device keeps a count for good: no fault of an agent's, and none that it could mend.
            checkpoint(&mut guest)?;
        }
        Ok(format!("dmsetup suspend: {}, suspended: {on}; THAW is success, and the disk writable once it is resumed",
            suspended.status.map_or("no end".into(), |status| format!("status {status}"))))
    }
}

scenario! {
    /// Row 31.
    row: "31", "FREEZE waits behind someone's fsfreeze that waits for a write, within its limit; theirs is undone meanwhile",
    c_daemon_gap: Some("takes their freeze for its own: the disk is written to during the hold"),
    fn fsfreeze_in_progress_that_ends_in_time_is_waited_out(bed) {
        let slow = Disk::new(FsKind::Ext4).throttled(6_000_000);
        let mut guest = bed.boot(&[slow, Disk::new(FsKind::Xfs)])?;
        mount_all(&guest, &TWO)?;
        configure(&guest, "[limits]\nflush = 30\nfreeze = 30\n")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        write_slowly(&guest, "/mnt/ext4/large", 12)?;
        guest.spawn("theirs", &["/bin/sh", "-c", "fsfreeze --freeze /mnt/ext4 && fsfreeze --unfreeze /mnt/ext4"])?;
        waits_in_a_freeze(&guest, "fsfreeze")?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let status = answer(&mut guest, transaction, SOON * 6)?;
        written(&guest)?;
        steps::ended(&guest, "theirs", SOON * 2)?;
        if status == 0 {
            frozen(&guest, &["/mnt/ext4", "/mnt/xfs"])?;
            succeeds(&mut guest, Operation::THAW)?;
        } else {
            promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        }
        writable(&guest, &["/mnt/ext4", "/mnt/xfs"])?;
        checkpoint(&mut guest)?;
        Ok(format!("FREEZE is {}, and what was told is true; the next checkpoint works", if status == 0 { "success" } else { "failure" }))
    }
}
