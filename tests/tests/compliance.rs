//! Cases of Microsoft's suites that no other scenario has in the same form; docs/compliance.md lists them all.

use std::time::Duration;

use tests::error::{Failure, Step};
use tests::guest::{Disk, FsKind, Guest};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{
    checkpoint, copy_images, flaw, frozen, mount_all, succeeds, writable, writers_go_on,
    writers_sleep,
};
use tests::{promise, scenario};

const EXT4: [FsKind; 1] = [FsKind::Ext4];
const POINT: &str = "/mnt/ext4";

scenario! {
    /// Row 1: VSS-01, PC-03.
    row: "1", "ext3 under a writer; HOT_BACKUP, FREEZE, THAW, three times; images copied in the hold",
    c_daemon_gap: None,
    fn an_ext3_disk_is_consistent_in_a_checkpoint(bed) {
        let mut guest = bed.boot(&[Disk::sized(FsKind::Blank, 64)])?;
        guest.sh("/sbin/mke2fs -q -F -t ext3 /dev/vda; mkdir /mnt/ext3; mount -t ext3 /dev/vda /mnt/ext3")?;
        let points = ["/mnt/ext3".to_owned()];
        bed.start_agent(&mut guest)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        for _ in 0..3 {
            writers_go_on(&guest, &points)?;
            succeeds(&mut guest, Operation::HOT_BACKUP)?;
            succeeds(&mut guest, Operation::FREEZE)?;
            writers_sleep(&guest, &points)?;
            // What tells an ext4 image's state tells an ext3 image's.
            let copies = copy_images(&guest, &EXT4, &points)?;
            succeeds(&mut guest, Operation::THAW)?;
            for copy in &copies {
                if let Some(flaw) = flaw(copy)? {
                    return Err(Failure::Promise(flaw));
                }
            }
        }
        writers_go_on(&guest, &points)?;
        Ok("9 of 9 statuses 0, 3 of 3 images clean without recovery and complete".into())
    }
}

scenario! {
    /// Row 12: VSS-11 and PC-08, VSS-20, without the types that the C daemon fails on.
    row: "12", "a CD and a squashfs image on a loop device mounted beside ext4, no network; three times",
    c_daemon_gap: None,
    fn a_cd_and_a_squashfs_image_are_no_obstacle(bed) {
        let kinds = [FsKind::Ext4, FsKind::Iso, FsKind::Squashfs];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        mount_all(&guest, &kinds[..2])?;
        guest.sh("modprobe loop; cp /dev/vdc /mnt/ext4/squash.img; mkdir /mnt/squashfs
            mount -t squashfs -o loop /mnt/ext4/squash.img /mnt/squashfs")?;
        let network = guest.sh("ls /sys/class/net")?;
        promise!(network.split_whitespace().all(|name| name == "lo"), "the guest has a network: {network}");
        bed.start_agent(&mut guest)?;
        for _ in 0..3 {
            succeeds(&mut guest, Operation::HOT_BACKUP)?;
            succeeds(&mut guest, Operation::FREEZE)?;
            let asleep = frozen(&guest, &[POINT]);
            succeeds(&mut guest, Operation::THAW)?;
            asleep?;
            writable(&guest, &[POINT])?;
        }
        for point in ["/mnt/iso9660", "/mnt/squashfs"] {
            promise!(guest.read(&format!("{point}/file")).is_ok(), "{point} cannot be read any more");
        }
        Ok("9 of 9 statuses 0, ext4 frozen each time, both images still mounted".into())
    }
}

/// The module cannot be unloaded.
fn stays_loaded(guest: &Guest) -> Step<()> {
    promise!(
        guest.sh("rmmod hv_utils").is_err(),
        "hv_utils was unloaded under the agent"
    );
    Ok(())
}

scenario! {
    /// RELOAD-MODULES: what those cases try on hv_utils.
    row: "22", "hv_utils is to be unloaded: while the agent serves, and in a hold",
    c_daemon_gap: None,
    fn the_driver_is_not_unloaded_under_the_agent(bed) {
        let mut guest = bed.boot(&EXT4.map(Disk::new))?;
        mount_all(&guest, &EXT4)?;
        bed.start_agent(&mut guest)?;
        stays_loaded(&guest)?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        stays_loaded(&guest)?;
        frozen(&guest, &[POINT])?;
        succeeds(&mut guest, Operation::THAW)?;
        writable(&guest, &[POINT])?;
        checkpoint(&mut guest)?;
        bed.agent.stop(&guest)?;
        promise!(guest.sh("rmmod hv_utils").is_ok(), "hv_utils cannot be unloaded after the agent's end either");
        Ok("refused both times; frozen until THAW; the next checkpoint works; unloaded after the agent's end".into())
    }
}

/// Three checkpoints, each with the disk frozen in it.
fn three_checkpoints(guest: &mut Guest) -> Step<Duration> {
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        succeeds(guest, Operation::HOT_BACKUP)?;
        slowest = slowest.max(succeeds(guest, Operation::FREEZE)?.took);
        let asleep = frozen(guest, &[POINT]);
        succeeds(guest, Operation::THAW)?;
        asleep?;
        writable(guest, &[POINT])?;
    }
    Ok(slowest)
}

/// Locks the kernel down, as the boot loader has it done under Secure Boot ("integrity") or further.
fn lock_down(guest: &Guest, level: &str) -> Step<()> {
    let state = guest.sh(&format!(
        "cd /sys/kernel/security; echo {level} > lockdown; cat lockdown"
    ))?;
    promise!(
        state.contains(&format!("[{level}]")),
        "the kernel is not locked down: {state}"
    );
    Ok(())
}

/// The agent, started anew, works at this level.
fn works_at(bed: &Bed, guest: &mut Guest, level: &str) -> Step<Duration> {
    bed.agent.stop(guest)?;
    lock_down(guest, level)?;
    bed.agent.start(guest)?;
    three_checkpoints(guest)
}

scenario! {
    /// SECBOOT-03, SECUREBOOT-VSS: what Secure Boot changes for a program in the guest.
    row: "", "the kernel locked down as under Secure Boot (integrity), then further (confidentiality)",
    c_daemon_gap: None,
    fn a_locked_down_kernel_is_no_obstacle(bed) {
        let mut guest = bed.boot(&EXT4.map(Disk::new))?;
        mount_all(&guest, &EXT4)?;
        guest.sh("mount -t securityfs none /sys/kernel/security")?;
        // The bed's own module is not signed: it is loaded before.
        bed.start_agent(&mut guest)?;
        for level in ["integrity", "confidentiality"] {
            let slowest = works_at(bed, &mut guest, level)?;
            bed.measured(&format!("slowest freeze, {level}"), slowest);
        }
        let said = guest.sh("dmesg")?;
        let refused = said.lines().find(|line| line.contains("Lockdown: hv"));
        promise!(refused.is_none(), "{}", refused.unwrap_or_default());
        Ok("all statuses 0 at both levels; the kernel refused the agent nothing".into())
    }
}
