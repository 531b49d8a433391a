//! The unit's check sees each directive of the sandbox that goes.

use std::fs;
use std::process::{Command, Output};

use tests::paths;

/// Where the directives begin that keep something away, and where they end.
const SANDBOX: [&str; 2] = ["# What it may do.", "[Install]"];

/// Without any weight of its own in what systemd-analyze counts.
const UNCOUNTED: [&str; 3] = ["PrivateMounts=no", "SystemCallErrorNumber=", "DeviceAllow="];

fn check(unit: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hv-vssd.service");
    fs::write(&file, unit).unwrap();
    Command::new(paths::workspace().join("packaging/check-unit"))
        .arg(&file)
        .output()
        .unwrap()
}

#[test]
fn the_unit_is_as_tight_as_is_told_and_no_directive_can_go_unnoticed() {
    let unit = fs::read_to_string(paths::workspace().join("systemd/hv-vssd.service")).unwrap();
    let whole = check(&unit);
    assert!(whole.status.success(), "{whole:?}");

    let start = unit.find(SANDBOX[0]).unwrap();
    let end = unit.find(SANDBOX[1]).unwrap();
    let directives = unit[start..end].lines().filter(|line| {
        let counted = !UNCOUNTED
            .iter()
            .any(|uncounted| line.starts_with(uncounted));
        !line.is_empty() && !line.starts_with('#') && counted
    });
    let mut tried = 0;
    for directive in directives {
        let without = unit.replace(&format!("{directive}\n"), "");
        assert!(
            !check(&without).status.success(),
            "{directive} can go, and nobody is told"
        );
        tried += 1;
    }
    assert!(tried >= 15, "only {tried} directives were tried");
}

#[test]
fn a_mount_namespace_is_refused_whatever_makes_it() {
    let unit = fs::read_to_string(paths::workspace().join("systemd/hv-vssd.service")).unwrap();
    for option in [
        "PrivateTmp=yes",
        "ProtectSystem=strict",
        "ReadWritePaths=/run",
        "PrivateMounts=yes",
    ] {
        let with = unit.replace("[Install]", &format!("{option}\n\n[Install]"));
        let said = check(&with);
        assert!(
            !said.status.success()
                && String::from_utf8_lossy(&said.stderr).contains("mount namespace"),
            "{option}: {said:?}"
        );
    }
}
