//! Checkpoints of a booted Debian whose own `/` is frozen.

use tests::booted::{self, System, WRITTEN};
use tests::error::Failure;
use tests::guest::{Disk, FsKind};
use tests::host::Operation;
use tests::steps::{checkpoint, frozen, succeeds, writable, writers_go_on, writers_sleep};
use tests::{images, promise, scenario};

scenario! {
    /// Row 1 where it matters most.
    row: "1", "a booted Debian: / itself and a volume of LVM under writers, journald persistent; three times; the images copied in the last hold",
    c_daemon_gap: None,
    fn a_booted_debian_is_frozen_and_lives_on(bed) {
        let mut guest = bed.boot_system(&System::new().from_power_on())?;
        let journald = booted::property(&guest, "systemd-journald", "MainPID")?;
        let [on_root, _] = WRITTEN;
        let points = WRITTEN.map(ToOwned::to_owned);
        for point in &points {
            guest.start_writer(point)?;
        }
        let mut image = None;
        for round in 1..=3 {
            writers_go_on(&guest, &points)?;
            succeeds(&mut guest, Operation::HOT_BACKUP)?;
            bed.measured("freeze", succeeds(&mut guest, Operation::FREEZE)?.took);
            writers_sleep(&guest, &points)?;
            frozen(&guest, &WRITTEN)?;
            if round == 3 {
                let root = guest.dir().join("root-copy.img");
                let synced = guest.writer(on_root)?.synced;
                images::copy(guest.image(0)?, &root)?;
                let volume = booted::copy_volume(&guest)?;
                image = Some((root, synced, volume));
            }
            succeeds(&mut guest, Operation::THAW)?;
            writable(&guest, &WRITTEN)?;
            writers_go_on(&guest, &points)?;
        }
        guest.sh("logger -t bed written after the thaw; journalctl --sync; journalctl -b -t bed | grep -q 'after the thaw'")?;
        promise!(
            booted::property(&guest, "systemd-journald", "MainPID")? == journald,
            "journald is not the one that was there before"
        );
        booted::nothing_failed(&guest)?;
        drop(guest);
        let Some((root, synced, volume)) = image else { return Err(Failure::Promise("no image".into())) };
        booted::clean_and_complete(&root, synced, &volume)?;
        Ok("9 of 9 statuses 0; images of / and the volume clean and complete; journald lives and stores".into())
    }
}

scenario! {
    /// Row 2: PC-01 to PC-10, with a system that boots from what it finds.
    row: "2", "a booted Debian on xfs: file 1, checkpoint, file 2, restore: it boots from the images",
    c_daemon_gap: None,
    fn a_restored_debian_boots_with_what_came_before_and_nothing_after(bed) {
        let system = System::new().root(FsKind::Xfs).from_power_on();
        let mut guest = bed.boot_system(&system)?;
        for point in WRITTEN {
            guest.write(&format!("{point}/file1"), "before the checkpoint")?;
        }
        guest.sh("logger -t bed before the checkpoint; journalctl --sync")?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let mut copies = Vec::new();
        for number in 0..4 {
            let copy = guest.dir().join(format!("restore{number}.img"));
            images::copy(guest.image(number)?, &copy)?;
            copies.push(copy);
        }
        succeeds(&mut guest, Operation::THAW)?;
        for point in WRITTEN {
            guest.write(&format!("{point}/file2"), "after the checkpoint")?;
        }
        guest.sh("sync")?;
        drop(guest);
        let [root, ..] = copies.as_slice() else { return Err(Failure::Promise("no image".into())) };
        if let Some(unclean) = images::unclean(FsKind::Xfs, root)? {
            return Err(Failure::Promise(unclean));
        }
        let disks = copies.iter().map(|copy| Disk::copy_of(copy)).collect();
        let mut restored = bed.boot_system_from(&system, disks)?;
        for point in WRITTEN {
            let file1 = restored.read(&format!("{point}/file1")).unwrap_or_default();
            promise!(file1 == "before the checkpoint", "{point}/file1 was lost");
            let file2 = restored.read(&format!("{point}/file2"));
            promise!(file2.is_err(), "{point}/file2 is in the checkpoint");
        }
        let journal = restored.sh("journalctl -o cat -t bed")?;
        promise!(journal.contains("before the checkpoint"), "the journal was lost");
        let replay = restored.sh("dmesg | grep 'recovery complete' || true")?;
        promise!(replay.is_empty(), "the volume had to recover: {replay}");
        checkpoint(&mut restored)?;
        Ok("boots with no unit failed; file 1 and the journal there, file 2 not; the next checkpoint works".into())
    }
}
