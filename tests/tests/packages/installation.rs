//! What the scripts do when a package comes, called by dpkg and rpm themselves on a root of their own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::made;
use crate::root::{NAMES, Root};
use crate::steps::{
    C_DAEMON, HELPER, PROFILE, install, install_made, install_rpm, left_alone, next_deb, text,
};

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
        install_made(&root, debian);
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
        install_made(&root, debian);
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
            install_made(&root, debian);
            left_alone(&root);
            let link = fs::read_link(root.path("etc/systemd/system").join(masked)).unwrap();
            assert_eq!(link, Path::new("/dev/null"));
        }
    }
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
        install_made(&root, debian);
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
