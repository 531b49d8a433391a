use super::super::roots::DeviceNodes;
use super::*;

const FILESYSTEMS: &str = "nodev\tproc\nnodev\tnfs\n\text4\n\tbtrfs\n\tfuseblk\nnodev\tfuse\n";

fn roots(mountinfo: &str) -> (tempfile::TempDir, Roots) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("self")).unwrap();
    fs::write(dir.path().join("self/mountinfo"), mountinfo).unwrap();
    fs::write(dir.path().join("filesystems"), FILESYSTEMS).unwrap();
    let nodes = [("/dev/sdb", 16), ("/dev/sdc", 32)]
        .map(|(path, minor)| (path.into(), DeviceNumber::new(8, minor)));
    let roots = Roots {
        proc: dir.path().to_owned(),
        sys: dir.path().join("no-sysfs"),
        dev: DeviceNodes::Listed(nodes.into()),
        ..Roots::default()
    };
    (dir, roots)
}

#[test]
fn only_superblocks_with_blocks_have_members() {
    let (_dir, roots) = roots(
        "1 0 8:1 / / rw - ext4 /dev/root rw\n\
         2 1 0:5 / /proc rw - proc /dev/sdb rw\n\
         3 1 0:6 / /nfs rw - nfs /dev/sdb rw\n\
         4 1 0:7 / /fuse rw - fuse.x /dev/sdb rw\n\
         5 1 0:8 /@ /btrfs rw - btrfs /dev/sdb rw\n",
    );
    let scan = scan_below(&roots).unwrap();
    let expected = [
        (DeviceNumber::new(8, 1), vec![DeviceNumber::new(8, 1)]),
        (DeviceNumber::new(0, 8), vec![DeviceNumber::new(8, 16)]),
    ];
    assert_eq!(scan.members, expected.into());
    assert!(scan.nodev.contains("proc") && !scan.nodev.contains("ext4"));
    assert_eq!(scan.mounts.len(), 5);
}

#[test]
fn devices_named_in_options_are_members() {
    let (_dir, roots) =
        roots("1 0 8:1 / / rw - xfs /dev/sda1 rw,logdev=/dev/sdb,rtdev=/dev/sdc,noquota\n");
    let members = &scan_below(&roots).unwrap().members[&DeviceNumber::new(8, 1)];
    assert_eq!(
        members,
        &[1, 16, 32].map(|minor| DeviceNumber::new(8, minor))
    );
}

#[test]
fn a_path_that_may_block_is_not_looked_up() {
    let (_dir, roots) = roots(
        "1 0 8:1 / / rw - ext4 /dev/root rw\n\
         2 1 0:7 / /dev/sdb rw - fuse.x x rw\n\
         3 1 0:8 / /btrfs rw - btrfs /dev/sdb rw\n",
    );
    assert_eq!(
        scan_below(&roots).unwrap().members[&DeviceNumber::new(0, 8)],
        []
    );
    assert_eq!(roots.dev.resolve(Path::new("/dev/../mnt/sdb")), None);
    assert_eq!(roots.dev.resolve(Path::new("/mnt/sdb")), None);
    assert_eq!(roots.dev.resolve(Path::new("/devel/sdb")), None);
}

#[test]
fn an_unreadable_or_empty_table_is_an_error_that_names_it() {
    let (dir, roots) = roots("1 0 8:1 / / rw - ext4 /dev/root rw\nnonsense\n");
    let text = scan_below(&roots).unwrap_err().to_string();
    assert!(
        text.contains("self/mountinfo: line 2 of the mount table"),
        "{text}"
    );

    fs::write(dir.path().join("self/mountinfo"), "").unwrap();
    assert!(matches!(
        scan_below(&roots),
        Err(ScanError::NoMounts { .. })
    ));

    fs::remove_file(dir.path().join("self/mountinfo")).unwrap();
    assert!(matches!(scan_below(&roots), Err(ScanError::Read { .. })));
}

#[test]
fn this_machine_can_be_scanned() {
    let scan = scan().unwrap();
    assert!(
        scan.mounts
            .iter()
            .any(|mount| mount.mount_point == Path::new("/"))
    );
}

#[test]
fn other_namespaces_can_be_left_alone() {
    let (dir, mut roots) = roots("1 0 8:1 / / rw - ext4 /dev/root rw\n");
    let process = dir.path().join("7");
    fs::create_dir_all(process.join("ns")).unwrap();
    std::os::unix::fs::symlink("mnt:[5]", process.join("ns/mnt")).unwrap();
    fs::write(
        process.join("mountinfo"),
        "9 8 8:16 / / rw - ext4 /dev/sdb rw\n",
    )
    .unwrap();
    assert_eq!(scan_below(&roots).unwrap().all_mounts().count(), 2);
    roots.other_namespaces = false;
    assert_eq!(scan_below(&roots).unwrap().all_mounts().count(), 1);
}

#[test]
fn a_member_that_is_not_found_stays_an_unknown_one() {
    let (_dir, roots) = roots(
        "1 0 8:1 / / rw - xfs /dev/sda1 rw,logdev=/dev/gone\n\
         2 1 0:44 / /pool rw - bcachefs /dev/sdb:/dev/gone rw\n\
         3 1 0:45 / /lost rw - bcachefs /dev/gone:/dev/lost rw\n",
    );
    let members = scan_below(&roots).unwrap().members;
    let unknown = DeviceNumber::new(0, 0);
    assert_eq!(
        members[&DeviceNumber::new(8, 1)],
        [DeviceNumber::new(8, 1), unknown]
    );
    assert_eq!(
        members[&DeviceNumber::new(0, 44)],
        [DeviceNumber::new(8, 16), unknown]
    );
    assert_eq!(members[&DeviceNumber::new(0, 45)], []);
}

#[test]
fn the_numbers_of_subvolumes_are_one_in_all_tables() {
    let line = |id: u32, number: u32, subvolume: u32, point: &str| {
        format!(
            "{id} 1 0:{number} /@{subvolume} {point} rw - btrfs /dev/sdb rw,subvolid={subvolume},subvol=/@{subvolume}\n"
        )
    };
    let (dir, roots) = roots(&(line(5, 40, 256, "/") + &line(6, 41, 257, "/home")));
    let process = dir.path().join("7");
    fs::create_dir_all(process.join("ns")).unwrap();
    std::os::unix::fs::symlink("mnt:[5]", process.join("ns/mnt")).unwrap();
    fs::write(
        process.join("mountinfo"),
        line(9, 77, 300, "/data") + &line(10, 41, 257, "/h"),
    )
    .unwrap();
    let scan = scan_below(&roots).unwrap();
    let numbers: BTreeSet<_> = scan.all_mounts().map(|mount| mount.dev).collect();
    assert_eq!(numbers, [DeviceNumber::new(0, 40)].into());
    let elsewhere: BTreeSet<_> = scan.elsewhere.values().flatten().copied().collect();
    assert_eq!(elsewhere, [DeviceNumber::new(0, 40)].into());
    assert_eq!(scan.members.len(), 1);
}
