//! Mounts that come, go and hide while a checkpoint is under way.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::error::Step;
use tests::faults::{
    THAW_LIMIT, answer, begin, configure, ended, go_on, kill_all, mount_mapped, plug_in, stall,
    start_with, strike, writable_within,
};
use tests::guest::{Disk, Event, FsKind, Guest};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{
    checkpoint, frozen, mount_all, start_container, succeeds, writers_go_on, writers_sleep,
};
use tests::{promise, scenario};

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

const FIVE: [FsKind; 5] = [FsKind::Ext4; 5];

/// Runs a script that must not wait for a thaw; gives whether it succeeded.
fn at_once(guest: &Guest, script: &str) -> Step<bool> {
    let ended = guest.exec(&["/bin/sh", "-c", script], SOON)?;
    promise!(!ended.timed_out, "'{script}' waits for the thaw");
    Ok(ended.status == Some(0))
}

fn mount_at(guest: &Guest, points: &[String]) -> Step<()> {
    for (point, letter) in points.iter().zip('a'..='z') {
        guest.sh(&format!(
            "mkdir -p {point}; grep -q \" {point} \" /proc/mounts || mount -t ext4 /dev/vd{letter} {point}"
        ))?;
    }
    Ok(())
}

scenario! {
    /// Row 14.
    row: "14", "in the hold: umount, umount -l, a mount over, mount --move, remount; umount again and a kill; umount again and a kill of agent and guardian",
    c_daemon_gap: Some("thaws by path: what was unmounted or covered stays frozen"),
    fn mounts_that_change_in_a_hold_are_thawed(bed) {
        let mut guest = bed.boot(&FIVE.map(Disk::new))?;
        let places = |fourth| ["gone", "lazy", "under", fourth, "stays"].map(|name| format!("/mnt/{name}"));
        mount_at(&guest, &places("moves"))?;
        let points = places("moved");
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;

        succeeds(&mut guest, Operation::FREEZE)?;
        promise!(at_once(&guest, "umount /mnt/gone")?, "umount of a frozen disk fails");
        promise!(at_once(&guest, "umount -l /mnt/lazy")?, "umount -l of a frozen disk fails");
        promise!(at_once(&guest, "mount -t tmpfs none /mnt/under")?, "a mount over a frozen disk fails");
        promise!(at_once(&guest, "mkdir /mnt/moved; mount --move /mnt/moves /mnt/moved")?, "a move of a frozen disk fails");
        // The kernel's own answer to this one is EBUSY.
        at_once(&guest, "mount -o remount,ro /mnt/stays")?;
        succeeds(&mut guest, Operation::THAW)?;
        guest.sh("umount /mnt/under")?;
        mount_at(&guest, &points)?;
        writable_within(&guest, &points, Instant::now(), SOON)?;

        succeeds(&mut guest, Operation::FREEZE)?;
        promise!(at_once(&guest, "umount /mnt/gone")?, "umount of a frozen disk fails");
        strike(bed, &guest, Signal::SIGKILL)?;
        ended(&guest, bed.agent, SOON)?;
        mount_at(&guest, &points)?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        bed.agent.start(&mut guest)?;

        succeeds(&mut guest, Operation::FREEZE)?;
        promise!(at_once(&guest, "umount /mnt/gone")?, "umount of a frozen disk fails");
        kill_all(bed, &guest)?;
        bed.agent.start(&mut guest)?;
        mount_at(&guest, &points)?;
        writable_within(&guest, &points, Instant::now(), SOON)?;
        checkpoint(&mut guest)?;
        Ok("each allowed at once; all writable when mounted again, also when agent, or agent and guardian, were killed".into())
    }
}

scenario! {
    /// Row 15.
    row: "15", "a disk hidden under another mount",
    c_daemon_gap: Some("sees only what lies on top: the hidden disk is written to during the hold"),
    fn a_hidden_disk_is_frozen(bed) {
        let mut guest = bed.boot(&[FsKind::Ext4; 2].map(Disk::new))?;
        let points = mount_all(&guest, &[FsKind::Ext4])?;
        guest.start_writer("/mnt/ext4")?;
        guest.sh("mount -t ext4 /dev/vdb /mnt/ext4")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        for _ in 0..2 {
            succeeds(&mut guest, Operation::FREEZE)?;
            let asleep = writers_sleep(&guest, &points).and_then(|()| frozen(&guest, &["/mnt/ext4"]));
            succeeds(&mut guest, Operation::THAW)?;
            asleep?;
            writers_go_on(&guest, &points)?;
            writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        }
        Ok("the hidden and the hiding disk both frozen and thawed, twice".into())
    }
}

scenario! {
    /// Row 15.
    row: "15", "a disk that only a container's mount namespace has",
    c_daemon_gap: Some("sees only its own namespace: the disk is written to during the hold"),
    fn a_disk_of_a_container_is_frozen(bed) {
        let mut guest = bed.boot(&[FsKind::Ext4; 2].map(Disk::new))?;
        mount_all(&guest, &[FsKind::Ext4])?;
        let inner = vec!["/mnt/inner".to_owned()];
        start_container(&guest, "/dev/vdb", "/mnt/inner")?;
        promise!(guest.sh("! grep -q /mnt/inner /proc/mounts").is_ok(), "the disk is mounted outside, too");
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        for _ in 0..2 {
            succeeds(&mut guest, Operation::FREEZE)?;
            let asleep = writers_sleep(&guest, &inner);
            succeeds(&mut guest, Operation::THAW)?;
            asleep?;
            writers_go_on(&guest, &inner)?;
        }
        Ok("frozen and thawed, twice".into())
    }
}

scenario! {
    /// Row 15.
    row: "15", "while the others are being frozen, a disk is mounted, and a container starts with a disk of its own",
    c_daemon_gap: Some("what comes after it has read the table of mounts is written to during the hold"),
    fn a_disk_that_appears_during_the_freeze_is_not_missed(bed) {
        let mut guest = bed.boot(&[FsKind::Ext4; 3].map(Disk::new))?;
        let first = mount_mapped(&guest, "/dev/vda", "first", "ext4")?;
        let new = vec!["/mnt/new".to_owned(), "/mnt/inner".to_owned()];
        plug_in(&mut guest)?;
        if bed.agent == Agent::HvVssd {
            start_with(&mut guest, "stage", "sleep")?;
        } else {
            bed.agent.start(&mut guest)?;
            stall(&guest, "first")?;
        }
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        std::thread::sleep(Duration::from_secs(1));
        guest.sh("mkdir /mnt/new; mount -t ext4 /dev/vdb /mnt/new")?;
        guest.start_writer("/mnt/new")?;
        start_container(&guest, "/dev/vdc", "/mnt/inner")?;
        if bed.agent == Agent::CDaemon {
            go_on(&guest, "first")?;
        }
        let status = answer(&mut guest, transaction, SOON * 3)?;
        let seen = if status == 0 {
            let asleep = writers_sleep(&guest, &new);
            succeeds(&mut guest, Operation::THAW)?;
            asleep?;
            "both frozen too"
        } else {
            "FREEZE failed"
        };
        writers_go_on(&guest, &new)?;
        writable_within(&guest, &[first], Instant::now(), THAW_LIMIT)?;
        checkpoint(&mut guest)?;
        Ok(format!("{seen}; the next checkpoint works"))
    }
}

/// FREEZE, and the child is unmounted after the table of mounts was read, before it is opened.
fn vanishes(bed: &Bed, guest: &mut Guest) -> Step<u32> {
    if bed.agent == Agent::HvVssd {
        start_with(guest, "open", "sleep")?;
    } else {
        bed.agent.start(guest)?;
        stall(guest, "first")?;
    }
    let transaction = begin(guest, Operation::FREEZE)?;
    std::thread::sleep(Duration::from_secs(1));
    guest.sh("umount /mnt/parent/child")?;
    if bed.agent == Agent::CDaemon {
        go_on(guest, "first")?;
    }
    answer(guest, transaction, SOON)
}

scenario! {
    /// Row 16: the parent is read-only and of no concern; frozen, it was taken for its child.
    row: "16", "a mount that vanishes after the table of mounts was read; then one that comes and goes all the time, through ten checkpoints",
    c_daemon_gap: Some("freezes the file system below the empty mount point"),
    fn a_vanished_mount_never_freezes_its_parent(bed) {
        let mut guest = bed.boot(&[FsKind::Ext4; 3].map(Disk::new))?;
        let first = mount_mapped(&guest, "/dev/vdc", "first", "ext4")?;
        guest.sh("mkdir /mnt/parent; mount -t ext4 /dev/vda /mnt/parent; mkdir /mnt/parent/child
            mount -o remount,ro /mnt/parent; mount -t ext4 /dev/vdb /mnt/parent/child")?;
        let parent = Event::Freeze(guest.sh("cat /sys/block/vda/dev")?.trim().to_owned());
        plug_in(&mut guest)?;
        guest.watch_freezes()?;
        let status = vanishes(bed, &mut guest)?;
        let mistakes = |guest: &Guest| -> Step<()> {
            let events = guest.freezes()?;
            promise!(!events.contains(&parent), "the parent was frozen");
            Ok(())
        };
        mistakes(&guest)?;
        promise!(status == 0, "FREEZE was answered {status:#x}");
        succeeds(&mut guest, Operation::THAW)?;
        let script = "cd /mnt/parent; while :; do mount -t ext4 /dev/vdb child; umount child; done";
        guest.spawn("coming and going", &["/bin/sh", "-c", script])?;
        let mut succeeded = 0;
        for _ in 0..10 {
            if guest.host()?.request(Operation::FREEZE)?.ok() {
                succeeded += 1;
                succeeds(&mut guest, Operation::THAW)?;
            }
            mistakes(&guest)?;
        }
        guest.signal("coming and going", Signal::SIGKILL)?;
        writable_within(&guest, &[first], Instant::now(), THAW_LIMIT)?;
        Ok(format!("the parent never frozen; of ten checkpoints {succeeded} succeeded, none froze it"))
    }
}

scenario! {
    /// Row 13.
    row: "13", "FUSE and autofs mounts that nobody serves; a disk whose path leads through one of them",
    c_daemon_gap: Some("opens the path and waits for ever"),
    fn a_dead_server_is_never_waited_for(bed) {
        let mut guest = bed.boot(&[FsKind::Ext4; 2].map(Disk::new))?;
        let beside = mount_all(&guest, &[FsKind::Ext4])?;
        let below = vec!["/mnt/dead/below".to_owned()];
        guest.sh("mkdir -p /mnt/dead/below; mount -t ext4 /dev/vdb /mnt/dead/below")?;
        guest.start_writer("/mnt/dead/below")?;
        guest.mount_unserved("fuse", "/mnt/dead")?;
        guest.mount_unserved("fuse", "/mnt/fuse")?;
        guest.mount_unserved("autofs", "/mnt/autofs")?;
        configure(&guest, "[limits]\nflush = 5\nfreeze = 5\n")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let asked = Instant::now();
        let status = answer(&mut guest, transaction, SOON)?;
        let took = asked.elapsed();
        bed.measured("freeze", took);
        promise!(status == 0, "FREEZE was answered {status:#x}");
        let asleep = writers_sleep(&guest, &below);
        succeeds(&mut guest, Operation::THAW)?;
        asleep?;
        writers_go_on(&guest, &below)?;
        writable_within(&guest, &beside, Instant::now(), THAW_LIMIT)?;
        Ok(format!("never waited for: FREEZE took {} ms, and froze the disk below as well", took.as_millis()))
    }
}
