//! Handles on real file systems: what they open, what they refuse, and that a thaw through them reaches its superblock.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scratch;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use hv_vssd::filesystems::DeviceNumber;
use hv_vssd::quiesce::backend::Target;
use hv_vssd::quiesce::handle::{Handle, Unreached};
use hvutil_sys::{freeze, mount};
use nix::mount::{MntFlags, MsFlags, umount2};
use scratch::{Disk, bind, in_namespace, mount_on, mounts_at};

const TYPES: [&str; 3] = ["ext4", "xfs", "btrfs"];

fn freezes_and_thaws(handle: &Handle, disk: &Disk) {
    assert!(!disk.is_frozen());
    freeze::freeze(handle).unwrap();
    assert!(disk.is_frozen(), "it was another superblock");
    freeze::thaw(handle).unwrap();
    assert!(!disk.is_frozen());
}

#[test]
fn a_handle_on_a_mount_freezes_its_superblock() {
    in_namespace(|place| {
        for fstype in TYPES {
            let disk = Disk::new(place, fstype, fstype);
            let handle = Handle::open(&disk.target(&[&disk.mount_point])).unwrap();
            freezes_and_thaws(&handle, &disk);
        }
    });
}

#[test]
fn a_held_disk_can_be_unmounted_and_is_thawed_all_the_same() {
    in_namespace(|place| {
        for fstype in TYPES {
            let disk = Disk::new(place, fstype, fstype);
            let handle = Handle::open(&disk.target(&[&disk.mount_point])).unwrap();
            freeze::freeze(&handle).unwrap();
            disk.umount().unwrap();
            freeze::thaw(&handle).unwrap();
            assert!(!disk.is_frozen(), "{fstype}");
            mount_on(disk.device(), &disk.mount_point, fstype);
            fs::write(disk.mount_point.join("file"), "writable").unwrap();
        }
    });
}

#[test]
fn a_mount_that_another_one_covers_is_reached_through_its_device() {
    in_namespace(|place| {
        for fstype in ["ext4", "xfs"] {
            let disk = Disk::new(place, fstype, fstype);
            let target = disk.target(&[&disk.mount_point]);
            let cover = Some("tmpfs");
            let none = MsFlags::empty();
            nix::mount::mount(cover, &disk.mount_point, cover, none, None::<&str>).unwrap();
            let handle = Handle::open(&target).unwrap();
            freezes_and_thaws(&handle, &disk);
            umount2(&disk.mount_point, MntFlags::empty()).unwrap();
        }
    });
}

#[test]
fn the_parent_of_a_mount_that_vanished_is_never_opened() {
    in_namespace(|place| {
        let parent = Disk::new(place, "parent", "ext4");
        let child = Disk::new(&parent.mount_point, "child", "ext4");
        let mut target = child.target(&[&child.mount_point]);
        child.umount().unwrap();
        // What is still in use is reached by its number, whatever its name has become.
        target.source = "/dev/no-such-disk".into();
        let handle = Handle::open(&target).unwrap();
        freezes_and_thaws(&handle, &child);
        assert!(!parent.is_frozen());
        // What is not, by nothing.
        target.dev = DeviceNumber::new(4095, 1);
        let error = Handle::open(&target).unwrap_err();
        assert_eq!(error.why(), Unreached::Gone);
        let text = hv_vssd::quiesce::error::with_causes(&error);
        assert!(text.contains("child-mounted"), "{text}");
        assert!(text.contains("is not mounted"), "{text}");
        assert!(!text.contains('\n'));
    });
}

#[test]
fn the_second_mount_is_taken_when_the_first_has_vanished() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "btrfs");
        let second = place.join("second");
        fs::create_dir(&second).unwrap();
        bind(&disk.mount_point, &second);
        let target = disk.target(&[&disk.mount_point, &second]);
        assert_eq!(target.mounts.len(), 2);
        disk.umount().unwrap();
        let handle = Handle::open(&target).unwrap();
        freezes_and_thaws(&handle, &disk);
    });
}

#[test]
fn a_disk_of_which_only_a_file_is_mounted_is_frozen_through_the_file() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "xfs");
        let (file, elsewhere) = (disk.mount_point.join("file"), place.join("file"));
        fs::write(&file, "").unwrap();
        fs::write(&elsewhere, "").unwrap();
        bind(&file, &elsewhere);
        let target = disk.target(&[&elsewhere]);
        disk.umount().unwrap();
        let handle = Handle::open(&target).unwrap();
        freezes_and_thaws(&handle, &disk);
    });
}

#[test]
fn a_disk_of_which_only_a_socket_is_mounted_is_reached_through_its_device() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (socket, elsewhere) = (disk.mount_point.join("s"), place.join("s"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::write(&elsewhere, "").unwrap();
        bind(&socket, &elsewhere);
        let target = disk.target(&[&elsewhere]);
        let handle = Handle::open(&target).unwrap();
        freezes_and_thaws(&handle, &disk);
    });
}

#[test]
fn a_name_that_leads_to_another_device_now_is_not_followed() {
    in_namespace(|place| {
        let (disk, other) = (
            Disk::new(place, "disk", "ext4"),
            Disk::new(place, "other", "ext4"),
        );
        let mut target = disk.target(&[]);
        for name in [
            other.device(),
            Path::new("/dev/null"),
            Path::new("/dev/root"),
        ] {
            target.source = name.to_owned();
            let handle = Handle::open(&target).unwrap();
            freezes_and_thaws(&handle, &disk);
            assert!(!other.is_frozen());
        }
    });
}

#[test]
fn dropping_a_handle_lets_the_disk_go() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let handle = Handle::open(&disk.target(&[&disk.mount_point])).unwrap();
        let id = mounts_at(&disk.mount_point)[0].0;
        let found = mount::mount_id(File::open(&disk.mount_point).unwrap()).unwrap();
        assert_eq!(id, found);
        drop(handle);
        assert!(Path::new(&disk.mount_point).is_dir());
        disk.umount().unwrap();
    });
}

/// How many transactions of an ext4 were committed, as the kernel counts them.
fn commits(disk: &Disk) -> u64 {
    let device = disk.device().file_name().unwrap().to_str().unwrap();
    let info = fs::read_to_string(format!("/proc/fs/jbd2/{device}-8/info")).unwrap();
    info.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn an_ext4_is_committed_ahead_unless_it_is_frozen_and_nobody_waits_for_that() {
    in_namespace(|place| {
        for fstype in TYPES {
            let disk = Disk::new(place, fstype, fstype);
            let handle = Handle::open(&disk.target(&[&disk.mount_point])).unwrap();
            fs::write(disk.mount_point.join("file"), "not synced").unwrap();
            let before = (fstype == "ext4").then(|| commits(&disk));
            handle.commit_ahead();
            if let Some(before) = before {
                // Since Linux 5.14.
                assert!(commits(&disk) > before || !has_checkpoint());
            }
            freeze::freeze(&handle).unwrap();
            handle.commit_ahead();
            assert!(disk.is_frozen());
            freeze::thaw(&handle).unwrap();
        }
    });
}

fn has_checkpoint() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

/// As a plan has it that knows the disk from sysfs alone.
fn out_of_sight(disk: &Disk) -> Target {
    let device = nix::sys::stat::stat(disk.device()).unwrap().st_rdev;
    Target {
        dev: DeviceNumber::from_raw(device),
        place: PathBuf::new(),
        ..disk.target(&[])
    }
}

#[test]
fn what_is_mounted_nowhere_in_sight_is_reached_by_its_device() {
    in_namespace(|place| {
        for fstype in TYPES {
            let disk = Disk::new(place, fstype, fstype);
            // Only a detached mount of it is left.
            disk.umount().unwrap();
            let target = out_of_sight(&disk);
            freezes_and_thaws(&Handle::open(&target).unwrap(), &disk);
            Handle::probe(&target).unwrap();
        }
    });
}

#[test]
fn what_is_read_only_and_nowhere_in_sight_says_so() {
    in_namespace(|place| {
        for fstype in ["ext4", "xfs"] {
            let disk = Disk::new(place, fstype, fstype);
            let (none, flags) = (None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
            nix::mount::mount(none, &disk.mount_point, none, flags, none).unwrap();
            disk.umount().unwrap();
            let error = Handle::open(&out_of_sight(&disk)).unwrap_err();
            assert_eq!(error.why(), Unreached::ReadOnly, "{fstype}: {error:?}");
        }
    });
}

#[test]
fn a_healthy_one_is_not_dead() {
    in_namespace(|place| {
        for fstype in TYPES {
            let disk = Disk::new(place, fstype, fstype);
            let handle = Handle::open(&disk.target(&[&disk.mount_point])).unwrap();
            assert!(!handle.is_shut_down() && !handle.is_dead(), "{fstype}");
        }
    });
}
