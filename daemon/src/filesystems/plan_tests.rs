use std::collections::BTreeMap;

use super::super::blockdev::BlockDevice;
use super::super::mountinfo::parse;
use super::super::namespaces::Namespace;
use super::*;
use crate::filesystems::device::DeviceNumber;
use crate::filesystems::processes::Process;
use crate::filesystems::reason::Reason;
use crate::filesystems::served::ServedBy;
use std::path::Path;

/// A guest of ext4 disks, some of them loop devices; ids count from 1, and each mount lies on the first.
struct Guest {
    table: String,
    devices: BTreeMap<DeviceNumber, BlockDevice>,
}

impl Guest {
    fn new() -> Self {
        let guest = Self {
            table: String::new(),
            devices: BTreeMap::new(),
        };
        guest.disk(0, "/")
    }

    fn line(mut self, line: &str) -> Self {
        let id = self.table.lines().count() + 1;
        let parent = usize::from(id > 1);
        self.table.push_str(&format!("{id} {parent} {line}\n"));
        self
    }

    fn device(mut self, dev: DeviceNumber, device: BlockDevice) -> Self {
        self.devices.insert(dev, device);
        self
    }

    fn disk(self, minor: u32, at: &str) -> Self {
        self.device(DeviceNumber::new(8, minor), BlockDevice::default())
            .line(&format!("8:{minor} / {at} rw - ext4 /dev/sd{minor} rw"))
    }

    fn loop_device(self, minor: u32, file: Option<&str>) -> Self {
        let device = BlockDevice {
            backing_file: file.map(PathBuf::from),
            incomplete: file.is_none(),
            ..BlockDevice::default()
        };
        self.device(DeviceNumber::new(7, minor), device)
    }

    fn image(self, minor: u32, file: &str, at: &str) -> Self {
        self.loop_device(minor, Some(file))
            .line(&format!("7:{minor} / {at} rw - ext4 /dev/loop{minor} rw"))
    }

    fn scan(&self) -> Scan {
        let mounts = parse(self.table.as_bytes()).unwrap();
        let nodev = ["tmpfs", "proc", "overlay", "nfs", "fuse"]
            .map(String::from)
            .into();
        let members = mounts
            .iter()
            .map(|mount| (mount.dev, vec![mount.dev]))
            .collect();
        Scan {
            mounts,
            nodev,
            members,
            devices: self.devices.clone(),
            ..Scan::default()
        }
    }

    fn plan(&self) -> Plan {
        Plan::new(&self.scan(), &Policy::default())
    }

    fn stages(&self) -> Vec<Vec<String>> {
        stages(&self.plan())
    }
}

fn stages(plan: &Plan) -> Vec<Vec<String>> {
    let name = |superblock: &Superblock| superblock.mount_point().display().to_string();
    plan.stages
        .iter()
        .map(|stage| stage.iter().map(name).collect())
        .collect()
}

fn reasons(plan: &Plan) -> Vec<(String, Reason)> {
    plan.left_out
        .iter()
        .map(|left_out| {
            (
                left_out.mount_point().display().to_string(),
                left_out.reason,
            )
        })
        .collect()
}

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
fn what_cannot_be_located_goes_before_all_other_local_ones() {
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
fn a_superblock_is_frozen_once_through_its_best_mount() {
    let guest = Guest::new()
        .disk(1, "/long/mount/point")
        .line("8:1 /file /f rw - ext4 /dev/sd1 rw")
        .line("8:1 / /short ro - ext4 /dev/sd1 rw")
        .line("8:1 /dir /d rw - ext4 /dev/sd1 rw");
    let plan = guest.plan();
    assert_eq!(stages(&plan), [vec!["/short"], vec!["/"]]);
    let points: Vec<_> = plan.stages[0][0]
        .mounts
        .iter()
        .map(|mount| mount.mount_point.to_str().unwrap())
        .collect();
    assert_eq!(points, ["/short", "/long/mount/point", "/d", "/f"]);
}

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
fn reasons_have_codes_for_programs() {
    let guest = Guest::new()
        .line("0:5 / /t rw - tmpfs tmpfs rw")
        .line("8:9 / /ro rw - ext4 /dev/sd9 ro");
    let json = serde_json::to_value(guest.plan()).unwrap();
    assert_eq!(json["superblocks"][0]["stage"], 1);
    assert_eq!(json["left_out"][0]["reason"], "read-only");
    assert_eq!(json["left_out"][1]["reason"], "pseudo");
    assert_eq!(json["left_out"][1]["mounts"][0]["mount_point"], "/t");
}

#[test]
fn ten_thousand_mounts_take_linear_time() {
    let mut guest = Guest::new();
    for index in 1..=5_000_u32 {
        let line = format!("8:1 /{index} /srv/bind/{index} rw - ext4 /dev/sd1 rw");
        guest.table.push_str(&format!("{} 1 {line}\n", 2 * index));
        let line = format!("9:{index} / /mnt/{index} rw - ext4 /dev/md{index} rw");
        guest
            .table
            .push_str(&format!("{} 1 {line}\n", 2 * index + 1));
        guest
            .devices
            .insert(DeviceNumber::new(9, index), BlockDevice::default());
    }
    let scan = guest.scan();
    let start = std::time::Instant::now();
    let plan = Plan::new(&scan, &Policy::default());
    assert_eq!(plan.superblocks().count(), 5_002);
    assert!(
        start.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn an_image_goes_before_all_that_may_hold_it_under_a_later_mount() {
    let mut guest = Guest::new().disk(1, "/a").image(0, "/a/b/img", "/c");
    guest
        .table
        .push_str("4 2 0:50 / /a/b rw - tmpfs tmpfs rw\n");
    assert_eq!(guest.stages(), [vec!["/c"], vec!["/a"], vec!["/"]]);
}

/// A container in which `mounts` are.
fn container(mounts: &str) -> Namespace {
    Namespace {
        process: Process {
            pid: 123,
            name: "web".into(),
        },
        mounts: parse(mounts.as_bytes()).unwrap(),
    }
}

fn elsewhere(scan: &mut Scan, point: &str, dev: DeviceNumber) {
    scan.elsewhere.entry(point.into()).or_default().insert(dev);
}

#[test]
fn what_only_a_container_has_is_opened_through_one_of_its_processes() {
    let mut scan = Guest::new().scan();
    let sdb = DeviceNumber::new(8, 16);
    scan.namespaces.push(container(
        "90 80 0:70 / / rw - overlay overlay rw,upperdir=/up\n91 90 8:16 / /data rw - ext4 /dev/sdb rw\n\
         92 90 8:0 /etc/hosts /etc/hosts rw - ext4 /dev/sd0 rw\n",
    ));
    scan.members.insert(sdb, vec![sdb]);
    scan.devices.insert(sdb, BlockDevice::default());
    let plan = Plan::new(&scan, &Policy::default());
    assert_eq!(stages(&plan), [vec!["/data"], vec!["/"]]);
    let candidate = &plan.stages[0][0].mounts[0];
    assert_eq!(candidate.path(), Path::new("/proc/123/root/data"));
    assert!(candidate.is_open() && candidate.id == 91);
    assert_eq!(plan.stages[1][0].mounts.len(), 1);
    assert_eq!(plan.stages[1][0].mounts[0].path(), Path::new("/"));
    assert_eq!(reasons(&plan), [("/".into(), Reason::Layered)]);

    let excluded: Policy = toml::from_str(r#"exclude_mount_points = ["/data"]"#).unwrap();
    assert_eq!(stages(&Plan::new(&scan, &excluded)), stages(&plan));
}

#[test]
fn what_is_hidden_here_is_opened_where_it_is_not() {
    let mut guest = Guest::new().disk(1, "/a").disk(2, "/b");
    guest.table.push_str("4 2 0:50 / /a rw - tmpfs tmpfs rw\n");
    let mut scan = guest.scan();
    scan.namespaces.push(container(
        "90 0 8:1 / /one rw - ext4 /dev/sd1 rw\n91 0 8:2 / /two rw - ext4 /dev/sd2 rw\n",
    ));
    let plan = Plan::new(&scan, &Policy::default());
    let ways = |index: usize| -> Vec<_> {
        let mounts = plan.stages[0][index].mounts.iter();
        mounts.map(|mount| mount.path().into_owned()).collect()
    };
    assert_eq!(ways(0), [Path::new("/b")]);
    assert_eq!(ways(1), [Path::new("/proc/123/root/one"), Path::new("/a")]);
}

#[test]
fn a_way_over_a_server_is_the_last() {
    let mut guest = Guest::new().line("0:50 / /nfs rw - nfs server:/ rw");
    guest.table.push_str(
        "3 2 8:1 / /nfs/x rw - ext4 /dev/sd1 rw\n4 1 8:1 /d /mnt/long rw - ext4 /dev/sd1 rw\n\
         5 2 8:2 / /nfs/y rw - ext4 /dev/sd2 rw\n",
    );
    let plan = guest.plan();
    let ways: Vec<_> = plan.stages[0]
        .iter()
        .flat_map(|superblock| &superblock.mounts)
        .map(|mount| (mount.id, mount.is_open()))
        .collect();
    assert!(plan.stages[0].len() == 2, "{plan:?}");
    assert_eq!(ways, [(4, true), (3, false), (5, false)]);
}

#[test]
fn an_image_goes_before_all_that_a_container_may_mean_by_its_path() {
    let guest = Guest::new().disk(1, "/a").image(0, "/data/img", "/b");
    assert_eq!(guest.stages(), [vec!["/a", "/b"], vec!["/"]]);
    let mut scan = guest.scan();
    elsewhere(&mut scan, "/data", DeviceNumber::new(8, 1));
    let plan = Plan::new(&scan, &Policy::default());
    assert_eq!(stages(&plan), [vec!["/b"], vec!["/a"], vec!["/"]]);
}

#[test]
fn an_image_that_may_lie_on_a_containers_server_goes_before_all_local_ones() {
    let guest = Guest::new()
        .disk(1, "/a")
        .image(0, "/data/img", "/b")
        .image(1, "/b/img", "/c");
    let mut scan = guest.scan();
    scan.namespaces
        .push(container("90 0 0:60 / /data rw - fuse.x x rw\n"));
    elsewhere(&mut scan, "/data", DeviceNumber::new(0, 60));
    let plan = Plan::new(&scan, &Policy::default());
    assert_eq!(
        stages(&plan),
        [vec!["/c"], vec!["/b"], vec!["/a"], vec!["/"]]
    );
}

#[test]
fn an_image_may_lie_in_a_namespace_that_could_not_be_read() {
    let guest = Guest::new().disk(1, "/a").image(0, "/img", "/b");
    let mut scan = guest.scan();
    scan.unread_processes = 2;
    let plan = Plan::new(&scan, &Policy::default());
    assert_eq!(stages(&plan), [vec!["/b"], vec!["/a"], vec!["/"]]);
    assert!(plan.stages[0][0].beneath_unknown && plan.unread_processes == 2);
}
