use std::cell::RefCell;
use std::os::unix::fs::symlink;

use super::*;

/// A sysfs in a directory of its own.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, path: &str, content: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
    }

    fn device(&self, dir: &str, number: &str) {
        self.file(&format!("{dir}/dev"), format!("{number}\n").as_bytes());
        self.link(&format!("dev/block/{number}"), &format!("../../{dir}"));
    }

    fn load(&self, dev: DeviceNumber) -> BTreeMap<DeviceNumber, BlockDevice> {
        let behind_loop = |name: &str, dev: DeviceNumber, path: &Path| match path.to_str() {
            Some("/dev/sdz" | "/run/node") => Behind::Device(DeviceNumber::new(65, 144)),
            Some("/elsewhere") => Behind::Unknown,
            _ => {
                assert_eq!((name, dev), ("loop0", LOOP));
                Behind::File(Some(DeviceNumber::new(8, 1)))
            }
        };
        let mut sysfs = Sysfs::new(self.0.path(), &behind_loop);
        sysfs.load(dev);
        sysfs.into_devices()
    }
}

const LOOP: DeviceNumber = DeviceNumber::new(7, 0);

fn backing(content: &[u8]) -> BlockDevice {
    let tree = Tree::new();
    tree.device("devices/virtual/block/loop0", "7:0");
    tree.file("devices/virtual/block/loop0/loop/backing_file", content);
    tree.load(LOOP).remove(&LOOP).unwrap()
}

#[test]
fn a_stack_is_followed_to_the_disk() {
    let tree = Tree::new();
    tree.device("devices/pci/block/sda", "8:0");
    tree.device("devices/pci/block/sda/sda2", "8:2");
    tree.file("devices/pci/block/sda/sda2/partition", b"2\n");
    tree.device("devices/virtual/block/md0", "9:0");
    tree.link(
        "devices/virtual/block/md0/slaves/sda2",
        "../../../../pci/block/sda/sda2",
    );
    tree.device("devices/virtual/block/dm-1", "253:1");
    tree.link("devices/virtual/block/dm-1/slaves/md0", "../../md0");

    let devices = tree.load(DeviceNumber::new(253, 1));

    let below = |major, minor| devices[&DeviceNumber::new(major, minor)].below.clone();
    assert_eq!(below(253, 1), [DeviceNumber::new(9, 0)]);
    assert_eq!(below(9, 0), [DeviceNumber::new(8, 2)]);
    assert_eq!(below(8, 2), [DeviceNumber::new(8, 0)]);
    assert_eq!(below(8, 0), []);
    assert!(devices.values().all(|device| !device.incomplete));
}

#[test]
fn a_partition_is_served_when_its_disk_is() {
    let tree = Tree::new();
    tree.device("devices/virtual/block/nbd0", "43:0");
    tree.device("devices/virtual/block/nbd0/nbd0p1", "43:1");
    tree.file("devices/virtual/block/nbd0/nbd0p1/partition", b"1\n");
    let partition = DeviceNumber::new(43, 1);
    assert_eq!(tree.load(partition)[&partition].served, Some(ServedBy::Nbd));
}

#[test]
fn a_loop_device_names_its_file_whatever_its_bytes() {
    assert_eq!(backing(b"/a b\n").backing_file, Some("/a b".into()));
    assert_eq!(backing(b"/a\n\n").backing_file, Some("/a\n".into()));
    assert_eq!(backing(b"/a (deleted)\n").backing_file, Some("/a".into()));
    let odd = backing(b"/\xff\n").backing_file.unwrap();
    assert_eq!(odd, PathBuf::from(OsString::from_vec(b"/\xff".to_vec())));
}

#[test]
fn a_loop_device_on_a_device_stands_on_that() {
    let device = backing(b"/dev/sdz\n");
    assert_eq!(device.below, [DeviceNumber::new(65, 144)]);
    assert_eq!(device.backing_file, None);
    assert!(!device.incomplete);
}

#[test]
fn a_loop_device_without_a_file_is_incomplete() {
    let tree = Tree::new();
    tree.device("devices/virtual/block/loop0", "7:0");
    assert!(tree.load(LOOP)[&LOOP].incomplete);
    assert!(backing(b"\n").incomplete);
}

#[test]
fn nvme_multipath_is_served_unless_all_its_paths_are_pcie() {
    let disk = DeviceNumber::new(259, 0);
    for (transports, served) in [
        (&["pcie"][..], None),
        (&["pcie", "pcie"], None),
        (&["tcp"], Some(ServedBy::NvmeFabrics)),
        (&["pcie", "rdma"], Some(ServedBy::NvmeFabrics)),
    ] {
        let tree = Tree::new();
        let subsystem = "devices/virtual/nvme-subsystem/nvme-subsys0";
        tree.device(&format!("{subsystem}/nvme0n1"), "259:0");
        for (index, transport) in transports.iter().enumerate() {
            let controller = format!("devices/pci/nvme/nvme{index}");
            tree.file(
                &format!("{controller}/transport"),
                format!("{transport}\n").as_bytes(),
            );
            tree.link(
                &format!("{subsystem}/nvme{index}"),
                &format!("../../../../{controller}"),
            );
        }
        assert_eq!(tree.load(disk)[&disk].served, served, "{transports:?}");
    }
}

#[test]
fn btrfs_members_are_found_by_any_of_them() {
    let tree = Tree::new();
    for (disk, number) in [("sdb", "8:16"), ("sdc", "8:32")] {
        tree.device(&format!("devices/pci/block/{disk}"), number);
        tree.link(
            &format!("fs/btrfs/0b1e/devices/{disk}"),
            &format!("../../../../devices/pci/block/{disk}"),
        );
    }
    tree.file("fs/btrfs/features/raid56", b"0\n");
    let mut sysfs = Sysfs::new(tree.0.path(), &|_, _, _| Behind::Unknown);
    let both = Some(vec![DeviceNumber::new(8, 16), DeviceNumber::new(8, 32)]);
    assert_eq!(sysfs.btrfs_members(DeviceNumber::new(8, 32)), both);
    assert_eq!(sysfs.btrfs_members(DeviceNumber::new(8, 48)), None);
}

#[test]
fn bcachefs_members_are_found_by_any_of_them() {
    let tree = Tree::new();
    for (place, disk, number) in [("dev-0", "sdb", "8:16"), ("dev-1", "sdc", "8:32")] {
        tree.device(&format!("devices/pci/block/{disk}"), number);
        tree.link(
            &format!("fs/bcachefs/0b1e/{place}/block"),
            &format!("../../../../devices/pci/block/{disk}"),
        );
    }
    tree.file("fs/bcachefs/0b1e/internal/flags", b"0\n");
    let mut sysfs = Sysfs::new(tree.0.path(), &|_, _, _| Behind::Unknown);
    let both = Some(vec![DeviceNumber::new(8, 16), DeviceNumber::new(8, 32)]);
    assert_eq!(sysfs.bcachefs_members(DeviceNumber::new(8, 32)), both);
    assert_eq!(sysfs.bcachefs_members(DeviceNumber::new(8, 48)), None);
    assert_eq!(sysfs.btrfs_members(DeviceNumber::new(8, 32)), None);
}

#[test]
fn a_device_that_does_not_tell_what_it_lies_on_is_incomplete() {
    for (name, is_opaque) in [
        ("zd0", true),
        ("zd16", true),
        ("zloop3", true),
        ("zram0", false),
        ("zd", false),
    ] {
        let tree = Tree::new();
        let dev = DeviceNumber::new(230, 0);
        tree.device(&format!("devices/virtual/block/{name}"), "230:0");
        assert_eq!(
            tree.load(dev).remove(&dev).unwrap().incomplete,
            is_opaque,
            "{name}"
        );
    }
    // A partition has its disk beneath.
    let tree = Tree::new();
    tree.device("devices/virtual/block/zd0", "230:0");
    tree.device("devices/virtual/block/zd0/zd0p1", "230:1");
    tree.file("devices/virtual/block/zd0/zd0p1/partition", b"1\n");
    let devices = tree.load(DeviceNumber::new(230, 1));
    assert_eq!(
        devices.values().filter(|device| device.incomplete).count(),
        1
    );
    assert_eq!(devices.len(), 2);
}

#[test]
fn a_loop_over_a_node_anywhere_has_that_device_beneath() {
    let found = backing(b"/run/node\n");
    assert_eq!(found.below, [DeviceNumber::new(65, 144)]);
    assert_eq!((found.backing_file, found.incomplete), (None, false));
    assert_eq!(found.backing_on, None);
    assert_eq!(backing(b"/a\n").backing_on, Some(DeviceNumber::new(8, 1)));
    let found = backing(b"/elsewhere\n");
    assert_eq!(found.backing_file, Some(PathBuf::from("/elsewhere")));
    assert!(found.incomplete, "nobody tells");
}

#[test]
fn an_unknown_device_and_a_circle_are_no_error() {
    assert!(Tree::new().load(LOOP).is_empty());
    let tree = Tree::new();
    tree.device("devices/virtual/block/dm-0", "253:0");
    tree.device("devices/virtual/block/dm-1", "253:1");
    tree.link("devices/virtual/block/dm-0/slaves/dm-1", "../../dm-1");
    tree.link("devices/virtual/block/dm-1/slaves/dm-0", "../../dm-0");
    assert_eq!(tree.load(DeviceNumber::new(253, 0)).len(), 2);
}

#[test]
fn each_file_is_read_once() {
    let tree = Tree::new();
    tree.device("devices/virtual/block/loop0", "7:0");
    tree.file("devices/virtual/block/loop0/loop/backing_file", b"/a\n");
    let asked = RefCell::new(0);
    let behind_loop = |_: &str, _: DeviceNumber, _: &Path| {
        *asked.borrow_mut() += 1;
        Behind::File(None)
    };
    let mut sysfs = Sysfs::new(tree.0.path(), &behind_loop);
    sysfs.load(LOOP);
    sysfs.load(LOOP);
    assert_eq!(*asked.borrow(), 1);
}
