//! What an operator includes and excludes, and what that leaves out of the image.

use std::path::{Path, PathBuf};

use super::{Guest, reasons, stages};
use crate::filesystems::blockdev::BlockDevice;
use crate::filesystems::device::DeviceNumber;
use crate::filesystems::plan::Plan;
use crate::filesystems::policy::Policy;
use crate::filesystems::reason::Reason;

#[test]
fn the_policy_leaves_out_by_mount_point_type_and_device() {
    let guest = Guest::new()
        .disk(1, "/a")
        .disk(2, "/b")
        .disk(3, "/c")
        .line("8:4 / /d rw - xfs /dev/sd4 rw");
    let policy: Policy = toml::from_str(
        r#"
        exclude_mount_points = ["/a/"]
        exclude_types = ["xfs"]
        exclude_devices = ["/dev/sd2", "8:3"]
        "#,
    )
    .unwrap();
    let plan = Plan::new(&guest.scan(), &policy);
    assert_eq!(stages(&plan), [vec!["/"]]);
    assert!(
        plan.left_out
            .iter()
            .all(|left_out| left_out.reason == Reason::Excluded && !left_out.flush)
    );
    assert!(toml::from_str::<Policy>("exclude_disks = []").is_err());
}

#[test]
fn what_the_policy_includes_is_frozen_and_what_it_excludes_of_that_is_not() {
    let guest = Guest::new()
        .disk(1, "/a")
        .disk(2, "/b")
        .disk(3, "/c")
        .line("8:9 / /fat rw - vfat /dev/sd9 rw");
    let plan = |policy: &str| {
        let policy: Policy = toml::from_str(policy).unwrap();
        let plan = Plan::new(&guest.scan(), &policy);
        let frozen: Vec<String> = stages(&plan).concat();
        (frozen, reasons(&plan))
    };
    let one = [
        r#"include_mount_points = ["/b"]"#,
        r#"include_devices = ["/dev/sd2"]"#,
        r#"include_devices = ["8:2"]"#,
    ];
    for policy in one {
        let (frozen, left_out) = plan(policy);
        assert_eq!(frozen, ["/b"], "{policy}");
        let others = ["/", "/a", "/c", "/fat"];
        assert_eq!(
            left_out,
            others.map(|point| (point.to_owned(), Reason::NotIncluded)),
            "{policy}"
        );
    }
    let (frozen, left_out) = plan(
        "include_types = [\"ext4\"]\nexclude_mount_points = [\"/b\"]\ninclude_mount_points = [\"/b\"]",
    );
    assert_eq!(frozen, ["/a", "/c", "/"]);
    assert_eq!(
        left_out,
        [
            ("/b".to_owned(), Reason::Excluded),
            ("/fat".to_owned(), Reason::NotIncluded)
        ]
    );
    // Not frozen, but flushed, because it was meant.
    let (frozen, left_out) = plan(r#"include_mount_points = ["/fat"]"#);
    assert!(frozen.is_empty());
    assert!(left_out.contains(&("/fat".to_owned(), Reason::CannotFreeze)));
}

#[test]
fn flush_only_flushes_what_would_be_frozen() {
    let guest = Guest::new()
        .disk(1, "/a")
        .disk(2, "/b")
        .line("8:9 / /fat rw - vfat /dev/sd9 rw");
    let policy: Policy =
        toml::from_str("flush_only = true\nexclude_mount_points = [\"/b\"]").unwrap();
    let plan = Plan::new(&guest.scan(), &policy);
    assert_eq!(plan.superblocks().count(), 0);
    let flushed: Vec<_> = plan
        .flushed()
        .map(|left_out| (left_out.mount_point().to_str().unwrap(), left_out.reason))
        .collect();
    assert_eq!(
        flushed,
        [
            ("/", Reason::FlushOnly),
            ("/a", Reason::FlushOnly),
            ("/fat", Reason::CannotFreeze)
        ]
    );
}

#[test]
fn a_gap_is_what_is_writable_and_local_and_cannot_be_frozen_unless_that_is_wanted() {
    let guest = Guest::new()
        .line("8:1 / /fat rw - vfat /dev/sd1 rw")
        .line("8:2 / /ro rw - vfat /dev/sd2 ro")
        .line("8:3 / /ntfs rw - fuseblk.ntfs-3g /dev/sd3 rw")
        .line("8:4 / /ntfs-ro ro - fuseblk /dev/sd4 ro")
        .line("0:40 / /ssh rw - fuse.sshfs me@there: rw")
        .line("0:41 / /nfs rw - nfs4 there:/ rw")
        .line("0:42 / /t rw - tmpfs tmpfs rw");
    let gaps = |policy: &str| {
        let policy: Policy = toml::from_str(policy).unwrap();
        let plan = Plan::new(&guest.scan(), &policy);
        let gaps = plan.gaps().map(|gap| gap.mount_point().to_owned());
        gaps.collect::<Vec<_>>()
    };
    assert_eq!(gaps(""), [Path::new("/fat"), Path::new("/ntfs")]);
    let none: [&Path; 0] = [];
    assert_eq!(gaps(r#"exclude_devices = ["/dev/sd1", "/dev/sd3"]"#), none);
    assert_eq!(gaps(r#"include_mount_points = ["/"]"#), none);
    assert_eq!(gaps(r#"exclude_types = ["vfat"]"#), [Path::new("/ntfs")]);
}

#[test]
fn a_cluster_on_a_disk_of_this_guest_is_a_gap_and_one_elsewhere_is_not() {
    let guest = Guest::new()
        .line("0:40 / /mdt rw - lustre /dev/mapper/mdt rw")
        .line("0:41 / /client rw - lustre 10.0.0.1@tcp:/fs rw")
        .line("0:42 / /gpfs rw - gpfs gpfs0 rw")
        .line("0:43 / /gpfs-ro ro - gpfs gpfs1 ro")
        .line("8:9 / /shared rw - ocfs2 /dev/sd9 rw");
    let gaps = |policy: &str| {
        let policy: Policy = toml::from_str(policy).unwrap();
        let plan = Plan::new(&guest.scan(), &policy);
        let gaps = plan
            .gaps()
            .map(|gap| (gap.mount_point().to_owned(), gap.reason, gap.flush));
        gaps.collect::<Vec<_>>()
    };
    let shared = (PathBuf::from("/shared"), Reason::CannotFreeze, true);
    assert_eq!(
        gaps(""),
        [
            shared.clone(),
            (PathBuf::from("/gpfs"), Reason::ClusterOnDisk, false),
            (PathBuf::from("/mdt"), Reason::ClusterOnDisk, false),
        ]
    );
    assert_eq!(gaps(r#"exclude_types = ["gpfs", "lustre"]"#), [shared]);
}

#[test]
fn what_is_in_memory_alone_is_left_out_and_no_gap() {
    let named = |name: &str, below: &[DeviceNumber]| BlockDevice {
        name: name.to_owned(),
        below: below.to_vec(),
        ..BlockDevice::default()
    };
    let (zram, disk) = (DeviceNumber::new(251, 0), DeviceNumber::new(8, 7));
    let dm = |minor| DeviceNumber::new(253, minor);
    let guest = Guest::new()
        .device(zram, named("zram0", &[]))
        .device(disk, named("sda7", &[]))
        .device(dm(0), named("dm-0", &[zram]))
        .device(dm(1), named("dm-1", &[zram, disk]))
        .device(DeviceNumber::new(1, 0), named("ram0", &[]))
        .device(DeviceNumber::new(251, 9), named("zramx", &[]))
        .line("251:0 / /zram rw - ext4 /dev/zram0 rw")
        .line("253:0 / /crypt rw - xfs /dev/mapper/c rw")
        .line("253:1 / /mixed rw - xfs /dev/mapper/m rw")
        .line("1:0 / /ramdisk rw - vfat /dev/ram0 rw")
        .line("251:9 / /other rw - ext4 /dev/zramx rw");
    let plan = guest.plan();
    let left_out: Vec<_> = plan
        .left_out
        .iter()
        .map(|left_out| (left_out.mount_point().to_str().unwrap(), left_out.reason))
        .collect();
    let in_memory = ["/crypt", "/ramdisk", "/zram"].map(|point| (point, Reason::InMemory));
    assert_eq!(left_out, in_memory);
    assert_eq!(plan.gaps().count() + plan.flushed().count(), 0);
    assert_eq!(guest.stages(), [vec!["/mixed", "/other"], vec!["/"]]);
}
