//! The files that are shipped say what the program does: configuration, its reference, the unit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod renew;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hv_vssd::config::{Config, reference};

/// Around the part of docs/configuration.md that is made from the code.
const MARKS: [&str; 2] = [
    "<!-- From here on made from daemon/src/config/keys.rs; see CONTRIBUTING.md, \"What is made from the code\". -->\n",
    "<!-- To here. -->\n",
];

/// Options of man 5 systemd.exec that give a service a mount namespace of its own, in this version or a later one.
const NAMESPACE_OPTIONS: [&str; 54] = [
    "BindPaths",
    "BindReadOnlyPaths",
    "BPFDelegateCommands",
    "DynamicUser",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImages",
    "ImportCredential",
    "InaccessibleDirectories",
    "InaccessiblePaths",
    "IPCNamespacePath",
    "JoinsNamespaceOf",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "LogNamespace",
    "MountAPIVFS",
    "MountFlags",
    "MountImages",
    "NetworkNamespacePath",
    "NoExecPaths",
    "PrivateBPF",
    "PrivateDevices",
    "PrivateIPC",
    "PrivatePIDs",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyDirectories",
    "ReadOnlyPaths",
    "ReadWriteDirectories",
    "ReadWritePaths",
    "RootDirectory",
    "RootDirectoryStartOnly",
    "RootEphemeral",
    "RootHash",
    "RootHashSignature",
    "RootImage",
    "RootImageOptions",
    "RootImagePolicy",
    "RootMStack",
    "RootVerity",
    "SetCredential",
    "SetCredentialEncrypted",
    "TemporaryFileSystem",
    "ExtensionImagePolicy",
    "MountImagePolicy",
    "UserNamespacePath",
];

fn shipped(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    (path, text)
}

/// The text with its settings made active: `#key = …`, without a blank, is one; all other comments have a blank.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn the_shipped_configuration_is_valid_and_changes_nothing() {
    let (path, text) = shipped("packaging/config.toml");
    assert_eq!(Config::parse(&text, &path).unwrap(), Config::default());
}

#[test]
fn what_the_shipped_configuration_shows_as_defaults_are_the_defaults() {
    let (path, text) = shipped("packaging/config.toml");
    let all = uncommented(&text);
    assert!(all.contains("\nhold = 120\n"), "{all}");
    assert_eq!(Config::parse(&all, &path).unwrap(), Config::default());
}

#[test]
fn the_shipped_configuration_is_made_from_the_code() {
    renew::assert_is("packaging/config.toml", &reference::shipped_file());
}

#[test]
fn the_reference_is_made_from_the_code() {
    let (_, text) = shipped("docs/configuration.md");
    let (before, rest) = text.split_once(MARKS[0]).expect("the first mark is gone");
    let (_, after) = rest.split_once(MARKS[1]).expect("the second mark is gone");
    let made = reference::markdown();
    let [first, second] = MARKS;
    renew::assert_is(
        "docs/configuration.md",
        &format!("{before}{first}\n{made}{second}{after}"),
    );
}

#[test]
fn every_example_of_the_reference_is_a_valid_configuration() {
    let (path, text) = shipped("docs/configuration.md");
    let examples: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(!examples.is_empty(), "an example is gone");
    for example in examples {
        if let Err(error) = Config::parse(example, &path) {
            panic!("{error}\n{example}");
        }
    }
}

#[test]
fn the_unit_makes_no_mount_namespace() {
    let (_, unit) = shipped("systemd/hv-vssd.service");
    for line in unit.lines() {
        let key = line.split('=').next().unwrap().trim();
        assert!(
            !NAMESPACE_OPTIONS.contains(&key),
            "{line}: the service would not see the machine's mounts"
        );
        assert!(
            key != "PrivateMounts" || line == "PrivateMounts=no",
            "{line}: the service would not see the machine's mounts"
        );
    }
    // PrivateNetwork= makes one since systemd 254, unless it is told not to.
    let has = |wanted: &str| unit.lines().any(|line| line.trim().starts_with(wanted));
    assert!(!has("PrivateNetwork") || has("PrivateMounts=no"));
}

#[test]
fn the_unit_may_do_what_the_agent_asks_for() {
    let (_, unit) = shipped("systemd/hv-vssd.service");
    let granted = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .unwrap();
    let granted: BTreeSet<String> = granted.split(' ').map(str::to_owned).collect();
    for capability in hv_vssd::confine::AGENT {
        assert!(granted.contains(&capability.to_string()), "{capability}");
    }
}

#[test]
fn the_unit_thaws_after_an_end_unless_it_was_a_good_one_and_nothing_is_on_record() {
    let (_, unit) = shipped("systemd/hv-vssd.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStopPost=/bin/sh -c '"))
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger");
    let script = line
        .strip_suffix('\'')
        .unwrap()
        .replace("/run/hv-vssd/ledger", ledger.to_str().unwrap())
        .replace("/usr/sbin/hv-vssd thaw", "echo thaws");
    assert!(!script.contains("/run/hv-vssd"), "{script}");
    let thaws = |result: &str| {
        let mut sh = Command::new("sh");
        let output = sh
            .args(["-c", &script])
            .env("SERVICE_RESULT", result)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout == b"thaws\n"
    };
    for (is_there, result, expected) in [
        (false, "success", false),
        (false, "signal", true),
        (true, "success", true),
        (true, "oom-kill", true),
    ] {
        if is_there {
            fs::write(&ledger, "").unwrap();
        }
        assert_eq!(thaws(result), expected, "{is_there} {result}");
    }
}

/// In packaging/hooks.
const HOOKS: [&str; 4] = ["mariadb", "postgresql", "redis", "template"];

#[test]
fn shipped_hooks_may_be_run_and_a_thaw_without_a_freeze_does_nothing() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/hooks");
    let mut found: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, HOOKS);
    for hook in HOOKS {
        let path = directory.join(hook);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#!/bin/sh\n"), "{hook}");
        assert!(
            text.contains("/etc/hv-vssd/hooks.d/"),
            "{hook} says how it is switched on"
        );
        let called = |operation: &str| Command::new(&path).arg(operation).output().unwrap();
        // Not `freeze`: a server may run on this machine.
        let output = called("thaw");
        assert!(output.status.success(), "{hook}: {output:?}");
        assert_eq!(called("flush").status.code(), Some(2), "{hook}");
    }
}
