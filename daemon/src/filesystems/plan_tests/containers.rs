//! What is mounted in other mount namespaces, or only there.

use std::path::Path;

use super::{Guest, reasons, stages};
use crate::filesystems::blockdev::BlockDevice;
use crate::filesystems::device::DeviceNumber;
use crate::filesystems::mountinfo::parse;
use crate::filesystems::namespaces::Namespace;
use crate::filesystems::plan::Plan;
use crate::filesystems::policy::Policy;
use crate::filesystems::processes::Process;
use crate::filesystems::reason::Reason;
use crate::filesystems::scan::Scan;

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
