//! What `check` makes of made-up machines: a tree of /proc, /sys, /dev and /run in, findings out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod service;
mod shown;
mod storage;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use hv_vssd::check::{Cause, Outcome, Places, Report, Severity, gather};
use hv_vssd::config::Config;
use hv_vssd::filesystems::Policy;
use hv_vssd::hooks::discover;

const VSS: &str = "{35fa2e29-ea23-4236-96ae-3a6ebacba440}\n";

const MOUNTS: &str =
    "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /boot/efi rw - vfat /dev/sda2 rw\n";

/// A guest in a directory.
struct Guest {
    dir: tempfile::TempDir,
    places: Places,
    config: String,
}

impl Guest {
    /// One of Hyper-V's in which hv-vssd serves as process 100, with guardian 101.
    fn healthy() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let places = Places {
            root: root.clone(),
            hooks: discover::Places {
                directories: vec![root.join("hooks.d")],
                owner: nix::unistd::geteuid().as_raw(),
                top: root.clone(),
            },
            hypervisor: Some(Some("Microsoft Hv".to_owned())),
        };
        let config = String::new();
        let guest = Self {
            dir,
            places,
            config,
        };
        guest.write("proc/self/mountinfo", MOUNTS);
        guest.write("proc/filesystems", "nodev\tproc\n\text4\n");
        guest.write(
            "proc/locks",
            "1: FLOCK  ADVISORY  WRITE 100 00:18:3 0 EOF\n",
        );
        guest.write("run/hv-vssd/lock", "100");
        guest.write("sys/bus/vmbus/devices/vss/class_id", VSS);
        guest.write("sys/module/hv_utils/version", "3.1\n");
        guest.write("sys/class/misc/vmbus!hv_vss/dev", "10:60\n");
        guest.write("dev/vmbus/hv_vss", "");
        guest.process(100, "hv-vssd", 'S', 1);
        guest.process(101, "hv-vssd", 'S', 100);
        guest.opens(100, "/dev/vmbus/hv_vss");
        guest
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) -> &Self {
        let path = self.path(path);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
        self
    }

    fn process(&self, pid: u32, name: &str, state: char, parent: u32) {
        let stat = format!("{pid} ({name}) {state} {parent} 0 0\n");
        self.write(&format!("proc/{pid}/stat"), &stat);
        self.write(&format!("proc/{pid}/comm"), &format!("{name}\n"));
        self.write(&format!("proc/{pid}/task/{pid}/stat"), &stat);
        fs::create_dir_all(self.path(&format!("proc/{pid}/fd"))).unwrap();
        let exe = self.path(&format!("proc/{pid}/exe"));
        let _ = fs::remove_file(&exe);
        symlink(format!("/usr/sbin/{name}"), exe).unwrap();
    }

    fn opens(&self, pid: u32, what: &str) {
        symlink(what, self.path(&format!("proc/{pid}/fd/7"))).unwrap();
    }

    fn hook(&self, name: &str, mode: u32) {
        let path = format!("hooks.d/{name}");
        self.write(&path, "#!/bin/sh\n");
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
        };
        set(&self.path(&path), mode);
        set(&self.path("hooks.d"), 0o755);
    }

    fn report(&self) -> Report {
        let config = Config::parse(&self.config, Path::new("/etc/hv-vssd/config.toml"));
        let facts = gather(&self.places, config.as_ref(), &Policy::default());
        Report::of(&facts)
    }

    /// The errors alone, as words.
    fn errors(&self) -> Vec<&'static str> {
        let report = self.report();
        let errors = report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        errors.map(|finding| finding.code.code()).collect()
    }
}

fn sentence(report: &Report, cause: Cause) -> (Severity, String) {
    let found = report.findings.iter().find(|finding| finding.code == cause);
    let found = found.unwrap_or_else(|| panic!("{} in {report:?}", cause.code()));
    (found.severity, found.finding.clone())
}

#[test]
fn a_healthy_guest_gets_a_production_checkpoint() {
    let guest = Guest::healthy();
    let report = guest.report();
    assert_eq!(report.outcome, Outcome::FileSystemConsistent);
    let (severity, text) = sentence(&report, Cause::CannotFreeze);
    assert_eq!(severity, Severity::Warning);
    assert!(text.contains("/boot/efi (vfat)"), "{text}");
    guest.hook("10-app", 0o755);
    assert_eq!(guest.report().outcome, Outcome::ApplicationConsistent);
}

#[test]
fn strictness_and_hooks_follow_the_configuration() {
    let mut guest = Guest::healthy();
    guest.config = "strictness = \"strict\"".to_owned();
    assert_eq!(guest.errors(), ["cannot-freeze"]);
    guest.config = "strictness = \"flush-only\"".to_owned();
    assert_eq!(guest.report().outcome, Outcome::FlushedOnly);
    guest.config = "strictness = \"sloppy\"".to_owned();
    assert_eq!(guest.errors(), ["configuration"]);
    guest.config = String::new();
    guest.hook("10-app", 0o777);
    assert_eq!(guest.errors(), ["hook-refused"]);
    let refused = guest.report();
    let refused = refused
        .findings
        .iter()
        .find(|finding| finding.code == Cause::HookRefused)
        .unwrap();
    assert!(refused.remedy.starts_with("chmod go-w "), "{refused:?}");
    guest.config = "[hooks.by_name.\"10-app\"]\non_failure = \"continue\"".to_owned();
    assert_eq!(guest.errors(), [""; 0]);
    guest.hook("10-app", 0o755);
    guest.config = "[hooks]\nenabled = false".to_owned();
    let report = guest.report();
    assert_eq!(report.outcome, Outcome::FileSystemConsistent);
    assert_eq!(sentence(&report, Cause::HooksDisabled).0, Severity::Warning);
}

#[test]
fn an_empty_machine_is_no_reason_to_panic() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places {
        root: dir.path().to_owned(),
        hypervisor: Some(None),
        ..Places::default()
    };
    let report = Report::of(&gather(&places, Ok(&Config::default()), &Policy::default()));
    assert_eq!(report.outcome, Outcome::Fallback);
}
