//! The state of the disks.

use std::time::Duration;

use tests::error::{Failure, Step};
use tests::faults::configure;
use tests::guest::{Disk, FsKind, poll_until};
use tests::host::Operation;
use tests::promise;
use tests::scenario::Bed;
use tests::steps::{mount_all, succeeds};

use super::{LIMIT, check, check_by, gone};

pub(super) fn file_systems(bed: &mut Bed) -> Step<String> {
    let mut guest = bed.boot(&[Disk::new(FsKind::Ext4), Disk::new(FsKind::Xfs)])?;
    mount_all(&guest, &[FsKind::Ext4, FsKind::Xfs])?;
    bed.start_agent(&mut guest)?;
    check(&guest)?.gives("file-system-consistent")?;

    // By an administrator; seen by who waits for it.
    guest.sh("fsfreeze --freeze /mnt/xfs")?;
    promise!(guest.write_sleeps("/mnt/xfs")?, "the disk is not frozen");
    let found = check(&guest)?;
    let told = found.gives("fallback")?.has("frozen-already", "error")?;
    promise!(told.contains("(touch)"), "{told}");
    guest.sh("fsfreeze --unfreeze /mnt/xfs")?;
    gone(&guest, "frozen-already")?;

    guest.sh(
        "modprobe dm_mod; umount /mnt/xfs; size=$(blockdev --getsz /dev/vdb)
         dmsetup create data --table \"0 $size linear /dev/vdb 0\"; dmsetup mknodes; mount -t xfs /dev/mapper/data /mnt/xfs
         dmsetup suspend --nolockfs data",
    )?;
    let found = check(&guest)?;
    let told = found.gives("fallback")?.has("device-suspended", "error")?;
    promise!(told.contains("/mnt/xfs is on data"), "{told}");
    guest.sh("dmsetup resume data")?;
    check(&guest)?
        .gives("file-system-consistent")?
        .has_not("device-suspended")?;

    // A served disk, and one that the driver has made read-only.
    guest.sh(
        "modprobe nbd nbds_max=1 max_part=0; ifconfig lo 127.0.0.1 up
         dd if=/dev/zero of=/tmp/nbd.img bs=1M count=32 2>/dev/null; /sbin/mke2fs -q -F -t ext4 /tmp/nbd.img
         /sbin/nbd-server -C /dev/null 127.0.0.1:10809 /tmp/nbd.img; mkdir -p /mnt/served",
    )?;
    let mut said = String::new();
    let connected = poll_until(LIMIT, || {
        let client = ["/sbin/nbd-client", "127.0.0.1", "10809", "/dev/nbd0"];
        let ended = guest.exec(&client, Duration::from_secs(5))?;
        said = format!("{ended:?}");
        // One that was late has connected all the same.
        let connected = ended.status == Some(0) || guest.sh("test -e /sys/block/nbd0/pid").is_ok();
        Ok::<_, Failure>(connected.then_some(()))
    })?;
    promise!(
        connected.is_some(),
        "the served disk cannot be connected: {said}"
    );
    guest.sh("mount -t ext4 /dev/nbd0 /mnt/served")?;
    let found = check(&guest)?;
    let told = found
        .gives("file-system-consistent")?
        .has("not-in-image", "warning")?;
    promise!(told.contains("/mnt/served (served by nbd)"), "{told}");

    guest.sh("mount -o remount,errors=remount-ro /mnt/ext4; echo broken >/sys/fs/ext4/vda/trigger_fs_error")?;
    // It cannot become inconsistent any more: a checkpoint leaves it out, but for a strict one.
    let found = check(&guest)?;
    let told = found
        .gives("file-system-consistent")?
        .has("read-only-after-error", "warning")?;
    promise!(
        told.contains("/mnt/ext4") && told.contains("after 1 error"),
        "{told}"
    );
    succeeds(&mut guest, Operation::FREEZE)?;
    succeeds(&mut guest, Operation::THAW)?;
    configure(&guest, "strictness = \"strict\"\n")?;
    check(&guest)?
        .gives("fallback")?
        .has("read-only-after-error", "error")?;
    configure(&guest, "")?;
    // One that was mounted so on purpose is none.
    guest.sh("mount -o remount,ro /mnt/served")?;
    let found = check(&guest)?;
    let told = found.has("read-only-after-error", "warning")?;
    promise!(!told.contains("/mnt/served"), "{told}");

    let hidden = [
        "/bin/unshare",
        "-m",
        "/bin/sh",
        "-c",
        "umount -l /proc; exec /usr/sbin/hv-vssd check --json",
    ];
    check_by(&guest, &hidden)?
        .gives("fallback")?
        .has("plan-fails", "error")?;
    Ok("a foreign freeze, a suspended device, a served disk, a disk read-only after an error, and no /proc are told".into())
}
