//! What the scripts do when a package goes.

use std::os::unix::fs::symlink;

use crate::made;
use crate::root::Root;
use crate::steps::{C_DAEMON, install, install_made, install_rpm};

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
            install_made(&root, debian);
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
    root.write("etc/apparmor.d/local/usr.sbin.hv-vssd", "");
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
