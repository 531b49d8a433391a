//! The SELinux module compiles, and grants what it says and no more.

use std::fs;
use std::process::Command;

use tests::command::run;
use tests::paths;

/// The module in the form that names every single rule.
fn compiled() -> String {
    let directory = tempfile::tempdir().unwrap();
    for kind in ["te", "fc", "if"] {
        let name = format!("hv-vssd.{kind}");
        let from = paths::workspace().join("packaging/selinux").join(&name);
        fs::copy(from, directory.path().join(name)).unwrap();
    }
    run(Command::new("make").current_dir(directory.path()).args([
        "-f",
        "/usr/share/selinux/devel/Makefile",
        "hv-vssd.pp",
    ]))
    .unwrap();
    run(Command::new("/usr/libexec/selinux/hll/pp").arg(directory.path().join("hv-vssd.pp")))
        .unwrap()
}

/// What the domain may do to a target and class, in all rules together.
fn granted<'a>(module: &'a str, target: &str, class: &str) -> Vec<&'a str> {
    let start = format!("(allow hv_vssd_t {target} ({class} (");
    let rules = module
        .lines()
        .filter_map(|line| line.trim().strip_prefix(start.as_str()));
    let mut words: Vec<&str> = rules
        .flat_map(|rule| rule.trim_end_matches(')').split(' '))
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

#[test]
fn the_selinux_module_compiles_and_grants_what_it_must_alone() {
    let module = compiled();
    assert_eq!(
        granted(&module, "self", "capability"),
        [
            "dac_read_search",
            "ipc_lock",
            "setpcap",
            "sys_admin",
            "sys_ptrace",
            "sys_resource"
        ]
    );
    // A freeze is an ioctl on a directory; no file of a stranger is opened, and nothing is made, there.
    let directories = granted(&module, "file_type", "dir");
    assert!(directories.contains(&"ioctl"), "{directories:?}");
    for forbidden in ["write", "add_name", "remove_name", "create"] {
        assert!(!directories.contains(&forbidden), "{directories:?}");
    }
    assert_eq!(granted(&module, "file_type", "file"), ["getattr"]);
    assert_eq!(
        granted(&module, "filesystem_type", "filesystem"),
        ["getattr", "mount"]
    );
    let disks = granted(&module, "fixed_disk_device_t", "blk_file");
    assert!(
        disks.contains(&"read") && !disks.contains(&"write"),
        "{disks:?}"
    );
    // A program that sleeps in a write is interrupted, or else stopped and continued.
    assert_eq!(
        granted(&module, "domain", "process"),
        ["ptrace", "signal", "sigstop"]
    );
    // What starting a hook in a transient unit takes, and no unit that is not one of these.
    let services: Vec<&str> = module
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("(allow hv_vssd_t ") && line.contains("(service ("))
        .collect();
    assert_eq!(
        services,
        ["(allow hv_vssd_t systemd_transient_unit_t (service (start stop status)))"]
    );
    assert_eq!(granted(&module, "init_t", "system"), ["start", "status"]);
    // systemd starts it in its domain, although its unit forbids new privileges.
    for rule in [
        "(typetransition init_t hv_vssd_exec_t process hv_vssd_t)",
        "(allow init_t hv_vssd_t (process2 (nnp_transition)))",
    ] {
        assert!(module.contains(rule), "no {rule}");
    }
}
