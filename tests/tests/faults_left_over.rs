//! What agent and guardian left frozen when both died: whatever else is wrong, a start thaws it, or says so without end.

use std::time::{Duration, Instant};

use tests::error::{Failure, Step};
use tests::faults::{
    THAW_LIMIT, Victim, configure, during, ended, fails, go_on, mount_mapped, plug_in, says, stall,
    writable_within,
};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{checkpoint, frozen, mount_all, succeeds};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

/// A registered agent freezes, and all its processes are killed.
fn die_in_a_hold(bed: &Bed, guest: &mut Guest) -> Step<()> {
    bed.agent.start(guest)?;
    succeeds(guest, Operation::FREEZE)?;
    Victim::All.strike(guest, bed.agent, "KILL")?;
    ended(guest, bed.agent, SOON)
}

/// What is wrong with the machine at the next start, and how it is mended again.
struct Fault {
    what: &'static str,
    wrong: fn(&Guest) -> Step<()>,
    right: fn(&Guest) -> Step<()>,
    /// The start fails for it.
    fatal: bool,
}

fn script(guest: &Guest, text: &str) -> Step<()> {
    guest.sh(text)?;
    Ok(())
}

const FAULTS: [Fault; 4] = [
    Fault {
        what: "a configuration that is not valid",
        wrong: |guest| Ok(configure(guest, "[limits]\nfreeze = \"yes\"\n")?),
        right: |guest| script(guest, "rm /etc/hv-vssd/config.toml"),
        fatal: true,
    },
    Fault {
        what: "/run/hv-vssd read-only",
        wrong: |guest| {
            let remount =
                "mount --bind /run/hv-vssd /run/hv-vssd; mount -o remount,bind,ro /run/hv-vssd";
            script(guest, remount)
        },
        right: |guest| script(guest, "umount /run/hv-vssd"),
        fatal: false,
    },
    Fault {
        what: "the lock's file replaced by a directory",
        wrong: |guest| script(guest, "rm /run/hv-vssd/lock; mkdir /run/hv-vssd/lock"),
        right: |guest| script(guest, "rmdir /run/hv-vssd/lock"),
        fatal: true,
    },
    Fault {
        what: "the device gone",
        wrong: |guest| Ok(guest.host_does("remove")?.wait(SOON).map(drop)?),
        right: |guest| Ok(guest.host_does("probe")?.wait(SOON).map(drop)?),
        fatal: false,
    },
];

scenario! {
    /// Row 33.
    row: "33", "both killed in a hold; then hv-vssd run with a broken configuration, with a read-only /run/hv-vssd, without its lock, without the device",
    c_daemon_gap: Some("keeps no record: what it froze stays frozen"),
    fn broken_start_thaws_what_was_left_frozen(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        let places: Vec<&str> = points.iter().map(String::as_str).collect();
        for fault in &FAULTS {
            die_in_a_hold(bed, &mut guest)?;
            frozen(&guest, &places)?;
            (fault.wrong)(&guest)?;
            let started = Instant::now();
            bed.agent.spawn(&guest, bed.agent.name())?;
            during(fault.what, writable_within(&guest, &points, started, SOON))?;
            if fault.fatal {
                during(fault.what, ended(&guest, bed.agent, SOON))?;
                promise!(bed.agent.state(&guest)?.status != Some(0), "{}: the start reports success", fault.what);
            }
            if bed.agent.state(&guest)?.running {
                bed.agent.stop(&guest)?;
            }
            (fault.right)(&guest)?;
            if fault.what == "the device gone" {
                guest.host()?.negotiate()?;
            }
            bed.agent.start(&mut guest)?;
            during(fault.what, checkpoint(&mut guest))?;
            bed.agent.stop(&guest)?;
        }
        Ok(format!("{} of {} thawed by the start, the next checkpoint works", FAULTS.len(), FAULTS.len()))
    }
}

/// Threads and descriptors of all processes of the agent's name.
fn counts(bed: &Bed, guest: &Guest) -> Step<(usize, usize)> {
    let name = bed.agent.name();
    let count = |what: &str| -> Step<usize> {
        let listed = guest.sh(&format!(
            "for pid in $(pidof {name}); do ls /proc/$pid/{what} || :; done | wc -l"
        ))?;
        Ok(listed.trim().parse().unwrap_or(usize::MAX))
    };
    Ok((count("task")?, count("fd")?))
}

scenario! {
    /// Rows 4 and 7: it is tried at every request, and each attempt may get stuck.
    row: "7", "both killed in a hold; a disk stalls, so that no start can thaw it; HOT_BACKUP, eight times; later the disk comes back",
    hv_vssd_alone,
    fn left_over_on_a_stalled_disk_costs_no_more_with_every_request(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let good = vec![mount_mapped(&guest, "/dev/vdb", "good", "xfs")?];
        let bad = vec![mount_mapped(&guest, "/dev/vda", "bad", "ext4")?];
        plug_in(&mut guest)?;
        die_in_a_hold(bed, &mut guest)?;
        stall(&guest, "bad")?;
        bed.agent.spawn(&guest, bed.agent.name())?;
        says(&guest, bed.agent, "registered with the driver", SOON * 4)?;
        writable_within(&guest, &good, Instant::now(), SOON)?;
        fails(&mut guest, Operation::HOT_BACKUP, SOON * 4)?;
        let before = counts(bed, &guest)?;
        for _ in 0..8 {
            fails(&mut guest, Operation::HOT_BACKUP, SOON * 4)?;
        }
        let after = counts(bed, &guest)?;
        promise!(after.0 <= before.0 && after.1 <= before.1, "threads and descriptors grow: {before:?}, after 8 requests {after:?}");
        go_on(&guest, "bad")?;
        let freed = poll_until(SOON * 2, || {
            let answer = guest.host()?.try_request(Operation::HOT_BACKUP, SOON * 4)?;
            Ok::<_, Failure>(answer.filter(|answer| answer.ok()).map(drop))
        })?;
        promise!(freed.is_some(), "HOT_BACKUP fails though the disk is back: {}", bed.agent.log(&guest)?);
        writable_within(&guest, &bad, Instant::now(), THAW_LIMIT)?;
        checkpoint(&mut guest)?;
        Ok(format!("refused nine times, {} threads and {} descriptors before and after; thawed when the disk comes back, the next checkpoint works", after.0, after.1))
    }
}
