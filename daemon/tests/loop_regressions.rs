//! Ways to a file system that misled once, on real loop devices.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod scratch;
use hv_vssd::quiesce::handle::Handle;
use nix::mount::MsFlags;
use scratch::{Disk, in_namespace, mount_on};
use std::fs;

#[test]
fn a_covered_btrfs_is_reached_through_its_device() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "btrfs");
        let target = disk.target(&[&disk.mount_point]);
        nix::mount::mount(
            Some("tmpfs"),
            &disk.mount_point,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        if let Err(error) = Handle::open(&target) {
            panic!("{}", hv_vssd::quiesce::error::with_causes(&error));
        }
    });
}

#[test]
fn a_disk_that_was_unmounted_meanwhile_is_not_mounted_again() {
    in_namespace(|place| {
        let image = place.join("plain.ext4");
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&image)
            .unwrap();
        file.set_len(64 << 20).unwrap();
        assert!(
            std::process::Command::new("mkfs.ext4")
                .args(["-q", "-F"])
                .arg(&image)
                .status()
                .unwrap()
                .success()
        );
        let device = hvutil_sys::loopdev::LoopDevice::attach(&file).unwrap();
        let at = place.join("at");
        fs::create_dir(&at).unwrap();
        mount_on(device.path(), &at, "ext4");
        let (id, dev, path) = scratch::mounts_at(&at)[0].clone();
        let target = hv_vssd::quiesce::backend::Target {
            dev,
            fstype: "ext4".into(),
            source: device.path().to_owned(),
            mounts: vec![(id, path)],
            ..Default::default()
        };
        nix::mount::umount(&at).unwrap();
        let handle = Handle::open(&target);
        assert!(
            handle.is_err(),
            "an unmounted disk was mounted, and with it written to"
        );
    });
}

#[test]
fn another_disk_that_was_mounted_in_its_place_is_not_taken_for_it() {
    in_namespace(|place| {
        let one = Disk::new(place, "one", "ext4");
        let two = Disk::new(place, "two", "ext4");
        two.umount().unwrap();
        let target = one.target(&[&one.mount_point]);
        one.umount().unwrap();
        mount_on(two.device(), &one.mount_point, "ext4");
        eprintln!(
            "{:?} vs {:?}",
            target.mounts,
            scratch::mounts_at(&one.mount_point)
        );
        if let Ok(handle) = Handle::open(&target) {
            hvutil_sys::freeze::freeze(&handle).unwrap();
            let wrong = two.is_frozen();
            hvutil_sys::freeze::thaw(&handle).unwrap();
            assert!(!wrong, "two was frozen in place of one");
        }
    });
}
