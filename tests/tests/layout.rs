//! Which file systems a freeze finds: many paths to one, one on another, and those that
//! cannot be frozen.

use std::collections::BTreeSet;
use std::time::Duration;

use tests::agent::Agent;
use tests::error::Step;
use tests::guest::{Disk, Event, FsKind, Guest};
use tests::host::Operation;
use tests::steps::{frozen, mount_all, succeeds, writable};
use tests::{images, promise, scenario, strace};

/// The `major:minor` of a mount point's superblock.
fn device(guest: &Guest, mount_point: &str) -> tests::error::BedResult<String> {
    let table = guest.read("/proc/self/mountinfo")?;
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(mount_point));
    let device = line.and_then(|line| line.split(' ').nth(2));
    Ok(device.unwrap_or_default().to_owned())
}

/// A checkpoint in which all of these are frozen, and writable after it; how long FREEZE took.
fn held(guest: &mut Guest, places: &[&str]) -> Step<Duration> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    let took = succeeds(guest, Operation::FREEZE)?.took;
    let asleep = frozen(guest, places);
    succeeds(guest, Operation::THAW)?;
    asleep?;
    writable(guest, places)?;
    Ok(took)
}

scenario! {
    /// Row 10: VSS-07.
    row: "10", "one disk at two paths, bind mounts of directories and files, btrfs subvolumes",
    c_daemon_gap: None,
    fn each_superblock_is_frozen_once(bed) {
        let kinds = [FsKind::Ext4, FsKind::Btrfs];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        mount_all(&guest, &kinds)?;
        guest.sh("cd /mnt; mkdir two bind sub1 sub2 ext4/dir; touch ext4/file bound
            mount /dev/vda two; mount --bind ext4/dir bind; mount --bind ext4/file bound
            btrfs subvolume create btrfs/a >&2; btrfs subvolume create btrfs/b >&2
            mount -o subvol=a /dev/vdb sub1; mount -o subvol=b /dev/vdb sub2")?;
        bed.start_agent(&mut guest)?;
        guest.watch_freezes()?;
        let places = ["/mnt/ext4", "/mnt/two", "/mnt/bind", "/mnt/btrfs", "/mnt/sub1", "/mnt/sub2"];
        for _ in 0..2 {
            succeeds(&mut guest, Operation::FREEZE)?;
            frozen(&guest, &places)?;
            succeeds(&mut guest, Operation::THAW)?;
            writable(&guest, &places)?;
            let events = guest.freezes()?;
            let once: BTreeSet<String> = [device(&guest, "/mnt/ext4")?, device(&guest, "/mnt/btrfs")?].into();
            let frozen: Vec<String> = events.iter().filter_map(|event| match event {
                Event::Freeze(device) => Some(device.clone()),
                Event::Thaw(_) => None,
            }).collect();
            promise!(frozen.len() == 2 && events.len() == 4 && once == frozen.iter().cloned().collect(),
                "the kernel saw {events:?} for {once:?}");
        }
        Ok("by the kernel's account 2 superblocks behind 7 mounts, each frozen once and thawed once".into())
    }
}

scenario! {
    /// Row 10: in /proc/mounts such a mount reads `ro`, and yet its disk is written to.
    row: "10", "the host's namespace sees a disk only through a read-only bind mount; a container writes to it",
    c_daemon_gap: Some("takes the mount's `ro` for the file system's"),
    fn a_read_only_bind_mount_does_not_hide_a_writable_disk(bed) {
        let mut guest = bed.boot(&[Disk::new(FsKind::Ext4)])?;
        mount_all(&guest, &[FsKind::Ext4])?;
        guest.sh("mkdir /mnt/ro; mount --bind /mnt/ext4 /mnt/ro; mount -o remount,bind,ro /mnt/ro")?;
        // The container keeps the writable mount; the host's namespace loses it.
        guest.spawn("writer /mnt/ext4", &["/bin/unshare", "-m", "/bin/sh", "-c",
            "echo inside > /run/container; exec /sbin/hv-testguest writer /mnt/ext4 /run/writer-mnt-ext4"])?;
        let points = ["/mnt/ext4".to_owned()];
        tests::steps::writers_go_on(&guest, &points)?;
        guest.sh("umount /mnt/ext4")?;
        bed.start_agent(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        tests::steps::writers_sleep(&guest, &points)?;
        succeeds(&mut guest, Operation::THAW)?;
        tests::steps::writers_go_on(&guest, &points)?;
        Ok("frozen through the read-only mount, thawed after".into())
    }
}

/// A loop file on ext4, dm-crypt over a loop file, and a loop file two levels deep.
const STACK: &str = "
    stack() { truncate -s $3 $1; losetup $2 $1; }
    modprobe loop; modprobe dm-crypt
    stack /mnt/ext4/inner.img /dev/loop0 24M
    /sbin/mke2fs -q -t ext4 /dev/loop0; mkdir -p /mnt/inner; mount -t ext4 /dev/loop0 /mnt/inner
    stack /mnt/inner/deep.img /dev/loop1 12M
    /sbin/mke2fs -q -t ext4 /dev/loop1; mkdir -p /mnt/deep; mount -t ext4 /dev/loop1 /mnt/deep
    stack /mnt/ext4/crypt.img /dev/loop2 12M
    key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
    dmsetup create secret --table \"0 24576 crypt aes-xts-plain64 $key 0 /dev/loop2 0\"
    dmsetup mknodes
    /sbin/mke2fs -q -t ext4 /dev/mapper/secret; mkdir -p /mnt/secret
    mount -t ext4 /dev/mapper/secret /mnt/secret";

scenario! {
    /// Row 11.
    row: "11", "ext4 in a loop file on ext4, ext4 in a loop file on that one, dm-crypt over a loop file",
    c_daemon_gap: Some("skips loop devices and what lies on them"),
    fn stacked_file_systems_are_frozen_inside_out_and_thawed_in_reverse(bed) {
        let mut guest = bed.boot(&[Disk::sized(FsKind::Ext4, 128)])?;
        mount_all(&guest, &[FsKind::Ext4])?;
        guest.sh(STACK)?;
        bed.start_agent(&mut guest)?;
        guest.watch_freezes()?;
        let places = ["/mnt/deep", "/mnt/inner", "/mnt/secret", "/mnt/ext4"];
        let mut devices = Vec::new();
        for place in places {
            devices.push(device(&guest, place)?);
            guest.write(&format!("{place}/note"), "written before the checkpoint")?;
        }
        let took = succeeds(&mut guest, Operation::FREEZE)?.took;
        let account = guest.freezes()?;
        let copy = guest.dir().join("outer-copy.img");
        images::copy(guest.image(0)?, &copy)?;
        let asleep = frozen(&guest, &places);
        succeeds(&mut guest, Operation::THAW)?;
        asleep?;
        writable(&guest, &places)?;
        bed.measured("freeze", took);
        let at = |event: &Event| account.iter().position(|seen| seen == event);
        let order: Vec<_> = devices.iter().map(|device| at(&Event::Freeze(device.clone()))).collect();
        promise!(order.iter().all(Option::is_some) && account.len() == 4, "the kernel saw {account:?} for {devices:?}");
        let inside_out = |order: &[Option<usize>]| matches!(order,
            [deep, inner, secret, outer] if deep < inner && inner < outer && secret < outer);
        promise!(inside_out(&order), "not inside out: {account:?}");
        let thaws: Vec<Event> = guest.freezes()?.into_iter().take(4).collect();
        // From the end: the reverse of the order of the freezes.
        let at = |device: &String| thaws.iter().rev().position(|seen| *seen == Event::Thaw(device.clone()));
        let order: Vec<_> = devices.iter().map(at).collect();
        promise!(order.iter().all(Option::is_some) && inside_out(&order), "not outside in: {thaws:?}");
        // The image inside the image is consistent, too.
        let inner = guest.dir().join("inner-copy.img");
        std::fs::write(&inner, images::extract(FsKind::Ext4, &copy, "inner.img")?).ok();
        for image in [&copy, &inner] {
            let flaw = images::unclean(FsKind::Ext4, image)?;
            promise!(flaw.is_none(), "{}: {}", image.display(), flaw.unwrap_or_default());
        }
        Ok("4 file systems on 3 levels frozen inside out, thawed outside in; outer and inner image clean".into())
    }
}

/// The mount table as SUSE's kernels print it: for a mount of btrfs the number that `stat` has for its subvolume.
fn with_a_number_for_each_subvolume(guest: &Guest) -> Step<String> {
    let mut table = String::new();
    for line in guest.read("/proc/self/mountinfo")?.lines() {
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if let [_, _, number, _, point, ..] = fields.as_mut_slice() {
            if line.contains(" - btrfs ") {
                let told = guest.sh(&format!("stat -c %d {point}"))?;
                let told: u64 = told.trim().parse().unwrap_or(0);
                *number = format!("0:{}", (told & 0xff) | ((told >> 12) & !0xff));
            }
        }
        table += &(fields.join(" ") + "\n");
    }
    Ok(table)
}

scenario! {
    /// Row 10: SUSE. The C daemon does not look at numbers.
    row: "10", "btrfs subvolumes under a number each, as SUSE's kernels print the mount table",
    c_daemon_gap: None,
    fn a_btrfs_with_a_number_for_each_subvolume_is_frozen_once(bed) {
        let kinds = [FsKind::Ext4, FsKind::Btrfs];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        mount_all(&guest, &kinds)?;
        guest.sh("cd /mnt; mkdir sub1 sub2 sub3
            for name in a b c; do btrfs subvolume create btrfs/$name >&2; done
            mount -o subvol=a /dev/vdb sub1; mount -o subvol=b /dev/vdb sub2")?;
        bed.start_agent(&mut guest)?;
        let table = with_a_number_for_each_subvolume(&guest)?;
        let numbers: BTreeSet<&str> = table.lines().filter(|line| line.contains(" - btrfs "))
            .filter_map(|line| line.split(' ').nth(2)).collect();
        promise!(numbers.len() == 3, "not a number for each subvolume: {table}");
        guest.write("/run/mountinfo", &table)?;
        let pids = guest.sh("pidof hv-vssd hv_vss_daemon")?;
        for pid in pids.split_whitespace() {
            guest.sh(&format!("mount --bind /run/mountinfo /proc/{pid}/mountinfo"))?;
        }
        guest.watch_freezes()?;
        let places = ["/mnt/ext4", "/mnt/btrfs", "/mnt/sub1", "/mnt/sub2"];
        let mut took = Duration::ZERO;
        for _ in 0..2 {
            took = held(&mut guest, &places)?;
            let events = guest.freezes()?;
            promise!(events.len() == 4, "the kernel saw {events:?}");
        }
        bed.measured("freeze", took);
        Ok("2 superblocks behind 4 numbers, each frozen once and thawed once".into())
    }
}

/// A loop device over a node outside /dev of one whose file is on a disk, and one whose deleted file's name has become a link to a FUSE server that never answers.
const NODES: &str = "
    modprobe loop; mkdir -p /mnt/outer /mnt/inner /mnt/shm /dev/shm; mount -t tmpfs tmpfs /dev/shm
    truncate -s 48M /mnt/ext4/outer.img; losetup /dev/loop0 /mnt/ext4/outer.img
    mkdir -p /volumes; mknod /volumes/uid1 b 7 0; losetup /dev/loop1 /volumes/uid1
    /sbin/mke2fs -q -t ext4 /dev/loop1; mount -t ext4 /dev/loop1 /mnt/inner
    truncate -s 24M /dev/shm/image; losetup /dev/loop2 /dev/shm/image
    /sbin/mke2fs -q -t ext4 /dev/loop2; mount -t ext4 /dev/loop2 /mnt/shm
    rm /dev/shm/image; ln -s /mnt/fuse/file /dev/shm/image";

scenario! {
    /// Row 11: Kubernetes has its raw block volumes so.
    row: "11", "a loop device over a device node outside /dev; one whose file was replaced by a link to a FUSE server that never answers",
    c_daemon_gap: Some("skips loop devices and what lies on them"),
    fn loop_devices_are_placed_by_number_and_no_link_is_followed(bed) {
        let mut guest = bed.boot(&[Disk::sized(FsKind::Ext4, 128)])?;
        mount_all(&guest, &[FsKind::Ext4])?;
        guest.mount_unserved("fuse", "/mnt/fuse")?;
        guest.sh(NODES)?;
        bed.start_agent(&mut guest)?;
        guest.watch_freezes()?;
        let places = ["/mnt/inner", "/mnt/shm", "/mnt/ext4"];
        let inner = Event::Freeze(device(&guest, "/mnt/inner")?);
        let outer = Event::Freeze(device(&guest, "/mnt/ext4")?);
        let mut took = Duration::ZERO;
        for _ in 0..3 {
            took = held(&mut guest, &places)?;
            let events = guest.freezes()?;
            let at = |wanted: &Event| events.iter().position(|event| event == wanted);
            promise!(at(&inner).is_some() && at(&inner) < at(&outer), "not inside out: {events:?}");
        }
        bed.measured("freeze", took);
        Ok("three times frozen inside out, and nobody asked the FUSE server".into())
    }
}

scenario! {
    /// Row 12: VSS-08, ISO. Left out: ntfs3, for want of a mkfs in Debian 12's main tools.
    row: "12", "squashfs on a loop device, iso9660, exfat, overlay, tmpfs, autofs and fuse mounted beside ext4",
    c_daemon_gap: Some("fails every backup while exfat is mounted"),
    fn what_cannot_be_frozen_is_listed_and_never_fatal(bed) {
        let kinds = [FsKind::Ext4, FsKind::Exfat, FsKind::Iso, FsKind::Squashfs];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        mount_all(&guest, &kinds[..3])?;
        guest.sh("modprobe loop; cp /dev/vdd /mnt/ext4/squash.img; mkdir /mnt/squashfs
            mount -t squashfs -o loop /mnt/ext4/squash.img /mnt/squashfs
            cd /mnt/ext4; mkdir lower upper work /mnt/overlay /mnt/tmpfs
            mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none /mnt/overlay
            mount -t tmpfs none /mnt/tmpfs")?;
        guest.mount_unserved("autofs", "/mnt/autofs")?;
        guest.mount_unserved("fuse", "/mnt/fuse")?;
        bed.start_agent(&mut guest)?;
        for _ in 0..2 {
            succeeds(&mut guest, Operation::HOT_BACKUP)?;
            succeeds(&mut guest, Operation::FREEZE)?;
            let asleep = frozen(&guest, &["/mnt/ext4"]);
            succeeds(&mut guest, Operation::THAW)?;
            asleep?;
            writable(&guest, &["/mnt/ext4", "/mnt/overlay", "/mnt/tmpfs", "/mnt/exfat"])?;
        }
        let said = bed.agent.what_it_leaves_out(&guest)?;
        let missing: Vec<&str> = ["exfat", "iso9660", "squashfs", "overlay", "tmpfs", "autofs", "fuse"]
            .into_iter().filter(|kind| !said.contains(&format!("/mnt/{kind}"))).collect();
        promise!(missing.is_empty(), "listed nowhere: {}", missing.join(", "));
        Ok("all statuses 0, ext4 frozen each time, 7 others listed with their reasons".into())
    }
}

scenario! {
    /// Row 17: the shapes of mountinfo.
    row: "17", "mount points with blanks, tabs, newlines and backslashes, a line of more than 5,000 bytes, bind-mounted files and sockets",
    c_daemon_gap: Some("cannot open a bind-mounted socket, and then fails the backup"),
    fn odd_mounts_are_read_right(bed) {
        let mut guest = bed.boot(&[Disk::new(FsKind::Ext4), Disk::new(FsKind::Ext4)])?;
        mount_all(&guest, &[FsKind::Ext4])?;
        // A path of 14 names of 200 bytes, and an overlay whose options repeat it.
        guest.sh("cd /mnt; odd=$(printf 'a b\\tc\\nd\\\\e'); mkdir \"$odd\"; mount -t ext4 /dev/vdb \"$odd\"; ln -s \"$odd\" odd
            name=$(printf '%0200d' 7); deep=/run/deep
            for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do deep=$deep/$name; done
            mkdir -p $deep/lower $deep/mount /run/upper /run/work
            mount -t overlay -o lowerdir=$deep/lower,upperdir=/run/upper,workdir=/run/work none $deep/mount
            touch ext4/file file; mount --bind ext4/file file")?;
        guest.make_socket("/mnt/ext4/sock")?;
        guest.sh("touch /mnt/sock; mount --bind /mnt/ext4/sock /mnt/sock")?;
        let longest = guest.read("/proc/self/mountinfo")?.lines().map(str::len).max();
        promise!(longest > Some(5000), "the longest line has {longest:?} bytes");
        bed.start_agent(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let asleep = frozen(&guest, &["/mnt/ext4", "/mnt/odd"]);
        succeeds(&mut guest, Operation::THAW)?;
        asleep?;
        writable(&guest, &["/mnt/ext4", "/mnt/odd"])?;
        Ok("both disks frozen and thawed".into())
    }
}

/// FREEZE and THAW until the third, each with success; the fastest FREEZE counts.
fn fastest_freeze(guest: &mut Guest) -> Step<Duration> {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        // As every host does: it asks before it freezes.
        succeeds(guest, Operation::HOT_BACKUP)?;
        fastest = fastest.min(succeeds(guest, Operation::FREEZE)?.took);
        succeeds(guest, Operation::THAW)?;
    }
    Ok(fastest)
}

scenario! {
    /// Row 17: linear time.
    row: "17", "FREEZE at 1,000 and at 10,000 bind mounts of one disk",
    c_daemon_gap: None,
    fn ten_thousand_mounts_take_linear_time(bed) {
        let mut guest = bed.boot(&[Disk::new(FsKind::Ext4)])?;
        mount_all(&guest, &[FsKind::Ext4])?;
        bed.start_agent(&mut guest)?;
        guest.bind_mounts("/mnt/ext4", "/mnt/few", 1000)?;
        let few = fastest_freeze(&mut guest)?;
        guest.bind_mounts("/mnt/ext4", "/mnt/many", 9000)?;
        let many = fastest_freeze(&mut guest)?;
        bed.measured("freeze at 1,000 mounts", few);
        bed.measured("freeze at 10,000 mounts", many);
        writable(&guest, &["/mnt/ext4"])?;
        // Quadratic time would show as a hundredfold.
        promise!(many < few * 25, "{few:?} at 1,000 mounts, {many:?} at 10,000");
        Ok(format!("{:.0} ms at 1,000 mounts, {:.0} ms at 10,000", few.as_secs_f64() * 1e3, many.as_secs_f64() * 1e3))
    }
}

scenario! {
    /// Row 17: what HOT_BACKUP has read is not read again while a host waits for FREEZE.
    row: "17", "HOT_BACKUP, FREEZE and THAW under strace: when the mount table is read",
    hv_vssd_alone,
    fn a_freeze_after_hot_backup_does_not_read_the_mount_table_again(bed) {
        let mut guest = bed.boot(&[Disk::new(FsKind::Ext4)])?;
        mount_all(&guest, &[FsKind::Ext4])?;
        bed.start_agent(&mut guest)?;
        strace::attach(&guest, &guest.sh("pidof hv-vssd")?)?;
        // Those of other namespaces, as the kernel itself has one for devtmpfs, are read once more, to be compared.
        let reads = |guest: &Guest| -> Step<usize> {
            Ok(guest.read(strace::FILE)?.lines().filter(|line| line.contains("/proc/self/mountinfo\"")).count())
        };
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        let asked = reads(&guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        succeeds(&mut guest, Operation::THAW)?;
        let after = reads(&guest)?;
        promise!(asked > 0, "HOT_BACKUP reads no mount table");
        promise!(after == asked, "the mount table is opened {} times after HOT_BACKUP: {}", after - asked, guest.read(strace::FILE)?);
        guest.sh("mkdir /mnt/new; mount --bind /mnt/ext4 /mnt/new")?;
        succeeds(&mut guest, Operation::FREEZE)?;
        succeeds(&mut guest, Operation::THAW)?;
        promise!(reads(&guest)? > after, "a table that has changed is not read again");
        Ok(format!("opened {asked} times by HOT_BACKUP, never again by FREEZE and THAW until it had changed"))
    }
}

scenario! {
    /// The measure of speed, taken beside the C daemon in the same guest.
    row: "17", "4,000 bind mounts: time of FREEZE against the C daemon's in the same guest",
    c_daemon_gap: None,
    fn four_thousand_mounts_are_quicker_than_with_the_c_daemon(bed) {
        let mut guest = bed.boot(&[Disk::new(FsKind::Ext4)])?;
        mount_all(&guest, &[FsKind::Ext4])?;
        guest.bind_mounts("/mnt/ext4", "/mnt/many", 4000)?;
        guest.plug_in()?;
        guest.host()?.negotiate()?;
        Agent::CDaemon.start(&mut guest)?;
        let reference = fastest_freeze(&mut guest)?;
        Agent::CDaemon.stop(&guest)?;
        bed.agent.start(&mut guest)?;
        let ours = fastest_freeze(&mut guest)?;
        bed.measured("freeze", ours);
        bed.measured("freeze of the C daemon", reference);
        let times = format!("{:.1} ms, the C daemon {:.1} ms: a factor of {:.1}",
            ours.as_secs_f64() * 1e3, reference.as_secs_f64() * 1e3, reference.as_secs_f64() / ours.as_secs_f64());
        // A busy machine decides how much; the figure is in the report, a tenth and less on an idle one.
        promise!(bed.agent == Agent::CDaemon || ours < reference, "{times}");
        Ok(times)
    }
}
