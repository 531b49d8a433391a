//! Scratch disks in a mount namespace of their own, made by running the test anew under `unshare`.
//!
//! Nothing but what a test made here is ever frozen; what it leaves frozen, or what a dead test left, is thawed through its device.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test crate uses its own part of this; a helper of a test fails by panicking, like the test itself"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hv_vssd::filesystems::{DeviceNumber, Plan, Policy, ScanError, scan};
use hv_vssd::quiesce::Kernel;
use hv_vssd::quiesce::backend::{Backend, Target};
use hv_vssd::quiesce::handle::{Handle, HandleError};
use hv_vssd::quiesce::writers::Writers;
use hvutil_sys::loopdev::LoopDevice;
use hvutil_sys::{freeze, mount};
use nix::mount::{MntFlags, MsFlags};

/// Longer than anything here takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const INSIDE: &str = "HV_VSSD_TEST_SCRATCH";

/// Made in the directory by the test that was run anew: the harness takes a name that it does not know for a success.
const BEGUN: &str = "begun";

/// Runs `body` in a process and a mount namespace of its own, with a directory for its disks. That process runs the calling test anew, by
/// the name that the harness has given this thread.
pub(crate) fn in_namespace(body: impl FnOnce(&Path)) {
    if let Some(directory) = std::env::var_os(INSIDE) {
        let directory = Path::new(&directory);
        File::create(directory.join(BEGUN)).unwrap();
        return body(directory);
    }
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root: it makes loop devices, mounts them, and freezes them"
    );
    let directory = tempfile::tempdir().unwrap();
    let thread = thread::current();
    let test = thread.name().unwrap();
    let mut child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, directory.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + 3 * PATIENCE;
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let ended = child.try_wait().unwrap();
    kill_all(directory.path());
    rescue(directory.path());
    let _ = child.kill();
    // A freeze that was held up may have succeeded only now, and keep the process from its end.
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        rescue(directory.path());
        thread::sleep(Duration::from_millis(10));
    }
    rescue(directory.path());
    let status = child.wait().unwrap();
    assert!(ended.is_some(), "{test} did not end in its time");
    assert!(status.success(), "{test} failed, see above");
    let begun = directory.path().join(BEGUN).exists();
    assert!(begun, "there is no test {test} to run anew");
}

/// Kills whatever runs for the test in this directory: a program that it has started may hold up a freeze of its own, which can only be ended by that
/// program's end.
fn kill_all(directory: &Path) {
    let mark = format!("{INSIDE}={}", directory.display());
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
        {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    }
}

/// Thaws whatever a test left frozen, through its loop device: a blocked process cannot even be killed before.
fn rescue(directory: &Path) {
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = entry.path().join("loop/backing_file");
        let text = fs::read_to_string(file).unwrap_or_default();
        let image = Path::new(text.trim_end());
        let Some(fstype) = image.extension().and_then(|fstype| fstype.to_str()) else {
            continue;
        };
        if image.starts_with(directory) {
            let device = Path::new("/dev").join(entry.file_name());
            if let Ok(root) = mount::mount_device(fstype, &device).and_then(mount::open_root) {
                if freeze::thaw(&root).is_ok() {
                    eprintln!("{} was left frozen", image.display());
                }
            }
        }
    }
}

/// A fresh file system on a loop device, mounted. Thawed, unmounted and detached on drop.
pub(crate) struct Disk {
    device: LoopDevice,
    pub(crate) fstype: &'static str,
    pub(crate) mount_point: PathBuf,
    pub(crate) dev: DeviceNumber,
    root: OwnedFd,
}

impl Disk {
    /// `name` is unique in a test.
    pub(crate) fn new(directory: &Path, name: &str, fstype: &'static str) -> Self {
        Self::with_image(directory, directory, name, fstype)
    }

    /// With its image in a place of its own, such as on another disk.
    pub(crate) fn with_image(
        images: &Path,
        directory: &Path,
        name: &str,
        fstype: &'static str,
    ) -> Self {
        let image = images.join(format!("{name}.{fstype}"));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&image)
            .unwrap();
        let megabytes = if fstype == "xfs" { 320 } else { 128 };
        file.set_len(megabytes << 20).unwrap();
        drop(file);
        Self::on(directory, name, fstype, &image)
    }

    /// With a file or a device node that is there.
    pub(crate) fn on(directory: &Path, name: &str, fstype: &'static str, image: &Path) -> Self {
        let file = File::options().read(true).write(true).open(image).unwrap();
        let made = Command::new(format!("mkfs.{fstype}"))
            .args(["-q", if fstype == "ext4" { "-F" } else { "-f" }])
            .arg(image)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap_or_else(|error| panic!("mkfs.{fstype} cannot be run: {error}"));
        assert!(made.success());
        let device = LoopDevice::attach(&file).unwrap();
        let mount_point = directory.join(format!("{name}-mounted"));
        fs::create_dir(&mount_point).unwrap();
        mount_on(device.path(), &mount_point, fstype);
        let dev = mounts_at(&mount_point)[0].1;
        // Keeps the superblock in reach of the thaw on drop, yet its mount can go.
        let place = File::open(&mount_point).unwrap();
        let root = mount::open_root(mount::clone_mount(&place).unwrap()).unwrap();
        Self {
            device,
            fstype,
            mount_point,
            dev,
            root,
        }
    }

    pub(crate) fn device(&self) -> &Path {
        self.device.path()
    }

    /// Wherever it is mounted.
    pub(crate) fn freeze(&self) {
        freeze::freeze(&self.root).unwrap();
    }

    pub(crate) fn is_frozen(&self) -> bool {
        // Someone who does not own the freeze learns of it by failing to make one.
        match freeze::freeze(&self.root) {
            Ok(()) => {
                freeze::thaw(&self.root).unwrap();
                false
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => true,
            Err(error) => panic!("{error}"),
        }
    }

    /// As the plan would give it, through the mounts at `paths`.
    pub(crate) fn target(&self, paths: &[&Path]) -> Target {
        let mounts = paths
            .iter()
            .flat_map(|path| mounts_at(path))
            .filter(|(_, dev, _)| *dev == self.dev)
            .map(|(id, _, path)| (id, path));
        Target {
            dev: self.dev,
            fstype: self.fstype.to_owned(),
            source: self.device().to_owned(),
            place: paths
                .first()
                .map(|path| path.to_path_buf())
                .unwrap_or_default(),
            mounts: mounts.collect(),
        }
    }

    pub(crate) fn umount(&self) -> nix::Result<()> {
        nix::mount::umount2(&self.mount_point, MntFlags::empty())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = freeze::thaw(&self.root);
        let _ = nix::mount::umount2(&self.mount_point, MntFlags::MNT_DETACH);
    }
}

pub(crate) fn mount_on(device: &Path, place: &Path, fstype: &str) {
    nix::mount::mount(
        Some(device),
        place,
        Some(fstype),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

pub(crate) fn bind(from: &Path, to: &Path) {
    const NONE: Option<&str> = None;
    nix::mount::mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).unwrap();
}

/// What the mount table has at `path`: mount id, superblock, path.
pub(crate) fn mounts_at(path: &Path) -> Vec<(u64, DeviceNumber, PathBuf)> {
    scan()
        .unwrap()
        .mounts
        .iter()
        .filter(|mount| mount.mount_point == path)
        .map(|mount| (mount.id, mount.dev, mount.mount_point.to_owned()))
        .collect()
}

/// Where the commands keep lock and ledger.
pub(crate) const RUN: &str = "/run/hv-vssd";

/// A [`RUN`] that only this test sees, in its private mount namespace; returns where the ledger is.
pub(crate) fn own_run() -> PathBuf {
    let (tmpfs, run) = (Some("tmpfs"), Path::new(RUN));
    let place = if run.exists() { run } else { Path::new("/run") };
    nix::mount::mount(tmpfs, place, tmpfs, MsFlags::empty(), None::<&str>).unwrap();
    fs::create_dir_all(run).unwrap();
    run.join("ledger")
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The kernel, of which only scratch disks are in sight: everything else is taken out of the plan, and refused.
#[derive(Debug)]
pub(crate) struct ScratchKernel {
    kernel: Kernel,
    mine: Vec<DeviceNumber>,
    panics_after: Option<Duration>,
}

impl ScratchKernel {
    /// A kernel that panics when a program has waited for this time.
    pub(crate) fn panicking_after(mut self, time: Duration) -> Self {
        self.panics_after = Some(time);
        self
    }

    pub(crate) fn new(disks: &[&Disk]) -> Self {
        Self {
            kernel: Kernel::new(Policy::default()),
            mine: disks.iter().map(|disk| disk.dev).collect(),
            panics_after: None,
        }
    }
}

impl Backend for ScratchKernel {
    type Handle = Handle;

    fn plan(&self) -> Result<Plan, ScanError> {
        let mut plan = self.kernel.plan()?;
        for stage in &mut plan.stages {
            stage.retain(|superblock| self.mine.contains(&superblock.dev));
        }
        plan.stages.retain(|stage| !stage.is_empty());
        plan.left_out
            .retain(|left_out| self.mine.contains(&left_out.dev));
        Ok(plan)
    }

    fn open(&self, target: &Target) -> Result<Handle, HandleError> {
        assert!(
            self.mine.contains(&target.dev),
            "{target} is no scratch disk"
        );
        Handle::open(target)
    }

    fn probe(&self, target: &Target) -> Result<(), HandleError> {
        self.kernel.probe(target)
    }

    fn is_dead(&self, handle: &Handle) -> bool {
        self.kernel.is_dead(handle)
    }

    fn let_go(&self) -> Option<Box<dyn Send>> {
        self.kernel.let_go()
    }

    fn descriptor<'a>(&self, handle: &'a Handle) -> Option<std::os::fd::BorrowedFd<'a>> {
        Some(handle.as_fd())
    }

    fn sync(&self, handle: &Handle) -> io::Result<()> {
        freeze::sync(handle.as_fd())
    }

    fn freeze(&self, handle: &Handle) -> io::Result<()> {
        freeze::freeze(handle.as_fd())
    }

    fn thaw(&self, handle: &Handle) -> io::Result<()> {
        freeze::thaw(handle.as_fd())
    }

    fn writers(&self, devices: &[DeviceNumber]) -> Writers {
        self.kernel.writers(devices)
    }

    fn at_work(&self, handle: &Handle) -> Option<String> {
        self.kernel.at_work(handle)
    }

    fn first_at_work(&self) -> Option<(Target, String)> {
        None
    }

    fn panics_after(&self) -> Option<Duration> {
        self.panics_after
    }

    fn is_suspended(&self, handle: &Handle) -> bool {
        handle.is_suspended()
    }
}
