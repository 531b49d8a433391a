//! The engine with the real kernel on scratch disks: writers sleep while held and go on after, images on images included.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scratch;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hv_vssd::filesystems::{DeviceNumber, Plan, Policy, devices_at, locate, planned_at};
use hv_vssd::quiesce::{Backend, Engine, FreezeError, Limits};
use hv_vssd::telemetry::Gate;
use hvutil_sys::loopdev::LoopDevice;
use hvutil_sys::{freeze, mount};
use nix::mount::{MntFlags, MsFlags, mount as remount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use scratch::{Disk, PATIENCE, ScratchKernel, bind, in_namespace, mount_on, mounts_at, until};

fn engine(disks: &[&Disk]) -> Engine<ScratchKernel> {
    let limits = Limits {
        flush: PATIENCE,
        freeze: PATIENCE,
        hold: PATIENCE,
    };
    Engine::new(
        ScratchKernel::new(disks),
        limits,
        Gate::new(std::io::stderr()),
    )
}

fn stages(plan: &Plan) -> Vec<Vec<DeviceNumber>> {
    plan.stages
        .iter()
        .map(|stage| stage.iter().map(|superblock| superblock.dev).collect())
        .collect()
}

/// Counts what it has written; never waited for, as nobody can end it while its disk is frozen.
fn start_writer(directory: &Path) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let (theirs, file) = (Arc::clone(&count), directory.join("written"));
    thread::spawn(move || {
        let file = File::create(file).unwrap();
        while file.write_all_at(b"a record", 0).is_ok() && file.sync_data().is_ok() {
            theirs.fetch_add(1, Ordering::SeqCst);
        }
    });
    count
}

#[test]
fn writers_sleep_in_a_hold_and_go_on_after_the_thaw() {
    in_namespace(|place| {
        let disks = ["ext4", "xfs", "btrfs"].map(|fstype| Disk::new(place, fstype, fstype));
        let disks: Vec<&Disk> = disks.iter().collect();
        let counts: Vec<_> = disks
            .iter()
            .map(|disk| start_writer(&disk.mount_point))
            .collect();
        let read = || -> Vec<u64> {
            counts
                .iter()
                .map(|count| count.load(Ordering::SeqCst))
                .collect()
        };
        until("all writers to write", || {
            read().iter().all(|count| *count > 3)
        });
        let mut engine = engine(&disks);
        for _ in 0..3 {
            engine.freeze().unwrap();
            assert!(disks.iter().all(|disk| disk.is_frozen()));
            let before = read();
            // Reading works meanwhile, and takes longer than many a write.
            for disk in &disks {
                assert!(fs::read_dir(&disk.mount_point).unwrap().count() > 0);
                let name = disk.mount_point.join("written");
                for _ in 0..2_000 {
                    fs::metadata(&name).unwrap();
                }
            }
            // The one record that was written, but not counted yet, when the freeze came.
            let written = read()
                .iter()
                .zip(&before)
                .map(|(now, then)| now - then)
                .max();
            assert!(written <= Some(1), "{written:?} written in the hold");
            let report = engine.thaw().unwrap();
            assert!(report.is_clean(), "{:?}", report.failures);
            assert_eq!(report.file_systems.len(), 3);
            until("all writers to go on", || {
                read()
                    .iter()
                    .zip(&before)
                    .all(|(now, then)| *now > then + 2)
            });
        }
    });
}

#[test]
fn an_image_on_a_disk_is_frozen_before_the_disk_and_thawed_after_it() {
    in_namespace(|place| {
        let outer = Disk::new(place, "outer", "xfs");
        let inner = Disk::with_image(&outer.mount_point, place, "inner", "ext4");
        let plan = ScratchKernel::new(&[&outer, &inner]).plan().unwrap();
        assert_eq!(stages(&plan), [[inner.dev], [outer.dev]]);
        let writer = start_writer(&inner.mount_point);
        until("a write", || writer.load(Ordering::SeqCst) > 3);
        let mut engine = engine(&[&outer, &inner]);
        engine.freeze().unwrap();
        let before = writer.load(Ordering::SeqCst);
        let report = engine.thaw().unwrap();
        assert!(report.is_clean(), "{:?}", report.failures);
        assert!(!inner.is_frozen() && !outer.is_frozen());
        until("the writer to go on", || {
            writer.load(Ordering::SeqCst) > before + 2
        });
        // Its writer still has it open.
        std::process::exit(0);
    });
}

#[test]
fn a_writable_disk_of_which_only_a_read_only_bind_is_left_is_frozen() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let view = place.join("view");
        fs::create_dir(&view).unwrap();
        bind(&disk.mount_point, &view);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        remount(None::<&str>, &view, None::<&str>, flags, None::<&str>).unwrap();
        disk.umount().unwrap();
        let mut engine = engine(&[&disk]);
        engine.freeze().unwrap();
        assert!(disk.is_frozen());
        assert!(engine.thaw().unwrap().is_clean());
    });
}

#[test]
fn a_disk_mounted_at_many_places_is_frozen_once() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "btrfs");
        let subvolume = disk.mount_point.join("sub");
        fs::create_dir(&subvolume).unwrap();
        for name in ["a", "b", "c"] {
            let view = place.join(name);
            fs::create_dir(&view).unwrap();
            bind(&subvolume, &view);
        }
        let plan = ScratchKernel::new(&[&disk]).plan().unwrap();
        assert_eq!(stages(&plan), [[disk.dev]]);
        assert_eq!(plan.superblocks().next().unwrap().mounts.len(), 4);
        let mut engine = engine(&[&disk]);
        engine.freeze().unwrap();
        assert!(disk.is_frozen());
        let report = engine.thaw().unwrap();
        assert!(report.is_clean());
        assert_eq!(report.file_systems.len(), 1);
    });
}

#[test]
fn a_loop_over_a_node_outside_dev_stands_on_what_holds_that_device() {
    in_namespace(|place| {
        let outer = Disk::new(place, "outer", "ext4");
        let middle = outer.mount_point.join("image");
        File::create(&middle).unwrap().set_len(64 << 20).unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .open(&middle)
            .unwrap();
        let device = LoopDevice::attach(&file).unwrap();
        let number = fs::metadata(device.path()).unwrap().rdev();
        let node = place.join("node.ext4");
        mknod(&node, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number).unwrap();
        let inner = Disk::on(place, "inner", "ext4", &node);
        // Its name tells nothing any more, and leads astray.
        fs::remove_file(&node).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", &node).unwrap();
        let plan = ScratchKernel::new(&[&outer, &inner]).plan().unwrap();
        assert_eq!(stages(&plan), [[inner.dev], [outer.dev]]);
        assert_eq!(plan.superblocks().next().unwrap().stacked_on, [outer.dev]);
        let mut engine = engine(&[&outer, &inner]);
        engine.freeze().unwrap();
        assert!(engine.thaw().unwrap().is_clean());
        assert!(!inner.is_frozen() && !outer.is_frozen());
    });
}

#[test]
fn an_image_at_whose_path_another_file_stands_is_placed_by_number() {
    in_namespace(|place| {
        let outer = Disk::new(place, "outer", "ext4");
        // Set up under a path that leads elsewhere afterwards, as one of a container does.
        let view = place.join("view");
        fs::create_dir(&view).unwrap();
        bind(&outer.mount_point, &view);
        let inner = Disk::with_image(&view, place, "inner", "ext4");
        umount2(&view, MntFlags::MNT_DETACH).unwrap();
        let plan = ScratchKernel::new(&[&outer, &inner]).plan().unwrap();
        assert_eq!(stages(&plan), [[inner.dev], [outer.dev]]);
        assert_eq!(plan.superblocks().next().unwrap().stacked_on, [outer.dev]);
    });
}

/// The mount table as SUSE's kernels print it: with the number that `stat` has for its subvolume, in place of the superblock's, for each btrfs. It takes the
/// place of this process's own.
fn print_numbers_of_subvolumes(place: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut printed = String::new();
    for line in table.lines() {
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if line.contains(&format!(" {}", place.display())) && line.contains(" - btrfs ") {
            let number = fs::metadata(&fields[4]).unwrap().dev();
            fields[2] = DeviceNumber::from_raw(number).to_string();
        }
        printed += &(fields.join(" ") + "\n");
    }
    let file = place.join("mountinfo");
    fs::write(&file, &printed).unwrap();
    let own = format!("/proc/{}/mountinfo", std::process::id());
    bind(&file, Path::new(&own));
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), printed);
    printed
}

#[test]
fn a_btrfs_with_a_number_for_each_subvolume_is_frozen_once() {
    in_namespace(|place| {
        let mut disk = Disk::new(place, "disk", "btrfs");
        for name in ["a", "b"] {
            let made = Command::new("btrfs")
                .args(["-q", "subvolume", "create"])
                .arg(disk.mount_point.join(name))
                .status()
                .unwrap();
            assert!(made.success());
            let view = place.join(name);
            fs::create_dir(&view).unwrap();
            let options = Some(format!("subvol={name}"));
            let flags = MsFlags::empty();
            let (device, fstype) = (Some(disk.device()), Some("btrfs"));
            remount(device, &view, fstype, flags, options.as_deref()).unwrap();
        }
        let table = print_numbers_of_subvolumes(place);
        let of_disk = mounts_at(&disk.mount_point)[0].1;
        let lines: Vec<&str> = table
            .lines()
            .filter(|line| line.contains(" - btrfs "))
            .collect();
        let numbers: BTreeSet<&str> = lines
            .iter()
            .filter_map(|line| line.split(' ').nth(2))
            .collect();
        assert!(numbers.len() >= 3, "{table}");
        disk.dev = of_disk;
        // By a path, as `hv-vssd freeze` and `hv-vssd thaw` are told of it.
        let paths = ["disk-mounted", "a", "b"].map(|name| place.join(name));
        assert_eq!(devices_at(&paths).unwrap(), [disk.dev]);
        assert_eq!(planned_at(&paths, &Policy::default()).unwrap(), [disk.dev]);
        let located = locate(&paths, PATIENCE).unwrap();
        assert!(
            located
                .iter()
                .all(|found| found.as_ref().unwrap().dev == disk.dev)
        );

        let plan = ScratchKernel::new(&[&disk]).plan().unwrap();
        assert_eq!(stages(&plan), [[disk.dev]]);
        assert_eq!(plan.superblocks().next().unwrap().mounts.len(), 3);
        let mut engine = engine(&[&disk]);
        for _ in 0..2 {
            engine.freeze().unwrap();
            assert!(disk.is_frozen());
            let report = engine.thaw().unwrap();
            assert!(report.is_clean(), "{:?}", report.failures);
            assert_eq!(report.file_systems.len(), 1);
        }
    });
}

#[test]
fn unmounting_moving_and_covering_in_a_hold_leaves_nothing_frozen() {
    in_namespace(|place| {
        let disks = ["gone", "moved", "covered"].map(|name| Disk::new(place, name, "ext4"));
        let disks: Vec<&Disk> = disks.iter().collect();
        let mut engine = engine(&disks);
        engine.freeze().unwrap();
        const NONE: Option<&str> = None;
        disks[0].umount().unwrap();
        let elsewhere = place.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let from = Some(&disks[1].mount_point);
        remount(from, &elsewhere, NONE, MsFlags::MS_MOVE, NONE).unwrap();
        let cover = Some("tmpfs");
        let empty = MsFlags::empty();
        remount(cover, &disks[2].mount_point, cover, empty, NONE).unwrap();
        let report = engine.thaw().unwrap();
        assert!(report.is_clean(), "{:?}", report.failures);
        assert!(disks.iter().all(|disk| !disk.is_frozen()));
        mount_on(disks[0].device(), &disks[0].mount_point, "ext4");
        fs::write(disks[0].mount_point.join("file"), "").unwrap();
        fs::write(elsewhere.join("file"), "").unwrap();
        nix::mount::umount(&elsewhere).unwrap();
    });
}

#[test]
fn what_an_administrator_froze_fails_the_freeze_and_stays_frozen() {
    in_namespace(|place| {
        let (ours, theirs) = (
            Disk::new(place, "ours", "ext4"),
            Disk::new(place, "theirs", "xfs"),
        );
        let administrator = File::open(&theirs.mount_point).unwrap();
        freeze::freeze(&administrator).unwrap();
        let mut engine = engine(&[&ours, &theirs]);
        let error = engine.freeze().unwrap_err();
        assert!(matches!(error, FreezeError::Foreign(_)), "{error:?}");
        assert!(error.to_string().contains("theirs-mounted"), "{error}");
        assert!(!ours.is_frozen());
        drop(engine);
        assert!(theirs.is_frozen());
        freeze::thaw(&administrator).unwrap();
    });
}

#[test]
fn a_disk_that_someone_thawed_in_the_hold_is_told() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let mut engine = engine(&[&disk]);
        engine.freeze().unwrap();
        let root = mount::open_root(File::open(&disk.mount_point).unwrap()).unwrap();
        freeze::thaw(&root).unwrap();
        let report = engine.thaw().unwrap();
        assert!(!report.is_clean());
        assert!(report.failures[0].contains("someone else"));
    });
}

/// A shell's child that sleeps in splice(2) from a silent pipe to a file: its input comes when the test says so.
struct Sleeper {
    child: std::process::Child,
    file: std::path::PathBuf,
}

/// Says that the test binary was started as the program that sleeps.
const SLEEPER: &str = "HV_VSSD_TEST_SLEEPER";

/// Not a test: what a test starts.
#[test]
fn a_program_that_sleeps_in_splice() {
    use std::os::fd::AsFd;
    if std::env::var_os(SLEEPER).is_some() {
        let copy = |fd: std::os::fd::BorrowedFd<'_>| File::from(fd.try_clone_to_owned().unwrap());
        let (mut input, mut output) = (
            copy(std::io::stdin().as_fd()),
            copy(std::io::stderr().as_fd()),
        );
        std::io::copy(&mut input, &mut output).unwrap();
    }
}

impl Sleeper {
    fn start(directory: &Path) -> Self {
        let file = directory.join("out");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_program_that_sleeps_in_splice", "--nocapture"])
            .env(SLEEPER, "yes")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(File::create(&file).unwrap())
            .spawn()
            .unwrap();
        let pid = child.id();
        until("it to sleep in splice", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
            let mut calls =
                tasks.filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok());
            calls.any(|call| call.starts_with(&format!("{} ", libc::SYS_splice)))
        });
        Self { child, file }
    }

    fn goes_on(mut self) {
        use std::io::Write;
        assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
        let mut input = self.child.stdin.take().unwrap();
        input.write_all(b"all of it").unwrap();
        drop(input);
        until("its end", || self.child.try_wait().unwrap().is_some());
        assert_eq!(fs::read_to_string(&self.file).unwrap(), "all of it");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sleeping_splice_is_interrupted_and_the_freeze_goes_through() {
    in_namespace(|place| {
        for fstype in ["ext4", "xfs", "btrfs"] {
            let disk = Disk::new(place, fstype, fstype);
            let sleeper = Sleeper::start(&disk.mount_point);
            let mut engine = engine(&[&disk]);
            engine.freeze().unwrap();
            assert!(disk.is_frozen());
            assert!(engine.thaw().unwrap().is_clean());
            sleeper.goes_on();
            engine.freeze().unwrap();
            assert!(engine.thaw().unwrap().is_clean());
        }
    });
}

/// As [`ScratchKernel`], but it sees no writer before it has given up a freeze: as if it had fallen asleep since.
#[derive(Debug)]
struct Late(ScratchKernel, std::sync::atomic::AtomicBool);

impl Backend for Late {
    type Handle = hv_vssd::quiesce::handle::Handle;

    fn plan(&self) -> Result<Plan, hv_vssd::filesystems::ScanError> {
        self.0.plan()
    }

    fn open(
        &self,
        target: &hv_vssd::quiesce::backend::Target,
    ) -> Result<Self::Handle, hv_vssd::quiesce::handle::HandleError> {
        self.0.open(target)
    }

    fn probe(
        &self,
        target: &hv_vssd::quiesce::backend::Target,
    ) -> Result<(), hv_vssd::quiesce::handle::HandleError> {
        self.0.probe(target)
    }

    fn is_dead(&self, handle: &Self::Handle) -> bool {
        self.0.is_dead(handle)
    }

    fn sync(&self, handle: &Self::Handle) -> std::io::Result<()> {
        self.0.sync(handle)
    }

    fn freeze(&self, handle: &Self::Handle) -> std::io::Result<()> {
        self.0.freeze(handle)
    }

    fn thaw(&self, handle: &Self::Handle) -> std::io::Result<()> {
        self.0.thaw(handle)
    }

    fn writers(&self, devices: &[DeviceNumber]) -> hv_vssd::quiesce::writers::Writers {
        if self.1.swap(true, Ordering::SeqCst) {
            self.0.writers(devices)
        } else {
            hv_vssd::quiesce::writers::Writers::default()
        }
    }

    fn at_work(&self, handle: &Self::Handle) -> Option<String> {
        self.0.at_work(handle)
    }

    fn first_at_work(&self) -> Option<(hv_vssd::quiesce::backend::Target, String)> {
        self.0.first_at_work()
    }

    fn panics_after(&self) -> Option<Duration> {
        self.0.panics_after()
    }

    fn is_suspended(&self, handle: &Self::Handle) -> bool {
        self.0.is_suspended(handle)
    }
}

#[test]
fn sleeping_splice_that_began_too_late_fails_the_freeze_at_its_limit_and_nothing_stays_frozen() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let sleeper = Sleeper::start(&disk.mount_point);
        let limits = Limits {
            flush: PATIENCE,
            freeze: Duration::from_millis(500),
            hold: PATIENCE,
        };
        let kernel = Late(ScratchKernel::new(&[&disk]), false.into());
        let mut engine = Engine::new(kernel, limits, Gate::new(std::io::stderr()));
        let error = engine.freeze().unwrap_err().to_string();
        let pid = sleeper.child.id();
        assert!(error.contains(&format!("process {pid}")), "{error}");
        assert!(
            error.contains("splice(2)") && error.contains("/out"),
            "{error}"
        );
        assert!(!error.contains("device"), "{error}");
        fs::write(disk.mount_point.join("writable"), "at once").unwrap();
        engine.freeze().unwrap();
        assert!(engine.thaw().unwrap().is_clean());
        sleeper.goes_on();
    });
}
