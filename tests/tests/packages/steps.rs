//! Installing, and what an upgrade needs: a next version, and an agent that runs.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::command::run;
use tests::paths;

use crate::made;
use crate::root::{NAMES, Root};

pub(crate) const C_DAEMON: &str = NAMES[0];
pub(crate) const HELPER: [&str; 3] = [
    "deb-systemd-helper unmask hv-vss-daemon.service",
    "deb-systemd-helper enable hv-vssd.service",
    "deb-systemd-helper update-state hv-vssd.service",
];
pub(crate) const PROFILE: &str = "apparmor_parser -r -T -W /etc/apparmor.d/usr.sbin.hv-vssd";

/// The same package in the next revision.
pub(crate) fn next_deb() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (tree, package) = (
        directory.path().join("tree"),
        directory.path().join("next.deb"),
    );
    run(Command::new("dpkg-deb")
        .arg("-R")
        .arg(made::deb())
        .arg(&tree))
    .unwrap();
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let version = made::version();
    let next = text.replace(
        &format!("Version: {version}-1\n"),
        &format!("Version: {version}-2\n"),
    );
    assert_ne!(text, next);
    fs::write(control, next).unwrap();
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "--build"])
        .arg(&tree)
        .arg(&package))
    .unwrap();
    (directory, package)
}

pub(crate) fn next_rpm() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    run(Command::new(paths::workspace().join("packaging/build"))
        .args(["rpm", "--revision", "2"])
        .env("CARGO_TARGET_DIR", directory.path())
        .env("BINARY", "/bin/true"))
    .unwrap();
    let package = directory
        .path()
        .join(format!("packages/hv-vssd-{}-2.x86_64.rpm", made::version()));
    (directory, package)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn install(root: &Root, package: &Path) {
    root.dpkg(&["-i", text(package)]);
    root.stand_in();
}

pub(crate) fn install_rpm(root: &Root, package: &Path) {
    root.rpm(&["--nodeps", "--nosignature", "-U", text(package)]);
    root.stand_in();
}

/// The package of the kind that the root is made for.
pub(crate) fn install_made(root: &Root, debian: bool) {
    if debian {
        install(root, &made::deb());
    } else {
        install_rpm(root, &made::rpm());
    }
}

/// Nothing was started or stopped, and no name is ours.
pub(crate) fn left_alone(root: &Root) {
    let calls = root.calls();
    let moves = |call: &String| call.contains(" start ") || call.contains(" stop ");
    assert!(!calls.iter().any(moves), "{calls:?}");
    assert!(root.aliases().is_empty(), "{:?}", root.aliases());
}

/// A process that stands for a running agent.
pub(crate) struct Agent(Child);

impl Agent {
    pub(crate) fn of(root: &Root) -> Self {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        root.write("stub/pid", &child.id().to_string());
        root.write("stub/active/hv-vssd.service", "");
        Self(child)
    }

    pub(crate) fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn was_asked_to_end(&mut self) -> bool {
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.signal() == Some(Signal::SIGUSR1 as i32);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
