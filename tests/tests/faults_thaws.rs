//! Thaws that take long, and thaws by hand of any path.

use std::time::{Duration, Instant};

use tests::error::Step;
use tests::faults::{
    THAW_LIMIT, answer, begin, during, go_on, mount_mapped, plug_in, stall, writable_within,
};
use tests::guest::{Disk, FsKind, Guest};
use tests::host::{E_FAIL, Operation};
use tests::steps::{checkpoint, frozen, mount_all, succeeds};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

/// The driver itself answers THAW with failure after this time.
const DRIVER_LIMIT: Duration = Duration::from_secs(30);

scenario! {
    /// Row 7, row 32: slow is not failed.
    row: "7", "a disk answers nothing for 8 s from THAW on, and then goes on",
    c_daemon_gap: None,
    fn slow_disk_delays_a_thaw_that_succeeds(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let bad = mount_mapped(&guest, "/dev/vda", "bad", "ext4")?;
        let good = mount_mapped(&guest, "/dev/vdb", "good", "xfs")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        stall(&guest, "bad")?;
        let transaction = begin(&mut guest, Operation::THAW)?;
        let asked = Instant::now();
        // The stall's length is what is tried.
        std::thread::sleep(Duration::from_secs(8));
        go_on(&guest, "bad")?;
        let status = answer(&mut guest, transaction, DRIVER_LIMIT)?;
        let took = asked.elapsed();
        bed.measured("thaw", took);
        promise!(status == 0, "THAW was answered {status:#x} after {took:?}");
        writable_within(&guest, &[bad, good], Instant::now(), THAW_LIMIT)?;
        checkpoint(&mut guest)?;
        Ok(format!("THAW is success after {:.1} s; the next checkpoint works", took.as_secs_f64()))
    }
}

/// Five loop devices, each with its file on the one below; the lowest file lies on /mnt/bad.
const TOWER: &str = "
    below=/mnt/bad; modprobe loop max_loop=8
    for level in 0 1 2 3 4; do
        truncate -s $((200 - 36 * level))M $below/image
        losetup /dev/loop$level $below/image
        /sbin/mke2fs -q -t ext4 /dev/loop$level
        below=/mnt/level$level; mkdir -p $below; mount -t ext4 /dev/loop$level $below
    done";

/// Their mount points, and that of the disk below them.
fn tower() -> Vec<String> {
    let levels = (0..5).map(|level| format!("/mnt/level{level}"));
    levels.chain(["/mnt/bad".to_owned()]).collect()
}

fn each(points: &[String]) -> Vec<&str> {
    points.iter().map(String::as_str).collect()
}

/// The disk below all six stages answers nothing from THAW on. Gives the time to the answer.
fn thaw_into_a_stall(guest: &mut Guest, points: &[String]) -> Step<Duration> {
    succeeds(guest, Operation::FREEZE)?;
    frozen(guest, &each(points))?;
    stall(guest, "bad")?;
    let transaction = begin(guest, Operation::THAW)?;
    let asked = Instant::now();
    // Before the driver's own answer, which would be failure, too.
    let status = answer(guest, transaction, DRIVER_LIMIT - Duration::from_secs(1))?;
    promise!(status == E_FAIL, "THAW was answered {status:#x}");
    Ok(asked.elapsed())
}

scenario! {
    /// Row 7: each stage has its share of the driver's time.
    row: "7", "six stages, loop devices on loop devices; the disk below all of them answers nothing from THAW on; later it comes back",
    hv_vssd_alone,
    fn stuck_stages_are_told_before_the_driver_gives_up(bed) {
        let mut guest = bed.boot(&[Disk::sized(FsKind::Ext4, 320)])?;
        mount_mapped(&guest, "/dev/vda", "bad", "ext4")?;
        guest.sh(TOWER)?;
        let points = tower();
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        let took = thaw_into_a_stall(&mut guest, &points)?;
        bed.measured("failure told", took);
        go_on(&guest, "bad")?;
        writable_within(&guest, &points, Instant::now(), SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        Ok(format!("THAW is failure after {:.1} s; all thawed when the disk comes back, the next checkpoint works", took.as_secs_f64()))
    }
}

/// Commands that thaw /mnt/ext4.
const BY_HAND: [&str; 6] = [
    "cd /mnt; hv-vssd thaw ext4",
    "cd /mnt/xfs; hv-vssd thaw ../ext4",
    "ln -sfn /mnt/ext4 /run/link; hv-vssd thaw /run/link",
    "hv-vssd thaw /mnt/xfs/../ext4/",
    "hv-vssd thaw /mnt/ext4/directory/file",
    "cd /mnt/ext4/directory; hv-vssd thaw .",
];

scenario! {
    /// Whatever fsfreeze(8) would take.
    row: "", "hv-vssd thaw by a relative path, through a symbolic link, with `..`, of a file: on a disk that is frozen",
    hv_vssd_alone,
    fn thaw_by_hand_takes_relative_paths_and_symlinks(bed) {
        let guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        guest.sh("mkdir /mnt/ext4/directory; touch /mnt/ext4/directory/file")?;
        for command in BY_HAND {
            guest.sh("fsfreeze --freeze /mnt/ext4; fsfreeze --freeze /mnt/xfs")?;
            let script = format!("PATH=$PATH:/usr/sbin; {command}");
            let ended = guest.exec(&["/bin/sh", "-euc", &script], SOON * 4)?;
            promise!(ended.status == Some(0), "{command}: {ended:?}");
            during(command, writable_within(&guest, points.get(..1).unwrap_or_default(), Instant::now(), THAW_LIMIT))?;
            // That alone.
            during(command, frozen(&guest, &["/mnt/xfs"]))?;
            guest.sh("fsfreeze --unfreeze /mnt/xfs")?;
        }
        Ok(format!("{} of {} thawed, and nothing else", BY_HAND.len(), BY_HAND.len()))
    }
}
