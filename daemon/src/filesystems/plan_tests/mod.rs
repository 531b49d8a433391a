//! Plans of made-up guests.

mod containers;
mod order;
mod policy;

use std::collections::BTreeMap;

use super::*;
use crate::filesystems::blockdev::BlockDevice;
use crate::filesystems::device::DeviceNumber;
use crate::filesystems::mountinfo::parse;
use crate::filesystems::reason::Reason;

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
