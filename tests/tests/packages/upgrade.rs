//! What the scripts do when another version comes, or another package changes what is ours.

use std::fs;
use std::os::unix::fs::symlink;

use crate::made;
use crate::root::{NAMES, Root};
use crate::steps::{Agent, HELPER, PROFILE, install, install_rpm, left_alone, next_deb, next_rpm};

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
    assert!(agent.lives());
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
