//! The plan made ahead: used again while the mount table stays what it was, made anew when it changed. Nothing is frozen.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scratch;

use std::fs;
use std::path::Path;

use hv_vssd::filesystems::{DeviceNumber, Plan};
use hv_vssd::quiesce::backend::Target;
use hv_vssd::quiesce::handle::Handle;
use hv_vssd::quiesce::{Backend, Kernel};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use scratch::{Disk, bind, in_namespace, mount_on, mounts_at, until};

const NONE: Option<&str> = None;

/// Bytes that this process has read so far (`rchar` of man 5 proc), those of this question not counted.
fn bytes_read() -> usize {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let count = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    count.unwrap().parse().unwrap()
}

/// What `work` reads, and the size of the table that it should or should not read.
fn reads<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = bytes_read();
    let again = bytes_read();
    let result = work();
    // The question itself reads the same each time, but for a digit.
    let question = again - before;
    ((bytes_read() - again).saturating_sub(question + 16), result)
}

fn table_size() -> usize {
    fs::read("/proc/self/mountinfo").unwrap().len()
}

fn has(plan: &Plan, dev: DeviceNumber) -> bool {
    plan.superblocks().any(|superblock| superblock.dev == dev)
}

fn open(kernel: &Kernel, plan: &Plan, dev: DeviceNumber) -> Handle {
    let superblock = plan.superblocks().find(|found| found.dev == dev).unwrap();
    kernel.open(&Target::from(superblock)).unwrap()
}

fn directory(place: &Path, name: &str) -> std::path::PathBuf {
    let directory = place.join(name);
    fs::create_dir(&directory).unwrap();
    directory
}

/// Whether a freeze would begin anew.
fn has_appeared(kernel: &Kernel) -> bool {
    kernel
        .appeared()
        .map_or(true, |appeared| !appeared.to_freeze.is_empty())
}

#[test]
fn a_plan_made_ahead_is_used_once_and_no_table_is_read_for_it() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let kernel = Kernel::of_own_namespace();
        let (ahead, result) = reads(|| kernel.foresee());
        result.unwrap();
        assert!(ahead >= table_size(), "{ahead} bytes read");
        let (again, plan) = reads(|| kernel.plan());
        assert!(again < table_size() / 4, "{again} bytes read");
        assert!(has(&plan.unwrap(), disk.dev));
        // It was handed over: the next one is made anew.
        let (anew, plan) = reads(|| kernel.plan());
        assert!(anew >= table_size(), "{anew} bytes read");
        assert!(has(&plan.unwrap(), disk.dev));
    });
}

#[test]
fn a_mount_or_an_unmount_in_between_makes_a_new_plan() {
    in_namespace(|place| {
        let kernel = Kernel::of_own_namespace();
        kernel.foresee().unwrap();
        let disk = Disk::new(place, "disk", "ext4");
        assert!(has(&kernel.plan().unwrap(), disk.dev));
        kernel.foresee().unwrap();
        disk.umount().unwrap();
        assert!(!has(&kernel.plan().unwrap(), disk.dev));
        kernel.foresee().unwrap();
        mount_on(disk.device(), &disk.mount_point, "ext4");
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        kernel.foresee().unwrap();
        mount(NONE, &disk.mount_point, NONE, flags, NONE).unwrap();
        assert!(!has(&kernel.plan().unwrap(), disk.dev), "it is read-only");
    });
}

#[test]
fn a_mount_in_another_namespace_makes_a_new_plan() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        disk.umount().unwrap();
        let kernel = Kernel::default();
        kernel.foresee().unwrap();
        let script = format!(
            "mount {} {}; echo ready; read end || true",
            disk.device().display(),
            disk.mount_point.display()
        );
        let mut container = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", &script])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        until("the disk to be planned", || {
            let plan = kernel.plan().unwrap();
            kernel.foresee().unwrap();
            has(&plan, disk.dev)
        });
        drop(container.stdin.take());
        container.wait().unwrap();
    });
}

/// Mount tables that this process has open.
fn open_tables() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets
        .filter(|target| target.ends_with("mountinfo"))
        .count()
}

#[test]
fn tables_of_other_namespaces_are_open_as_long_as_a_checkpoint() {
    in_namespace(|_| {
        let kernel = Kernel::default();
        let mut container = std::process::Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                "read end || true",
            ])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let open = |kernel: &Kernel| {
            kernel.plan().unwrap();
            open_tables()
        };
        // Our own is kept; that of the container comes when it has begun.
        until("a table of another namespace", || open(&kernel) > 1);
        has_appeared(&kernel);
        assert!(
            open_tables() > 1,
            "closing the last way to a namespace unmounts what is there"
        );
        drop(kernel.let_go());
        assert_eq!(open_tables(), 1);
        assert!(kernel.let_go().is_none());
        drop(container.stdin.take());
        container.wait().unwrap();
    });
}

#[test]
fn only_a_file_system_that_a_plan_would_freeze_appears() {
    in_namespace(|place| {
        let known = Disk::new(place, "known", "xfs");
        let kernel = Kernel::of_own_namespace();
        assert!(has_appeared(&kernel), "nothing is known without a plan");
        kernel.plan().unwrap();
        assert!(!has_appeared(&kernel));
        bind(&known.mount_point, &directory(place, "bind"));
        assert!(!has_appeared(&kernel), "a bind mount");
        let tmpfs = Some("tmpfs");
        mount(
            tmpfs,
            &directory(place, "tmpfs"),
            tmpfs,
            MsFlags::empty(),
            NONE,
        )
        .unwrap();
        assert!(!has_appeared(&kernel), "a tmpfs");
        let new = Disk::new(place, "new", "ext4");
        assert!(has_appeared(&kernel), "a new disk");
        // Not yet planned, and still there: but told once, for what changed. The next plan has it.
        assert!(has(&kernel.plan().unwrap(), new.dev));
        assert!(!has_appeared(&kernel));
        // One that came and went was never part of the image.
        let gone = Disk::new(place, "gone", "ext4");
        gone.umount().unwrap();
        assert!(!has_appeared(&kernel), "a disk that has gone again");
    });
}

#[test]
fn a_disk_that_becomes_writable_appears() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let set = |flags| {
            let flags = MsFlags::MS_REMOUNT | flags;
            mount(NONE, &disk.mount_point, NONE, flags, NONE).unwrap();
        };
        set(MsFlags::MS_RDONLY);
        let kernel = Kernel::of_own_namespace();
        assert!(!has(&kernel.plan().unwrap(), disk.dev));
        set(MsFlags::empty());
        assert!(has_appeared(&kernel));
    });
}

#[test]
fn what_was_opened_is_settled_until_its_mount_id_means_another_disk() {
    in_namespace(|place| {
        // The other one is known to the plan, so that it does not count as one that appeared.
        let (disk, other) = (
            Disk::new(place, "disk", "ext4"),
            Disk::new(place, "other", "ext4"),
        );
        let kernel = Kernel::of_own_namespace();
        assert!(!kernel.is_settled(&[]), "without a plan");
        let plan = kernel.plan().unwrap();
        let handle = open(&kernel, &plan, disk.dev);
        assert!(kernel.is_settled(&[&handle]));
        let view = directory(place, "bind");
        bind(&disk.mount_point, &view);
        assert!(kernel.is_settled(&[&handle]), "a bind mount");
        umount2(&view, MntFlags::empty()).unwrap();
        disk.umount().unwrap();
        assert!(kernel.is_settled(&[&handle]), "gone, and still held");
        // The lowest free number is given to the next mount: of this test, or of whoever else mounts just now.
        let places: Vec<_> = (0..8)
            .map(|number| directory(place, &format!("place-{number}")))
            .collect();
        let mut taken = None;
        until("the number to be given again", || {
            mount_on(disk.device(), &disk.mount_point, "ext4");
            let handle = open(&kernel, &kernel.plan().unwrap(), disk.dev);
            let id = handle.mount_id().unwrap();
            disk.umount().unwrap();
            // It is free only after a moment.
            let given = (0..50).any(|_| {
                for place in &places {
                    mount_on(other.device(), place, "ext4");
                }
                let given = places.iter().any(|place| mounts_at(place)[0].0 == id);
                if !given {
                    for place in &places {
                        umount2(place, MntFlags::empty()).unwrap();
                    }
                }
                given
            });
            taken = given.then_some(handle);
            given
        });
        assert!(!kernel.is_settled(&[&taken.unwrap()]));
    });
}

#[test]
fn a_disk_that_appears_while_others_are_opened_unsettles_the_plan() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "btrfs");
        let kernel = Kernel::of_own_namespace();
        let plan = kernel.plan().unwrap();
        let handle = open(&kernel, &plan, disk.dev);
        let new = Disk::new(place, "new", "xfs");
        assert!(!kernel.is_settled(&[&handle]));
        assert!(has(&kernel.plan().unwrap(), new.dev));
        assert!(kernel.is_settled(&[&handle]));
    });
}
