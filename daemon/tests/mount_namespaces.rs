//! Mount namespaces and the watch on the mount table, with real mounts in namespaces of their own. Nothing is frozen. Needs root, `unshare`, `mount` and
//! `mkfs.ext4`; says so and passes where they are missing, unless `CI` is set.

// A helper of a test fails by panicking, like the test itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hv_vssd::filesystems::{Baseline, Plan, Policy, Superblock, TableWatch, scan};
use hvutil_sys::mount::mount_id;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

/// Set in the process that has a mount namespace of its own.
const INSIDE: &str = "HV_VSSD_TEST_INSIDE";

const NOTHING: [&str; 0] = [];

/// Whether this machine can run these tests.
fn can_mount() -> bool {
    let able = nix::unistd::geteuid().is_root()
        && Path::new("/dev/loop-control").exists()
        && run("unshare", &["-m", "true"]);
    assert!(
        able || std::env::var_os("CI").is_none(),
        "CI=true, but mounts cannot be made here"
    );
    if !able {
        eprintln!("skipped: mounts can be made by root only");
    }
    able
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).status();
    status.is_ok_and(|status| status.success())
}

fn image(path: &Path) -> PathBuf {
    File::create(path).unwrap().set_len(16 << 20).unwrap();
    assert!(run("mkfs.ext4", &["-q", path.to_str().unwrap()]));
    path.to_owned()
}

/// A shell in a mount namespace of its own, until it is dropped.
struct Container(Child);

impl Container {
    /// Runs `script` to its end.
    fn new(script: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-ec"])
            .arg(format!("{script}\necho ready\nread end || true"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answer = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut answer).unwrap();
        assert_eq!(answer, "ready\n", "the script failed: {script}");
        Self(child)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn at<'a>(plan: &'a Plan, point: &Path) -> (usize, &'a Superblock) {
    let numbered = plan.stages.iter().enumerate();
    numbered
        .flat_map(|(stage, all)| all.iter().map(move |superblock| (stage, superblock)))
        .find(|(_, superblock)| superblock.mount_point() == point)
        .unwrap_or_else(|| panic!("{} is not in {plan:#?}", point.display()))
}

#[test]
fn a_disk_mounted_only_in_a_container_is_planned_and_within_reach() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [outer, inner] = ["outer", "inner"].map(|name| dir.path().join(name));
    image(&dir.path().join("outer.img"));
    image(&dir.path().join("inner.img"));
    // The path of the inner image exists in the container alone: here it would lie on what holds the directory.
    let container = Container::new(&format!(
        "cd {}\nmkdir outer inner\nmount -o loop outer.img outer\ncp --sparse=always inner.img outer/\n\
         mount -o loop outer/inner.img inner",
        dir.path().display()
    ));

    let scan = scan().unwrap();
    assert!(scan.mounts.iter().all(|mount| mount.mount_point != outer));
    let plan = Plan::new(&scan, &Policy::default());

    let (outer_stage, superblock) = at(&plan, &outer);
    let candidate = &superblock.mounts[0];
    assert_eq!(candidate.via.as_ref().unwrap().pid, container.0.id());
    let place = open(&*candidate.path(), OFlag::O_PATH, Mode::empty()).unwrap();
    assert_eq!(mount_id(&place).unwrap(), candidate.id);
    let (inner_stage, _) = at(&plan, &inner);
    assert!(inner_stage < outer_stage, "{plan:#?}");

    let output = Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
        .args(["plan", "--json"])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let planned = json["superblocks"].as_array().unwrap().iter();
    let points: Vec<_> = planned.map(|planned| &planned["mounts"][0]).collect();
    let found = points
        .iter()
        .find(|point| point["mount_point"] == outer.to_str().unwrap())
        .unwrap_or_else(|| panic!("{json:#}"));
    assert_eq!(found["namespace_of"]["pid"], container.0.id());
}

#[test]
fn the_watch_tells_what_is_mounted_after_the_scan() {
    if !can_mount() {
        return;
    }
    if std::env::var_os(INSIDE).is_some() {
        return watch();
    }
    let mut child = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_watch_tells_what_is_mounted_after_the_scan"])
        .env(INSIDE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

/// In a mount namespace of our own.
fn watch() {
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("point");
    std::fs::create_dir(&point).unwrap();
    let image = image(&dir.path().join("image"));
    let mount_image = |options: &str| {
        let arguments = [
            "-o",
            options,
            image.to_str().unwrap(),
            point.to_str().unwrap(),
        ];
        assert!(run("mount", &arguments));
    };
    let none = None::<&str>;
    let policy = Policy::default();
    let soon = || Instant::now() + Duration::from_secs(10);

    let watch = TableWatch::open().unwrap();
    let before = Baseline::of(&scan().unwrap());
    let appeared = || -> Vec<String> {
        let new = watch.appeared(&before, &policy, soon()).unwrap();
        new.to_freeze
            .iter()
            .map(|point| point.display().to_string())
            .collect()
    };
    assert!(!watch.changed().unwrap());
    assert_eq!(appeared(), NOTHING);
    assert!(!watch.changed().unwrap(), "reading is no change");

    mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    assert!(watch.changed().unwrap());
    assert!(!watch.changed().unwrap(), "told once");
    assert_eq!(appeared(), NOTHING);
    umount2(&point, MntFlags::empty()).unwrap();
    assert!(watch.changed().unwrap());

    mount_image("loop");
    assert_eq!(appeared(), [point.to_str().unwrap()]);
    assert!(watch.changed().unwrap(), "reading does not take the change");
    umount2(&point, MntFlags::empty()).unwrap();
    assert!(watch.changed().unwrap());
    assert_eq!(appeared(), NOTHING);

    // A file system that was read-only at the scan was left out of the plan.
    mount_image("loop");
    let remount = |flags| mount(none, &point, none, MsFlags::MS_REMOUNT | flags, none).unwrap();
    remount(MsFlags::MS_RDONLY);
    let before = Baseline::of(&scan().unwrap());
    assert!(watch.changed().unwrap());
    assert!(watch.appeared(&before, &policy, soon()).unwrap().is_empty());
    remount(MsFlags::empty());
    assert!(watch.changed().unwrap(), "a remount is a change");
    let new = watch.appeared(&before, &policy, soon()).unwrap();
    assert_eq!(new.to_freeze, [point.as_path()]);
    umount2(&point, MntFlags::empty()).unwrap();
}
