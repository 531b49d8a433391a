use std::os::unix::fs::symlink;

use super::*;

/// A sysfs with these entries below `fs`, and these block devices.
fn sysfs(entries: &[&str], devices: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for entry in entries {
        fs::create_dir_all(root.path().join("fs").join(entry)).unwrap();
    }
    for (name, number) in devices {
        let device = root.path().join("class/block").join(name);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("dev"), format!("{number}\n")).unwrap();
    }
    root
}

#[test]
fn the_superblocks_of_all_drivers_are_found_and_nothing_else() {
    let root = sysfs(
        &[
            "ext4/features",
            "ext4/sda1",
            "ext4/cciss!c0d0",
            "xfs/stats",
            "xfs/dm-3",
            "f2fs/features",
            "f2fs/tuning",
            "f2fs/sdc",
            "btrfs/features",
            "btrfs/1234-5678/devices",
            "fuse/connections",
        ],
        &[
            ("sda1", "8:1"),
            ("cciss!c0d0", "104:0"),
            ("dm-3", "253:3"),
            ("sdc", "8:32"),
            ("sdd", "8:48"),
            ("sde", "8:64"),
        ],
    );
    let pool = root.path().join("fs/btrfs/1234-5678/devices");
    for name in ["sde", "sdd"] {
        symlink(root.path().join("class/block").join(name), pool.join(name)).unwrap();
    }
    let found = all(root.path());
    let found: Vec<(&str, &str, &str, usize)> = found
        .iter()
        .map(|live| {
            let text = |text: &'_ OsString| text.to_str().unwrap().to_owned().leak() as &str;
            let dev = live.dev().unwrap().to_string().leak() as &str;
            (live.driver, text(&live.source), dev, live.devices.len())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("ext4", "/dev/cciss/c0d0", "104:0", 1),
            ("ext4", "/dev/sda1", "8:1", 1),
            ("xfs", "/dev/dm-3", "253:3", 1),
            ("btrfs", "/dev/sdd", "8:48", 2),
            ("f2fs", "/dev/sdc", "8:32", 1),
        ]
    );
    let second = find(root.path(), "btrfs", DeviceNumber::new(8, 64)).unwrap();
    assert_eq!(second.unwrap().name, "1234-5678");
    let old = find(root.path(), "ext2", DeviceNumber::new(8, 1)).unwrap();
    assert_eq!(old.unwrap().name, "sda1", "the ext4 driver serves ext2");
    assert_eq!(
        find(root.path(), "xfs", DeviceNumber::new(8, 1)).unwrap(),
        None
    );
    assert!(find(root.path(), "jfs", DeviceNumber::new(8, 1)).is_err());
}

#[test]
fn one_whose_device_has_gone_is_live_all_the_same() {
    let root = sysfs(&["ext4/sdb"], &[]);
    let found = all(root.path());
    assert_eq!(found.len(), 1);
    assert_eq!(found.first().unwrap().dev(), None);
}

#[test]
fn a_superblock_that_is_mounted_anew_has_another_entry() {
    let root = sysfs(&["xfs/sda"], &[("sda", "8:0")]);
    let entry = || {
        let live = find(root.path(), "xfs", DeviceNumber::new(8, 0)).unwrap();
        live.unwrap().entry
    };
    let before = entry();
    assert_eq!(entry(), before);
    // The old one is kept, so that its inode is not given out again.
    let place = root.path().join("fs/xfs/sda");
    fs::rename(&place, root.path().join("old")).unwrap();
    fs::create_dir(&place).unwrap();
    assert_ne!(entry(), before);
}

#[test]
fn the_policy_is_asked_about_what_is_added() {
    let may = |policy: &str| {
        let policy: Policy = toml::from_str(policy).unwrap();
        policy.may_include_live("ext4", "sdb")
    };
    assert!(may(""));
    assert!(!may(r#"exclude_types = ["ext4"]"#));
    assert!(may(r#"exclude_types = ["xfs"]"#));
    assert!(!may(r#"exclude_devices = ["/dev/sdb"]"#));
    assert!(!may(r#"exclude_devices = ["sdb"]"#));
    assert!(!may(r#"include_mount_points = ["/"]"#));
    assert!(may(r#"include_types = ["ext4"]"#));
    // The device's other names are not known here: a new plan tells.
    assert!(may(r#"include_devices = ["/dev/mapper/data"]"#));
    assert!(!may("flush_only = true"));
}
