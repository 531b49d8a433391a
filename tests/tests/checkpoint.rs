//! What a production checkpoint holds.

use std::time::Duration;

use tests::error::Failure;
use tests::guest::{Disk, FsKind};
use tests::host::Operation;
use tests::steps::{
    checkpoint, copy_images, flaw, mount_all, succeeds, writers_go_on, writers_sleep,
};
use tests::{images, promise, scenario};

const JOURNALED: [FsKind; 3] = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs];

scenario! {
    /// Row 1: VSS-01, MULTIFS.
    row: "1", "ext4, xfs and btrfs under a writer; HOT_BACKUP, FREEZE, THAW, three times; images copied in the hold",
    c_daemon_gap: None,
    fn every_file_system_is_consistent_in_a_checkpoint(bed) {
        let mut guest = bed.boot(&JOURNALED.map(Disk::new))?;
        let points = mount_all(&guest, &JOURNALED)?;
        bed.start_agent(&mut guest)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..3 {
            writers_go_on(&guest, &points)?;
            succeeds(&mut guest, Operation::HOT_BACKUP)?;
            slowest = slowest.max(succeeds(&mut guest, Operation::FREEZE)?.took);
            writers_sleep(&guest, &points)?;
            let copies = copy_images(&guest, &JOURNALED, &points)?;
            succeeds(&mut guest, Operation::THAW)?;
            writers_go_on(&guest, &points)?;
            for copy in &copies {
                if let Some(flaw) = flaw(copy)? {
                    return Err(Failure::Promise(flaw));
                }
            }
        }
        bed.measured("slowest freeze", slowest);
        Ok("9 of 9 statuses 0, 9 of 9 images clean without recovery and complete".into())
    }
}

scenario! {
    /// Row 1: FAT cannot be frozen with profit; it is flushed, and said so.
    row: "1", "a vfat disk with unsynced data at the checkpoint",
    c_daemon_gap: Some("skips vfat without a flush or a word"),
    fn vfat_is_flushed_and_listed(bed) {
        let kinds = [FsKind::Ext4, FsKind::Vfat];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        mount_all(&guest, &kinds)?;
        // No write-back by itself while the test runs.
        guest.sh("echo 0 > /proc/sys/vm/dirty_writeback_centisecs")?;
        bed.start_agent(&mut guest)?;
        let text = "written to vfat just before the checkpoint";
        guest.write("/mnt/vfat/note.txt", text)?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let copy = guest.dir().join("vfat-copy.img");
        images::copy(guest.image(1)?, &copy)?;
        succeeds(&mut guest, Operation::THAW)?;
        promise!(images::contains(&copy, text)?, "what was written to vfat before the checkpoint is not in its image");
        if let Some(unclean) = images::unclean(FsKind::Vfat, &copy)? {
            return Err(Failure::Promise(unclean));
        }
        let said = bed.agent.what_it_leaves_out(&guest)?;
        promise!(said.contains("/mnt/vfat"), "vfat is listed nowhere");
        Ok("flushed before the reply, its image complete; listed with its reason".into())
    }
}

scenario! {
    /// Row 2: PC-01 to PC-10.
    row: "2", "file 1, checkpoint, file 2, restore: a second guest boots from the images",
    c_daemon_gap: None,
    fn a_restored_checkpoint_has_what_came_before_and_nothing_after(bed) {
        let mut guest = bed.boot(&JOURNALED.map(Disk::new))?;
        let points = mount_all(&guest, &JOURNALED)?;
        bed.start_agent(&mut guest)?;
        for point in &points {
            guest.write(&format!("{point}/file1"), "before the checkpoint")?;
        }
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let mut copies = Vec::new();
        for number in 0..JOURNALED.len() {
            let copy = guest.dir().join(format!("restore{number}.img"));
            images::copy(guest.image(number)?, &copy)?;
            copies.push(Disk::copy_of(&copy));
        }
        succeeds(&mut guest, Operation::THAW)?;
        for point in &points {
            guest.write(&format!("{point}/file2"), "after the checkpoint")?;
        }
        guest.sh("sync")?;
        let restored = bed.boot(&copies)?;
        for point in mount_all(&restored, &JOURNALED)? {
            let file1 = restored.read(&format!("{point}/file1")).unwrap_or_default();
            promise!(file1 == "before the checkpoint", "{point}/file1 was lost");
            let file2 = restored.read(&format!("{point}/file2"));
            promise!(file2.is_err(), "{point}/file2 is in the checkpoint");
        }
        let kernel_log = restored.sh("dmesg")?;
        let replay = kernel_log.lines().find(|line| {
            ["recovery complete", "start tree-log replay"].iter().any(|sign| line.contains(sign))
        });
        promise!(replay.is_none(), "the restored guest had to recover: {}", replay.unwrap_or_default());
        Ok("file 1 there, file 2 not, on ext4, xfs and btrfs; nothing to recover at the restore".into())
    }
}

scenario! {
    /// The measure of consistency.
    row: "", "20 checkpoints in a row under a writer, every image checked",
    c_daemon_gap: None,
    fn twenty_of_twenty_checkpoints_are_clean(bed) {
        let mut guest = bed.boot(&JOURNALED.map(Disk::new))?;
        let points = mount_all(&guest, &JOURNALED)?;
        bed.start_agent(&mut guest)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        let (mut clean, mut first_flaw) = (0, None);
        let (mut freezes, mut copying) = (Duration::ZERO, Duration::ZERO);
        for round in 1..=20 {
            writers_go_on(&guest, &points)?;
            freezes += succeeds(&mut guest, Operation::FREEZE)?.took;
            let began = std::time::Instant::now();
            let copies = copy_images(&guest, &JOURNALED, &points)?;
            copying += began.elapsed();
            succeeds(&mut guest, Operation::THAW)?;
            // The processors are for the checks now.
            for point in &points {
                guest.pause_writer(point, true)?;
            }
            let mut whole = true;
            for copy in &copies {
                let Some(flaw) = flaw(copy)? else { continue };
                whole = false;
                first_flaw.get_or_insert_with(|| format!("; in checkpoint {round} {flaw}"));
                let _ = std::fs::rename(&copy.image, copy.image.with_extension("flawed"));
            }
            clean += u32::from(whole);
            for point in &points {
                guest.pause_writer(point, false)?;
            }
        }
        bed.measured("mean freeze", freezes / 20);
        bed.measured("mean copy", copying / 20);
        promise!(clean == 20, "{clean} of 20 checkpoints clean{}", first_flaw.unwrap_or_default());
        Ok("20 of 20 checkpoints clean on ext4, xfs and btrfs".into())
    }
}

scenario! {
    /// The bed must be able to tell: the same images taken without a freeze need recovery.
    row: "", "control: the same copies taken without a freeze",
    c_daemon_gap: None,
    fn a_copy_without_a_freeze_is_told_apart(bed) {
        let mut guest = bed.boot(&JOURNALED.map(Disk::new))?;
        let points = mount_all(&guest, &JOURNALED)?;
        bed.start_agent(&mut guest)?;
        checkpoint(&mut guest)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        writers_go_on(&guest, &points)?;
        let mut unclean = 0;
        for copy in copy_images(&guest, &JOURNALED, &points)? {
            unclean += usize::from(flaw(&copy)?.is_some());
        }
        promise!(unclean == 3, "only {unclean} of 3 copies without a freeze were found unclean");
        Ok("3 of 3 copies taken without a freeze are found to need recovery".into())
    }
}
