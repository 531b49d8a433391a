//! Limits that pass, disks that answer no more or wrongly, file systems that others have frozen.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::error::{Failure, Step};
use tests::faults::{
    THAW_LIMIT, Victim, answer, begin, configure, fails, go_on, mount_mapped, plug_in, says, stall,
    start_with, strike, writable_within,
};
use tests::guest::{Disk, Event, FsKind, Guest, poll_until};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::steps::{checkpoint, frozen, mount_all, succeeds};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

scenario! {
    /// Row 5.
    row: "5", "the host never sends THAW; the limit is 3 s",
    c_daemon_gap: Some("waits for THAW for ever"),
    fn a_hold_ends_at_its_limit(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        configure(&guest, "[limits]\nhold = 3\n")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        for _ in 0..2 {
            succeeds(&mut guest, Operation::FREEZE)?;
            let held = Instant::now();
            let took = writable_within(&guest, &points, held, SOON)?;
            promise!(took > Duration::from_secs(2), "thawed after {took:?} already");
            fails(&mut guest, Operation::THAW, SOON)?;
        }
        says(&guest, bed.agent, "THAW", SOON)?;
        checkpoint(&mut guest)?;
        Ok("thawed after 3 s, the late THAW fails, the next FREEZE works, twice".into())
    }
}

scenario! {
    /// The kernel ends the machine otherwise.
    row: "5", "kernel.hung_task_panic=1 with 16 s, writers wait, the host never sends THAW; limits.hold is 120 s; then the agent is stopped (SIGSTOP) in its hold, too",
    c_daemon_gap: Some("waits for THAW for ever, and the kernel panics"),
    fn hung_task_panic_ends_the_hold_before_the_kernel_panics(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        // After the start: it counts what is in force at the checkpoint.
        guest.sh("echo 16 > /proc/sys/kernel/hung_task_timeout_secs; echo 1 > /proc/sys/kernel/hung_task_panic")?;
        if bed.agent == Agent::HvVssd {
            let said = guest.exec(&["/usr/sbin/hv-vssd", "check"], SOON * 4)?.stdout;
            promise!(said.contains("[hung-task-panic]"), "hv-vssd check does not warn: {said}");
        }
        let (agent, guardian) = (Duration::from_secs(8), Duration::from_secs(12));
        let mut took = Vec::new();
        for (limit, stopped) in [(agent, false), (guardian, true)] {
            let asked = Instant::now();
            succeeds(&mut guest, Operation::FREEZE)?;
            let frozen = Instant::now();
            if stopped {
                Victim::Agent.strike(&guest, bed.agent, "STOP")?;
            }
            let thawed = writable_within(&guest, &points, frozen, limit + Duration::from_secs(2))?;
            promise!(asked.elapsed() >= limit - Duration::from_secs(1), "thawed after {thawed:?} already");
            took.push(thawed);
            if stopped {
                Victim::Agent.strike(&guest, bed.agent, "CONT")?;
            }
            fails(&mut guest, Operation::THAW, SOON)?;
        }
        says(&guest, bed.agent, "kernel.hung_task_panic", SOON)?;
        // As long as the kernel may take to find one that has waited.
        std::thread::sleep(Duration::from_secs(4));
        checkpoint(&mut guest)?;
        let took: Vec<_> = took.iter().map(|took| format!("{:.1} s", took.as_secs_f64())).collect();
        Ok(format!("warned of by check; thawed by the agent, then by the guardian, after {}; the guest lives", took.join(" and ")))
    }
}

scenario! {
    /// FIFREEZE waits until it is done.
    row: "6", "a btrfs scrub of minutes is running; then it is cancelled; then one of seconds",
    c_daemon_gap: Some("waits for the scrub, and every writer of the btrfs waits for it"),
    fn btrfs_scrub_fails_the_freeze_before_any_writer_waits(bed) {
        let kinds = [FsKind::Ext4, FsKind::Btrfs];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        let points = mount_all(&guest, &kinds)?;
        plug_in(&mut guest)?;
        guest.sh("head -c 24000000 /dev/urandom > /mnt/btrfs/data; sync; mkdir -p /var/lib/btrfs")?;
        bed.agent.start(&mut guest)?;
        scrub(&guest, "100k")?;
        if bed.agent == Agent::HvVssd {
            let said = guest.exec(&["/usr/sbin/hv-vssd", "check"], SOON * 4)?.stdout;
            promise!(said.contains("[operation-at-work]"), "hv-vssd check does not say so: {said}");
            fails(&mut guest, Operation::HOT_BACKUP, SOON)?;
        }
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let asked = Instant::now();
        for _ in 0..20 {
            writable_within(&guest, &points, Instant::now(), SOON)?;
        }
        let status = answer(&mut guest, transaction, Duration::from_secs(30))?;
        let heard = asked.elapsed();
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        writable_within(&guest, &points, Instant::now(), SOON)?;
        says(&guest, bed.agent, "scrub of device 1", SOON)?;
        guest.sh("btrfs scrub cancel /mnt/btrfs")?;
        checkpoint(&mut guest)?;
        scrub(&guest, "6m")?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let status = answer(&mut guest, transaction, Duration::from_secs(30))?;
        promise!(status == 0, "a short scrub makes FREEZE fail: {status:#x}");
        succeeds(&mut guest, Operation::THAW)?;
        Ok(format!("failure after {:.1} s with nothing frozen, named; works once it is cancelled, and waits for a short one", heard.as_secs_f64()))
    }
}

/// Begins a scrub of this speed, and sees it at work.
fn scrub(guest: &Guest, speed: &str) -> Step<()> {
    guest.sh(&format!(
        "for limit in /sys/fs/btrfs/*-*/devinfo/1/scrub_speed_max; do echo {speed} > $limit; done
        btrfs scrub start -B /mnt/btrfs > /tmp/scrub 2>&1 < /dev/null &
        sleep 1; kill -0 $! || {{ cat /tmp/scrub >&2; exit 1; }}"
    ))?;
    Ok(())
}

/// A guest with two good disks and a third one that can be stalled.
fn with_stallable(bed: &mut Bed) -> Step<(Guest, Vec<String>, Vec<String>)> {
    let kinds = [FsKind::Ext4, FsKind::Xfs, FsKind::Ext4];
    let mut guest = bed.boot(&kinds.map(Disk::new))?;
    let good = mount_all(&guest, &TWO)?;
    let bad = vec![mount_mapped(&guest, "/dev/vdc", "bad", "ext4")?];
    configure(&guest, "[limits]\nflush = 2\nfreeze = 2\n")?;
    plug_in(&mut guest)?;
    Ok((guest, good, bad))
}

scenario! {
    /// Row 6.
    row: "6", "a disk stalls before FREEZE; the limits are 2 s",
    c_daemon_gap: Some("waits for the disk, and holds the others frozen meanwhile"),
    fn a_freeze_that_is_too_slow_is_rolled_back(bed) {
        let (mut guest, good, bad) = with_stallable(bed)?;
        bed.agent.start(&mut guest)?;
        guest.sh("echo unwritten > /mnt/bad/file")?;
        stall(&guest, "bad")?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let asked = Instant::now();
        let status = answer(&mut guest, transaction, Duration::from_secs(10))?;
        let heard = asked.elapsed();
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        bed.measured("failure told", heard);
        writable_within(&guest, &good, Instant::now(), THAW_LIMIT)?;
        go_on(&guest, "bad")?;
        writable_within(&guest, &bad, Instant::now(), SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        promise!(bed.agent.state(&guest)?.running, "the agent has ended");
        Ok(format!("failure after {:.1} s, nothing frozen, the next checkpoint works", heard.as_secs_f64()))
    }
}

scenario! {
    /// Row 6: the driver refuses the reply, because its time is up or the machine slept meanwhile.
    row: "6", "hibernation while FREEZE is at work: the driver refuses the reply (EINVAL)",
    c_daemon_gap: None,
    fn a_freeze_that_nobody_waits_for_is_rolled_back(bed) {
        let (mut guest, good, bad) = with_stallable(bed)?;
        if bed.agent == Agent::HvVssd {
            start_with(&mut guest, "frozen", "sleep")?;
        } else {
            bed.agent.start(&mut guest)?;
            stall(&guest, "bad")?;
        }
        begin(&mut guest, Operation::FREEZE)?;
        std::thread::sleep(Duration::from_millis(1500));
        let suspended = guest.host_does("suspend")?;
        std::thread::sleep(Duration::from_millis(500));
        if bed.agent == Agent::CDaemon {
            go_on(&guest, "bad")?;
        }
        suspended.wait(SOON)?;
        guest.host_does("resume")?.wait(SOON)?;
        let points = [good, bad].concat();
        writable_within(&guest, &points, Instant::now(), SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        promise!(bed.agent.state(&guest)?.running, "the agent has ended");
        Ok("thawed, agent alive, the next checkpoint works".into())
    }
}

/// FREEZE, and the disk stalls just before `FIFREEZE`. Gives the transaction.
fn freeze_into_a_stall(bed: &Bed, guest: &mut Guest) -> Step<u8> {
    if bed.agent == Agent::CDaemon {
        bed.agent.start(guest)?;
        stall(guest, "bad")?;
        return begin(guest, Operation::FREEZE);
    }
    start_with(guest, "freeze", "sleep")?;
    let transaction = begin(guest, Operation::FREEZE)?;
    std::thread::sleep(Duration::from_millis(1200));
    stall(guest, "bad")?;
    Ok(transaction)
}

scenario! {
    /// Row 7.
    row: "7", "a disk stalls in FIFREEZE, which does not return; later the disk comes back",
    c_daemon_gap: Some("waits for the disk, and holds the others frozen meanwhile"),
    fn a_stuck_disk_holds_nobody_else(bed) {
        let (mut guest, good, bad) = with_stallable(bed)?;
        let transaction = freeze_into_a_stall(bed, &mut guest)?;
        let stalled = Instant::now();
        // Past the rest of the fault's 3 s and into FIFREEZE; the limit of 2 s ends it for the others.
        std::thread::sleep(Duration::from_millis(2500));
        writable_within(&guest, &good, Instant::now(), Duration::from_secs(3))?;
        let status = answer(&mut guest, transaction, if bed.agent == Agent::HvVssd { SOON * 4 } else { SOON * 2 })?;
        bed.measured("failure told", stalled.elapsed());
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        writable_within(&guest, &good, Instant::now(), THAW_LIMIT)?;
        fails(&mut guest, Operation::HOT_BACKUP, SOON)?;
        fails(&mut guest, Operation::FREEZE, SOON)?;
        says(&guest, bed.agent, "is stuck in a freeze of an earlier checkpoint", SOON)?;
        writable_within(&guest, &good, Instant::now(), THAW_LIMIT)?;
        go_on(&guest, "bad")?;
        let took = writable_within(&guest, &bad, Instant::now(), SOON)?;
        bed.measured("thaw of the stuck disk", took);
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        writable_within(&guest, &[good, bad].concat(), Instant::now(), THAW_LIMIT)?;
        Ok("failure told, the others thawed, further freezes refused; thawed when the disk came back, the next checkpoint works".into())
    }
}

scenario! {
    /// Row 7 and row 3 at once.
    row: "7", "a disk stalls in FIFREEZE and the agent is killed; later the disk comes back",
    c_daemon_gap: Some("leaves everything frozen"),
    fn a_stuck_disk_and_a_killed_agent_leave_nothing_frozen(bed) {
        let (mut guest, good, bad) = with_stallable(bed)?;
        freeze_into_a_stall(bed, &mut guest)?;
        // Into the freeze: past the rest of the fault's 3 s, before the limit of 2 s.
        std::thread::sleep(Duration::from_millis(2600));
        let struck = strike(bed, &guest, Signal::SIGKILL)?;
        let took = writable_within(&guest, &good, struck, THAW_LIMIT)?;
        bed.measured("thaw of the others", took);
        go_on(&guest, "bad")?;
        let took = writable_within(&guest, &bad, Instant::now(), SOON)?;
        bed.measured("thaw of the stuck disk", took);
        tests::faults::ended(&guest, bed.agent, SOON)?;
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        writable_within(&guest, &[good, bad].concat(), Instant::now(), THAW_LIMIT)?;
        Ok("the others thawed at once, the stuck one when its disk came back, the next checkpoint works".into())
    }
}

/// The table of a thin pool with this many sectors for data: `/dev/vdc` has its metadata, `/dev/vdd` its data.
fn thin_pool(sectors: u32) -> String {
    format!("0 {sectors} thin-pool /dev/vdc /dev/vdd 128 0")
}

scenario! {
    /// Row 7: a disk that stops for want of space in the pool below it.
    row: "7", "a thin pool that is full, and holds back writes until it is given more room",
    c_daemon_gap: Some("waits for the pool, and holds the others frozen meanwhile"),
    fn a_full_thin_pool_holds_nobody_else(bed) {
        let kinds = [FsKind::Ext4, FsKind::Xfs, FsKind::Blank, FsKind::Blank];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        let good = mount_all(&guest, &TWO)?;
        let thin = vec!["/mnt/thin".to_owned()];
        guest.sh(&format!("modprobe dm_mod; modprobe dm_thin_pool; dmsetup create pool --table '{}'
            dmsetup message pool 0 'create_thin 0'; dmsetup mknodes
            dmsetup create thin --table '0 131072 thin /dev/mapper/pool 0'; dmsetup mknodes
            /sbin/mke2fs -q -t ext4 -E nodiscard /dev/mapper/thin; mkdir /mnt/thin; mount -t ext4 /dev/mapper/thin /mnt/thin", thin_pool(65536)))?;
        configure(&guest, "[limits]\nflush = 2\nfreeze = 2\n")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        // More than the pool has; it stays in the cache until it is written back.
        guest.sh("dd if=/dev/zero of=/mnt/thin/file bs=1M count=40 2> /dev/null")?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let asked = Instant::now();
        let status = answer(&mut guest, transaction, SOON * 2)?;
        bed.measured("failure told", asked.elapsed());
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        writable_within(&guest, &good, Instant::now(), THAW_LIMIT)?;
        guest.sh(&format!("dmsetup suspend --nolockfs --noflush pool; dmsetup load pool --table '{}'; dmsetup resume pool", thin_pool(131072)))?;
        writable_within(&guest, &thin, Instant::now(), SOON * 2)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        writable_within(&guest, &[good, thin].concat(), Instant::now(), THAW_LIMIT)?;
        Ok("failure told, the others thawed; with more room in the pool the next checkpoint works".into())
    }
}

scenario! {
    /// Row 8.
    row: "8", "the fifth of eight disks answers every write with an error",
    c_daemon_gap: None,
    fn a_failing_disk_undoes_the_whole_freeze(bed) {
        let mut guest = bed.boot(&[FsKind::Ext4; 8].map(Disk::new))?;
        let mut good = Vec::new();
        for (number, letter) in (1..=8).zip('a'..='h') {
            let point = mount_mapped(&guest, &format!("/dev/vd{letter}"), &format!("disk{number}"), "ext4")?;
            if number != 5 {
                good.push(point);
            }
        }
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        let device = guest.sh("awk '$5 == \"/mnt/disk5\" { print $3 }' /proc/self/mountinfo")?;
        let device = device.trim();
        guest.sh("size=$(blockdev --getsz /dev/mapper/disk5); dmsetup suspend --nolockfs --noflush disk5
            dmsetup load disk5 --table \"0 $size error\"; dmsetup resume disk5")?;
        guest.watch_freezes()?;
        fails(&mut guest, Operation::FREEZE, Duration::from_secs(20))?;
        writable_within(&guest, &good, Instant::now(), THAW_LIMIT)?;
        let events = guest.freezes()?;
        let mut balance: Vec<&String> = Vec::new();
        for event in &events {
            match event {
                Event::Freeze(device) => balance.push(device),
                Event::Thaw(device) => {
                    let at = balance.iter().position(|frozen| *frozen == device);
                    promise!(at.is_some(), "{device} was thawed, and had not been frozen");
                    at.map(|at| balance.remove(at));
                }
            }
        }
        promise!(balance.is_empty(), "left frozen: {balance:?}");
        promise!(!events.contains(&Event::Freeze(device.to_owned())), "the failing disk counts as frozen");
        says(&guest, bed.agent, "/mnt/disk5", SOON)?;
        says(&guest, bed.agent, "Input/output error", SOON)?;
        guest.sh("umount -l /mnt/disk5")?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        Ok(format!("{} freezes, as many thaws, failure told, cause in the log; without the disk the next checkpoint works", events.len() / 2))
    }
}

scenario! {
    /// Row 9: VSS-06.
    row: "9", "a disk that an administrator has frozen; then the same with foreign_freeze = \"accept\"",
    c_daemon_gap: Some("reports success, and then thaws what it had not frozen"),
    fn what_an_administrator_froze_stays_frozen(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        mount_all(&guest, &TWO)?;
        let ours = ["/mnt/xfs".to_owned()];
        let theirs = ["/mnt/ext4"];
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        guest.sh("fsfreeze --freeze /mnt/ext4")?;
        fails(&mut guest, Operation::FREEZE, Duration::from_secs(10))?;
        writable_within(&guest, &ours, Instant::now(), THAW_LIMIT)?;
        says(&guest, bed.agent, "frozen already by someone else", SOON)?;
        frozen(&guest, &theirs)?;
        bed.agent.stop(&guest)?;
        configure(&guest, "foreign_freeze = \"accept\"\n")?;
        bed.agent.start(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        succeeds(&mut guest, Operation::THAW)?;
        frozen(&guest, &theirs)?;
        writable_within(&guest, &ours, Instant::now(), THAW_LIMIT)?;
        guest.sh("fsfreeze --unfreeze /mnt/ext4")?;
        checkpoint(&mut guest)?;
        Ok("failure (by default) or success (if accepted); theirs still frozen after each".into())
    }
}

/// Freezes for a moment in a process of its own, and returns when it has begun.
fn freeze_for_a_moment(guest: &Guest, freeze: &str, thaw: &str) -> Step<()> {
    let script = format!("{freeze}; echo begun; usleep 800000; {thaw}");
    guest.spawn(freeze, &["/bin/sh", "-c", &script])?;
    let begun = poll_until(SOON, || {
        Ok::<_, Failure>(guest.job(freeze)?.output.contains("begun").then_some(()))
    })?;
    promise!(begun.is_some(), "'{freeze}' does not end");
    Ok(())
}

scenario! {
    /// Row 9: an LVM snapshot, or another backup, racing the freeze.
    row: "9", "a disk suspended for 0.8 s, as for an LVM snapshot, when FREEZE comes; one frozen for 0.8 s by fsfreeze",
    c_daemon_gap: Some("takes their freeze for its own: the disk is written to during the hold"),
    fn a_snapshot_in_the_making_is_waited_out(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = vec![
            mount_mapped(&guest, "/dev/vda", "origin", "ext4")?,
            mount_mapped(&guest, "/dev/vdb", "other", "xfs")?,
        ];
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        for (freeze, thaw) in [
            ("dmsetup suspend origin", "dmsetup resume origin"),
            ("fsfreeze --freeze /mnt/origin", "fsfreeze --unfreeze /mnt/origin"),
            ("dmsetup suspend other", "dmsetup resume other"),
        ] {
            freeze_for_a_moment(&guest, freeze, thaw)?;
            succeeds(&mut guest, Operation::FREEZE)?;
            let over = poll_until(SOON, || Ok::<_, Failure>((!guest.job(freeze)?.running).then_some(())))?;
            promise!(over.is_some(), "'{thaw}' does not end");
            frozen(&guest, &["/mnt/origin", "/mnt/other"])?;
            succeeds(&mut guest, Operation::THAW)?;
            writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        }
        Ok("3 of 3 waited out: frozen by us afterwards, thawed by us alone".into())
    }
}
