//! What the scripts of both packages do, called by dpkg and rpm themselves on a root of their own.

use std::fs;
use std::os::unix::fs::symlink;
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

const C_DAEMON: &str = NAMES[0];
const HELPER: [&str; 3] = [
    "deb-systemd-helper unmask hv-vss-daemon.service",
    "deb-systemd-helper enable hv-vssd.service",
    "deb-systemd-helper update-state hv-vssd.service",
];
const PROFILE: &str = "apparmor_parser -r -T -W /etc/apparmor.d/usr.sbin.hv-vssd";

/// The same package in the next revision.
fn next_deb() -> (TempDir, PathBuf) {
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

fn next_rpm() -> (TempDir, PathBuf) {
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

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn install(root: &Root, package: &Path) {
    root.dpkg(&["-i", text(package)]);
    root.stand_in();
}

fn install_rpm(root: &Root, package: &Path) {
    root.rpm(&["--nodeps", "--nosignature", "-U", text(package)]);
    root.stand_in();
}

/// A process that stands for a running agent.
struct Agent(Child);

impl Agent {
    fn of(root: &Root) -> Self {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        root.write("stub/pid", &child.id().to_string());
        root.write("stub/active/hv-vssd.service", "");
        Self(child)
    }

    fn was_asked_to_end(&mut self) -> bool {
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

#[test]
fn the_first_deb_takes_over_from_the_c_daemon() {
    let root = Root::running(true);
    root.c_daemon_runs();
    install(&root, &made::deb());
    let expected = [
        &HELPER[..],
        &[
            "systemctl stop hv-vss-daemon.service",
            "systemctl daemon-reload",
            "udevadm control --reload",
            PROFILE,
            "systemctl start hv-vssd.service",
        ],
    ];
    assert_eq!(root.calls(), expected.concat());
    assert_eq!(root.aliases(), NAMES);
}

#[test]
fn the_first_rpm_takes_over_from_the_c_daemon() {
    let root = Root::running(false);
    root.c_daemon_runs();
    install_rpm(&root, &made::rpm());
    let expected = [
        "systemctl --no-reload preset hv-vssd.service",
        "systemctl stop hv-vss-daemon.service",
        "systemctl daemon-reload",
        "udevadm control --reload",
        "systemctl start hv-vssd.service",
    ];
    assert_eq!(root.calls(), expected);
    assert_eq!(root.aliases(), NAMES);
}

#[test]
fn without_the_device_nothing_is_started() {
    for debian in [true, false] {
        let root = Root::running(debian);
        fs::remove_file(root.path("dev/vmbus/hv_vss")).unwrap();
        if debian {
            install(&root, &made::deb());
        } else {
            install_rpm(&root, &made::rpm());
        }
        let calls = root.calls();
        assert!(
            !calls.iter().any(|call| call.contains(" start ")),
            "{calls:?}"
        );
        assert_eq!(root.aliases(), NAMES);
    }
}

#[test]
fn a_preset_that_disables_leaves_the_c_daemon_alone() {
    for debian in [true, false] {
        let root = Root::running(debian);
        root.c_daemon_runs();
        root.write("stub/preset-disables", "");
        if debian {
            install(&root, &made::deb());
        } else {
            install_rpm(&root, &made::rpm());
        }
        left_alone(&root);
    }
}

#[test]
fn a_mask_stays_and_leaves_the_c_daemon_alone() {
    for masked in ["hv-vssd.service", C_DAEMON] {
        for debian in [true, false] {
            let root = Root::running(debian);
            root.c_daemon_runs();
            symlink("/dev/null", root.path("etc/systemd/system").join(masked)).unwrap();
            if debian {
                install(&root, &made::deb());
            } else {
                install_rpm(&root, &made::rpm());
            }
            left_alone(&root);
            let link = fs::read_link(root.path("etc/systemd/system").join(masked)).unwrap();
            assert_eq!(link, Path::new("/dev/null"));
        }
    }
}

fn left_alone(root: &Root) {
    let calls = root.calls();
    let moves = |call: &String| call.contains(" start ") || call.contains(" stop ");
    assert!(!calls.iter().any(moves), "{calls:?}");
    assert!(root.aliases().is_empty(), "{:?}", root.aliases());
}

#[test]
fn the_mask_of_a_removed_package_is_no_administrators() {
    let root = Root::running(true);
    symlink("/dev/null", root.path("etc/systemd/system").join(C_DAEMON)).unwrap();
    root.write(
        &format!("var/lib/systemd/deb-systemd-helper-masked/{C_DAEMON}"),
        "",
    );
    install(&root, &made::deb());
    assert_eq!(root.aliases(), NAMES);
}

#[test]
fn an_upgrade_of_the_deb_asks_the_agent_to_end_and_does_not_restart_it() {
    let (_directory, next) = next_deb();
    let root = Root::running(true);
    install(&root, &made::deb());
    let mut agent = Agent::of(&root);
    root.calls();
    install(&root, &next);
    assert!(agent.was_asked_to_end());
    let expected = [
        &HELPER[..],
        &[
            "systemctl daemon-reload",
            "udevadm control --reload",
            PROFILE,
        ],
    ];
    assert_eq!(root.calls(), expected.concat());
}

#[test]
fn an_upgrade_of_the_rpm_asks_the_agent_to_end_and_does_not_restart_it() {
    let (_directory, next) = next_rpm();
    let root = Root::running(false);
    install_rpm(&root, &made::rpm());
    let mut agent = Agent::of(&root);
    root.calls();
    install_rpm(&root, &next);
    assert!(agent.was_asked_to_end());
    assert_eq!(
        root.calls(),
        ["systemctl daemon-reload", "udevadm control --reload"]
    );
    assert_eq!(root.aliases(), NAMES);
}

#[test]
fn an_upgrade_starts_what_had_failed_and_leaves_what_was_stopped() {
    let (_directory, next) = next_deb();
    for failed in [true, false] {
        let root = Root::running(true);
        install(&root, &made::deb());
        fs::remove_file(root.path("stub/active/hv-vssd.service")).unwrap();
        if failed {
            root.write("stub/failed/hv-vssd.service", "");
        }
        root.calls();
        install(&root, &next);
        let calls = root.calls();
        let started = calls.contains(&"systemctl start hv-vssd.service".to_owned());
        assert_eq!(started, failed, "{calls:?}");
    }
}

/// systemd starts no masked unit: an agent that ended would not come back.
#[test]
fn an_upgrade_leaves_an_agent_that_runs_masked() {
    let (_directory, next) = next_deb();
    let root = Root::running(true);
    install(&root, &made::deb());
    let mut agent = Agent::of(&root);
    let mask = root.path("etc/systemd/system/hv-vssd.service");
    symlink("/dev/null", mask).unwrap();
    install(&root, &next);
    assert!(agent.0.try_wait().unwrap().is_none());
}

#[test]
fn an_upgrade_and_a_new_installation_leave_disabled_what_was_disabled() {
    let (_directory, next) = next_deb();
    let root = Root::running(true);
    install(&root, &made::deb());
    root.chroot(&["systemctl", "disable", "hv-vssd.service"]);
    root.calls();
    install(&root, &next);
    left_alone(&root);
    root.dpkg(&["-r", "hv-vssd"]);
    root.calls();
    install(&root, &made::deb());
    left_alone(&root);
}

#[test]
fn a_removal_thaws_what_a_dead_agent_has_left_and_gives_the_names_back() {
    let root = Root::running(true);
    install(&root, &made::deb());
    root.write("run/hv-vssd/ledger", "");
    root.calls();
    root.dpkg(&["-r", "hv-vssd"]);
    let expected = [
        "systemctl stop hv-vssd.service",
        "hv-vssd thaw",
        "deb-systemd-helper purge hv-vssd.service",
        "systemctl daemon-reload",
        "apparmor_parser -R /etc/apparmor.d/usr.sbin.hv-vssd",
        "udevadm control --reload",
        "udevadm trigger --settle --action=change --name-match=/dev/vmbus/hv_vss",
    ];
    assert_eq!(root.calls(), expected);
    assert!(root.aliases().is_empty());
    assert!(root.path("etc/hv-vssd/config.toml").exists());

    // As on the first day.
    root.c_daemon_runs();
    install(&root, &made::deb());
    let calls = root.calls();
    assert!(
        calls.contains(&"systemctl stop hv-vss-daemon.service".to_owned()),
        "{calls:?}"
    );
    assert!(
        calls.contains(&"systemctl start hv-vssd.service".to_owned()),
        "{calls:?}"
    );
}

#[test]
fn a_removal_of_the_rpm_thaws_too() {
    let root = Root::running(false);
    install_rpm(&root, &made::rpm());
    root.write("run/hv-vssd/ledger", "");
    root.calls();
    root.rpm(&["-e", "hv-vssd"]);
    let expected = [
        "systemctl stop hv-vssd.service",
        "hv-vssd thaw",
        "systemctl --no-reload disable hv-vssd.service",
        "systemctl daemon-reload",
        "udevadm control --reload",
        "udevadm trigger --settle --action=change --name-match=/dev/vmbus/hv_vss",
    ];
    assert_eq!(root.calls(), expected);
    assert!(root.aliases().is_empty());
}

#[test]
fn a_removal_starts_the_c_daemon_only_where_something_asks_for_it() {
    let start = format!("systemctl start {C_DAEMON}");
    for debian in [true, false] {
        for (enabled, rules, expected) in [
            (false, "DEVNAME=/dev/vmbus/hv_vss\n", false),
            (true, "", true),
            // Debian's rule; and one that asks for something else.
            (false, "SYSTEMD_WANTS=hv-vss-daemon.service\n", true),
            (false, "SYSTEMD_WANTS=other-hv-vss-daemon.service\n", false),
        ] {
            let root = Root::running(debian);
            if debian {
                install(&root, &made::deb());
            } else {
                install_rpm(&root, &made::rpm());
            }
            root.write("stub/udev", rules);
            if enabled {
                root.write(&format!("stub/enabled/{C_DAEMON}"), "");
            }
            root.calls();
            if debian {
                root.dpkg(&["-r", "hv-vssd"]);
            } else {
                root.rpm(&["-e", "hv-vssd"]);
            }
            let calls = root.calls();
            assert_eq!(
                calls.contains(&start),
                expected,
                "{enabled} {rules:?} {calls:?}"
            );
        }
    }
}

#[test]
fn what_another_package_does_under_our_name_is_undone() {
    let root = Root::running(true);
    install(&root, &made::deb());
    // As an upgrade of hyperv-daemons does, and its purge.
    root.chroot(&["systemctl", "stop", "hv-vss-daemon.service"]);
    fs::remove_file(root.path("stub/active/hv-vssd.service")).unwrap();
    fs::remove_file(root.path("etc/systemd/system/hypervvssd.service")).unwrap();
    root.calls();
    let triggered = [
        "/var/lib/dpkg/info/hv-vssd.postinst",
        "triggered",
        "/usr/sbin/hv_vss_daemon",
    ];
    root.chroot(&triggered);
    let calls = root.calls();
    assert!(
        calls.contains(&"systemctl start hv-vssd.service".to_owned()),
        "{calls:?}"
    );
    assert_eq!(root.aliases(), NAMES);

    root.chroot(&["systemctl", "disable", "hv-vssd.service"]);
    root.calls();
    root.chroot(&triggered);
    assert!(root.calls().is_empty());
}

#[test]
fn what_dpkg_takes_back_changes_nothing_but_a_stop() {
    let root = Root::running(true);
    install(&root, &made::deb());
    root.calls();
    let info = |script: &str| format!("/var/lib/dpkg/info/hv-vssd.{script}");
    for (script, arguments) in [
        ("postinst", &["abort-upgrade", "0.1.0-2"][..]),
        (
            "postinst",
            &["abort-deconfigure", "in-favour", "other", "1"],
        ),
        ("prerm", &["upgrade", "0.1.0-2"]),
        ("prerm", &["failed-upgrade", "0.0.1-1"]),
        ("prerm", &["deconfigure", "in-favour", "other", "1"]),
        ("postrm", &["upgrade", "0.1.0-2"]),
        ("postrm", &["failed-upgrade", "0.0.1-1"]),
        ("postrm", &["abort-install"]),
        ("postrm", &["abort-upgrade", "0.1.0-2"]),
        ("postrm", &["disappear", "other", "1"]),
    ] {
        let script = info(script);
        root.chroot(&[&[script.as_str()], arguments].concat());
        assert!(root.calls().is_empty(), "{script} {arguments:?}");
        assert_eq!(root.aliases(), NAMES);
    }
    root.chroot(&[&info("prerm"), "remove"]);
    assert_eq!(root.calls(), ["systemctl stop hv-vssd.service"]);
    root.chroot(&[&info("postinst"), "abort-remove"]);
    assert_eq!(root.calls(), ["systemctl start hv-vssd.service"]);
}

#[test]
fn packages_go_into_an_image_where_nothing_runs() {
    let (_directory, next) = next_deb();
    let root = Root::bare();
    for arguments in [
        &["-i", text(&made::deb())][..],
        &["-i", text(&next)],
        &["-r", "hv-vssd"],
        &["-P", "hv-vssd"],
    ] {
        root.dpkg(arguments);
    }
    let root = Root::bare();
    root.rpm(&["--nodeps", "--nosignature", "-U", text(&made::rpm())]);
    root.rpm(&["-e", "hv-vssd"]);

    // With systemd installed and not running, links are made all the same, and that is all.
    for debian in [true, false] {
        let root = Root::running(debian);
        fs::remove_dir_all(root.path("run/systemd")).unwrap();
        if debian {
            install(&root, &made::deb());
        } else {
            install_rpm(&root, &made::rpm());
        }
        let calls = root.calls();
        assert_eq!(root.aliases(), NAMES);
        assert!(
            calls
                .iter()
                .all(|call| call.contains("-helper ") || call.contains(" preset ")),
            "{calls:?}"
        );
    }
}

#[test]
fn a_purge_leaves_nothing() {
    let root = Root::running(true);
    let before = made::files(root.path("").as_path());
    install(&root, &made::deb());
    symlink(
        "/usr/lib/hv-vssd/hooks.available/redis",
        root.path("etc/hv-vssd/hooks.d/10-redis"),
    )
    .unwrap();
    root.write("run/hv-vssd/ledger", "");
    root.dpkg(&["-P", "hv-vssd"]);
    let left: Vec<String> = made::files(root.path("").as_path())
        .difference(&before)
        .cloned()
        .collect();
    let of_dpkg = |path: &&String| path.starts_with("var/lib/dpkg/") && !path.contains("hv-vssd");
    let left: Vec<&String> = left.iter().filter(|path| !of_dpkg(path)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!root.path("etc/hv-vssd").exists());
    assert!(!root.path("run/hv-vssd").exists());
}

/// The stand-in does what the real one does with the unit's names; one line of several would be one link to it.
#[test]
fn debians_own_helper_takes_all_names() {
    let root = Root::bare();
    root.dpkg(&["--unpack", text(&made::deb())]);
    let helper = |action: &str| {
        let mut command = Command::new("deb-systemd-helper");
        command
            .args([action, "hv-vssd.service"])
            .env("DPKG_ROOT", root.path(""))
            .env("DPKG_MAINTSCRIPT_PACKAGE", "hv-vssd");
        command.status().unwrap().success()
    };
    assert!(!helper("debian-installed"));
    assert!(helper("was-enabled"));
    assert!(helper("enable") && helper("update-state"));
    assert_eq!(root.aliases(), NAMES);
    assert!(helper("was-enabled") && helper("debian-installed"));
    fs::remove_file(root.path("etc/systemd/system").join(C_DAEMON)).unwrap();
    assert!(!helper("was-enabled"));
    assert!(helper("purge"));
    assert!(root.aliases().is_empty(), "{:?}", root.aliases());
    assert!(!helper("debian-installed"));
}
