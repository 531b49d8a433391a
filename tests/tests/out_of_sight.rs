//! File systems that no mount table shows, and those that take no writes any more.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::error::Step;
use tests::faults::{configure, fails, mount_mapped, plug_in, says};
use tests::guest::{Disk, FsKind, Guest};
use tests::host::Operation;
use tests::steps::{checkpoint, frozen, mount_all, succeeds, writable, writers_go_on};
use tests::{promise, scenario};

/// Writers of some ten records a second would write many in this time.
const WHILE: Duration = Duration::from_millis(1500);

/// How many records each writer has synced.
fn records(guest: &Guest, points: &[String]) -> Step<Vec<u64>> {
    let synced = points.iter().map(|point| Ok(guest.writer(point)?.synced));
    synced.collect()
}

/// FREEZE succeeds, nobody writes a record in the hold, THAW succeeds, and all go on.
fn holds(guest: &mut Guest, points: &[String]) -> Step<()> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    succeeds(guest, Operation::FREEZE)?;
    let before = records(guest, points)?;
    std::thread::sleep(WHILE);
    let after = records(guest, points)?;
    succeeds(guest, Operation::THAW)?;
    let written: Vec<String> = points
        .iter()
        .zip(before.iter().zip(&after))
        .filter(|(_, (before, after))| after > before)
        .map(|(point, (before, after))| format!("{point}: {}", after - before))
        .collect();
    promise!(
        written.is_empty(),
        "records written in the hold: {}",
        written.join(", ")
    );
    writers_go_on(guest, points)
}

fn points(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("/mnt/{name}")).collect()
}

/// What `hv-vssd plan` prints.
fn plan(guest: &Guest) -> Step<String> {
    Ok(guest.sh("hv-vssd plan")?)
}

scenario! {
    /// Row 15: they live as long as anything uses them.
    row: "15", "unmounted lazily and still written to (ext4, xfs, btrfs of two disks, ext3); an overlay whose upper disk is out of sight; a namespace whose process has lost its first thread, another root; a detached mount",
    c_daemon_gap: Some("sees only its own mount table: all of them are written to during the hold"),
    fn disks_that_no_mount_table_shows_are_frozen(bed) {
        use FsKind::{Blank, Btrfs, Ext4, Xfs};
        let kinds = [Ext4, Ext4, Ext4, Ext4, Ext4, Xfs, Btrfs, Blank, Blank];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        guest.sh("cd /mnt; mkdir ext4 upper overlay xfs btrfs ext3
            mount -t ext4 /dev/vda ext4; mount -t ext4 /dev/vdb upper; mount -t xfs /dev/vdf xfs; mount -t btrfs /dev/vdg btrfs
            btrfs device add -f /dev/vdh btrfs >&2
            /sbin/mke2fs -q -t ext3 /dev/vdi; mount -t ext3 /dev/vdi ext3
            mkdir upper/lower upper/files upper/work
            mount -t overlay -o lowerdir=upper/lower,upperdir=upper/files,workdir=upper/work none overlay")?;
        let lazy = points(&["ext4", "overlay", "xfs", "btrfs", "ext3"]);
        for point in &lazy {
            guest.start_writer(point)?;
        }
        guest.sh("cd /mnt; umount -l ext4 upper xfs btrfs ext3")?;
        guest.start_writer_out_of_sight("thread", "/dev/vdc", "/mnt/thread")?;
        guest.start_writer_out_of_sight("chroot", "/dev/vdd", "/mnt/chroot")?;
        guest.start_writer_out_of_sight("detached", "/dev/vde", "/mnt/detached")?;
        let all = [lazy, points(&["thread", "chroot", "detached"])].concat();
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        for _ in 0..2 {
            holds(&mut guest, &all)?;
        }
        if bed.agent == Agent::HvVssd {
            let plan = plan(&guest)?;
            let lines = plan.lines().filter(|line| line.ends_with("mounted nowhere in sight"));
            promise!(lines.count() == 8, "not 8 disks out of sight:\n{plan}");
        }
        Ok("no record written on 8 of 8 in two holds".into())
    }
}

scenario! {
    /// Row 15: and the configuration is heard about them.
    row: "15", "out of sight: a disk that appears so during the freeze, one that the configuration excludes, a read-only one, one that is busy; strict",
    hv_vssd_alone,
    fn what_is_out_of_sight_is_planned_like_everything_else(bed) {
        let mut guest = bed.boot(&[FsKind::Ext4; 4].map(Disk::new))?;
        mount_all(&guest, &[FsKind::Ext4])?;
        guest.sh("cd /mnt; mkdir excluded ro; mount -t ext4 /dev/vdb excluded; mount -t ext4 -o ro /dev/vdc ro")?;
        guest.start_writer("/mnt/excluded")?;
        guest.spawn("reader", &["/bin/sh", "-c", "cd /mnt/ro; exec sleep 1000"])?;
        guest.sh("umount -l /mnt/excluded")?;
        configure(&guest, "strictness = \"strict\"\n[filesystems]\nexclude_devices = [\"vdb\"]\n")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        guest.sh("umount -l /mnt/ro")?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        // Raises no event of a mount table.
        guest.start_writer_out_of_sight("detached", "/dev/vdd", "/mnt/detached")?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let hidden = points(&["detached"]);
        let before = records(&guest, &hidden)?;
        let excluded = guest.writer("/mnt/excluded")?.synced;
        std::thread::sleep(WHILE);
        let (after, went_on) = (records(&guest, &hidden)?, guest.writer("/mnt/excluded")?.synced);
        let asleep = frozen(&guest, &["/mnt/ext4"]);
        succeeds(&mut guest, Operation::THAW)?;
        asleep?;
        promise!(before == after, "{before:?} records before the hold, {after:?} after: a plan made ahead was used");
        promise!(went_on > excluded, "the excluded disk was frozen");
        writers_go_on(&guest, &hidden)?;
        checkpoint(&mut guest)?;
        Ok("the one that appeared was frozen, the excluded one was not, the read-only one is no gap".into())
    }
}

scenario! {
    /// Row 6: what takes no writes cannot become inconsistent.
    row: "6", "mounted beside a good disk: a pulled disk (ext4, xfs), one shut down (ext4, xfs), an ext4 whose device only gives errors",
    c_daemon_gap: Some("every backup fails"),
    fn dead_disks_do_not_fail_every_checkpoint(bed) {
        use FsKind::{Ext4, Xfs};
        let mut guest = bed.boot(&[Ext4, Ext4, Xfs, Ext4, Xfs, Ext4].map(Disk::new))?;
        mount_mapped(&guest, "/dev/vdf", "errors", "ext4")?;
        guest.sh("cd /mnt; mkdir good pulled pulled-xfs down down-xfs
            mount -t ext4 /dev/vda good; mount -t ext4 /dev/vdb pulled; mount -t xfs /dev/vdc pulled-xfs
            mount -t ext4 /dev/vdd down; mount -t xfs /dev/vde down-xfs")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        guest.sh("for disk in vdb vdc; do echo 1 > $(readlink -f /sys/block/$disk/device/..)/remove; done
            hv-testguest shut-down /mnt/down; hv-testguest shut-down /mnt/down-xfs
            touch /mnt/errors/dirty; dmsetup suspend --noflush --nolockfs errors; dmsetup reload errors --table '0 131072 error'; dmsetup resume errors")?;
        for _ in 0..2 {
            succeeds(&mut guest, Operation::HOT_BACKUP)?;
            succeeds(&mut guest, Operation::FREEZE)?;
            let asleep = frozen(&guest, &["/mnt/good"]);
            succeeds(&mut guest, Operation::THAW)?;
            asleep?;
            writable(&guest, &["/mnt/good"])?;
        }
        if bed.agent == Agent::HvVssd {
            let said = guest.sh("hv-vssd status; hv-vssd plan; hv-vssd check || :")?;
            for place in ["/mnt/pulled", "/mnt/pulled-xfs", "/mnt/down", "/mnt/down-xfs"] {
                promise!(said.contains(&format!("{place} ")), "{place} is named nowhere:\n{said}");
            }
            configure(&guest, "strictness = \"strict\"\n")?;
            guest.signal(bed.agent.name(), Signal::SIGHUP)?;
            says(&guest, bed.agent, "configuration", Duration::from_secs(10))?;
            fails(&mut guest, Operation::HOT_BACKUP, Duration::from_secs(20))?;
            fails(&mut guest, Operation::FREEZE, Duration::from_secs(20))?;
            writable(&guest, &["/mnt/good"])?;
        }
        Ok("listed, and the good disk frozen and thawed, twice; with strictness = \"strict\" HOT_BACKUP and FREEZE fail".into())
    }
}
