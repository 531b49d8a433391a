//! In which order file systems are frozen.

use std::collections::BTreeMap;

use super::{Guest, reasons};
use crate::filesystems::blockdev::BlockDevice;
use crate::filesystems::device::DeviceNumber;
use crate::filesystems::reason::Reason;
use crate::filesystems::served::ServedBy;

#[test]
fn root_is_last_and_alone() {
    assert_eq!(
        Guest::new().disk(1, "/a").disk(2, "/b").stages(),
        [vec!["/a", "/b"], vec!["/"]]
    );
}

#[test]
fn an_image_is_frozen_before_what_holds_it_and_as_late_as_that_allows() {
    let guest = Guest::new()
        .disk(1, "/a")
        .disk(2, "/b")
        .image(0, "/a/img", "/c")
        .image(1, "/c/img", "/d")
        .image(2, "/img", "/e");
    assert_eq!(
        guest.stages(),
        [vec!["/d"], vec!["/c"], vec!["/a", "/b", "/e"], vec!["/"]]
    );
}

#[test]
fn device_mapper_over_an_image_is_seen_through() {
    let crypt = BlockDevice {
        below: vec![DeviceNumber::new(7, 0)],
        ..BlockDevice::default()
    };
    let guest = Guest::new()
        .disk(1, "/a")
        .loop_device(0, Some("/a/img"))
        .device(DeviceNumber::new(253, 0), crypt)
        .line("253:0 / /secret rw - xfs /dev/mapper/secret rw");
    assert_eq!(guest.stages(), [vec!["/secret"], vec!["/a"], vec!["/"]]);
    assert_eq!(
        guest.plan().stages[0][0].stacked_on,
        [DeviceNumber::new(8, 1)]
    );
}

#[test]
fn what_is_served_goes_first_with_all_that_stands_on_it() {
    let nbd = BlockDevice {
        served: Some(ServedBy::Nbd),
        ..BlockDevice::default()
    };
    let guest = Guest::new()
        .disk(1, "/a")
        .image(0, "/a/img", "/b")
        .device(DeviceNumber::new(43, 0), nbd)
        .line("43:0 / /nbd rw - ext4 /dev/nbd0 rw")
        .image(1, "/nbd/img", "/c")
        .line("0:50 / /nfs rw - nfs server:/ rw")
        .image(2, "/nfs/img", "/d")
        .line("0:51 / /fuse rw - fuse.x x rw")
        .image(3, "/fuse/img", "/e");
    assert_eq!(
        guest.stages(),
        [
            vec!["/c"],
            vec!["/d", "/e", "/nbd"],
            vec!["/b"],
            vec!["/a"],
            vec!["/"]
        ]
    );
    let served: Vec<_> = guest
        .plan()
        .superblocks()
        .map(|superblock| superblock.served_by)
        .collect();
    let (nbd, nfs, fuse) = (
        Some(ServedBy::Nbd),
        Some(ServedBy::RemoteFile),
        Some(ServedBy::FuseFile),
    );
    assert_eq!(served, [nbd, nfs, fuse, nbd, None, None, None]);
}

#[test]
fn an_image_on_an_overlay_stands_on_the_upper_layer() {
    let guest = Guest::new()
        .disk(1, "/a")
        .line("0:50 / /merged rw - overlay overlay rw,lowerdir=/l,upperdir=/a/up,workdir=/a/work")
        .image(0, "/merged/img", "/b");
    assert_eq!(guest.stages(), [vec!["/b"], vec!["/a"], vec!["/"]]);
    assert_eq!(
        reasons(&guest.plan()),
        [("/merged".into(), Reason::Layered)]
    );
}

#[test]
fn a_left_out_file_system_passes_the_order_on() {
    let guest = Guest::new()
        .disk(1, "/a")
        .loop_device(0, Some("/a/img"))
        .line("7:0 / /fat rw - vfat /dev/loop0 rw")
        .image(1, "/fat/img", "/b");
    assert_eq!(guest.stages(), [vec!["/b"], vec!["/a"], vec!["/"]]);
    let fat = &guest.plan().left_out[0];
    assert!(fat.flush && fat.reason == Reason::CannotFreeze);
}

#[test]
fn a_read_only_image_holds_nobody_up() {
    let guest = Guest::new()
        .disk(1, "/a")
        .loop_device(0, Some("/a/snap"))
        .line("7:0 / /snap ro - squashfs /dev/loop0 ro");
    assert_eq!(guest.stages(), [vec!["/a"], vec!["/"]]);
}

#[test]
fn what_cannot_be_located_goes_before_all_local_ones() {
    let guest = Guest::new()
        .disk(1, "/a")
        .loop_device(0, None)
        .line("7:0 / /lost rw - ext4 /dev/loop0 rw")
        .line("254:9 / /unknown rw - ext4 /dev/x rw")
        .image(1, "/lost/img", "/b");
    assert_eq!(
        guest.stages(),
        [vec!["/b"], vec!["/lost", "/unknown"], vec!["/a"], vec!["/"]]
    );
}

#[test]
fn an_image_mounted_over_its_own_directory_stands_on_what_is_hidden() {
    let mut guest = Guest::new().disk(1, "/a").loop_device(0, Some("/a/img"));
    guest
        .table
        .push_str("3 2 7:0 / /a rw - ext4 /dev/loop0 rw\n");
    let plan = guest.plan();
    let devices: Vec<_> = plan
        .superblocks()
        .map(|superblock| superblock.dev.to_string())
        .collect();
    assert_eq!(devices, ["7:0", "8:1", "8:0"]);
    let hidden: Vec<_> = plan
        .superblocks()
        .map(|superblock| superblock.mounts[0].hidden)
        .collect();
    assert_eq!(hidden, [false, true, false]);
}

#[test]
fn root_on_an_image_goes_before_what_holds_it() {
    let mut guest = Guest {
        table: String::new(),
        devices: BTreeMap::new(),
    }
    .image(0, "/host/root.img", "/");
    guest = guest.disk(1, "/host").disk(2, "/a");
    assert_eq!(guest.stages(), [vec!["/a"], vec!["/"], vec!["/host"]]);
}

#[test]
fn circles_end() {
    let guest = Guest::new()
        .image(0, "/b/img", "/a")
        .image(1, "/a/img", "/b")
        .image(2, "/c/img", "/c");
    assert_eq!(guest.plan().superblocks().count(), 4);
}

#[test]
fn an_image_goes_before_all_that_may_hold_it_under_a_later_mount() {
    let mut guest = Guest::new().disk(1, "/a").image(0, "/a/b/img", "/c");
    guest
        .table
        .push_str("4 2 0:50 / /a/b rw - tmpfs tmpfs rw\n");
    assert_eq!(guest.stages(), [vec!["/c"], vec!["/a"], vec!["/"]]);
}

#[test]
fn what_cannot_be_located_goes_first_of_all_but_after_a_served_one_that_stands_on_it() {
    let nbd = |minor| {
        let device = BlockDevice {
            served: Some(ServedBy::Nbd),
            ..BlockDevice::default()
        };
        (DeviceNumber::new(43, minor), device)
    };
    let (number, device) = nbd(0);
    let guest = Guest::new()
        .disk(1, "/a")
        .device(number, device)
        .line("43:0 / /nbd rw - ext4 /dev/nbd0 rw")
        .loop_device(0, None)
        .line("7:0 / /lost rw - ext4 /dev/loop0 rw");
    // Should its freeze not return, nothing is frozen that it could wait for, nor anything else.
    assert_eq!(
        guest.stages(),
        [vec!["/lost"], vec!["/nbd"], vec!["/a"], vec!["/"]]
    );
    let mixed = BlockDevice {
        below: vec![number, DeviceNumber::new(7, 1)],
        ..BlockDevice::default()
    };
    let guest = guest
        .loop_device(1, Some("/lost/img"))
        .device(DeviceNumber::new(253, 0), mixed)
        .line("253:0 / /mixed rw - ext4 /dev/mapper/mixed rw");
    assert_eq!(
        guest.stages(),
        [vec!["/mixed", "/nbd"], vec!["/lost"], vec!["/a"], vec!["/"]]
    );
}

#[test]
fn an_image_whose_path_means_another_file_stands_on_the_superblock_that_the_kernel_tells() {
    // The container that has set it up has gone: its /data was disk 2.
    let guest = |on| {
        let device = BlockDevice {
            backing_file: Some("/data/img".into()),
            backing_on: on,
            ..BlockDevice::default()
        };
        Guest::new()
            .disk(2, "/mnt/real")
            .device(DeviceNumber::new(7, 0), device)
            .line("7:0 / /c rw - ext4 /dev/loop0 rw")
    };
    let told = guest(Some(DeviceNumber::new(8, 2)));
    assert_eq!(told.stages(), [vec!["/c"], vec!["/mnt/real"], vec!["/"]]);
    assert_eq!(
        told.plan().stages[0][0].stacked_on,
        [DeviceNumber::new(8, 2)]
    );
    // A number that no superblock has, such as that of a btrfs subvolume: the path tells.
    for on in [None, Some(DeviceNumber::new(0, 99))] {
        assert_eq!(guest(on).stages(), [vec!["/c", "/mnt/real"], vec!["/"]]);
    }
}
