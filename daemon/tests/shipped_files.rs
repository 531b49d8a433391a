//! The files that are shipped say what the program does: configuration, its reference, the unit.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hv_vssd::config::Config;

/// Every key there is, with its section. [`every_key_of_the_configuration_is_in_this_list`] keeps it complete.
const KEYS: [(&str, &[&str]); 5] = [
    (
        "",
        &[
            "strictness",
            "hooks",
            "metrics",
            "limits",
            "filesystems",
            "foreign_freeze",
            "expedite",
            "write_back",
        ],
    ),
    ("limits", &["flush", "freeze", "hold"]),
    (
        "filesystems",
        &[
            "exclude_mount_points",
            "exclude_types",
            "exclude_devices",
            "include_mount_points",
            "include_types",
            "include_devices",
        ],
    ),
    (
        "hooks",
        &["enabled", "on_failure", "limit", "total", "by_name"],
    ),
    ("metrics", &["textfile"]),
];

/// Keys that the shipped configuration only describes.
const WITHOUT_DEFAULT: [&str; 2] = ["by_name", "textfile"];

/// Options of man 5 systemd.exec that give a service a mount namespace of its own, in this version or a later one.
const NAMESPACE_OPTIONS: [&str; 58] = [
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
    "PrivateMounts",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
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

/// The value as a configuration has it.
fn as_written(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => format!("\"{text}\""),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Array(elements) if elements.is_empty() => "[]".to_owned(),
        other => panic!("no default is like {other:?}"),
    }
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
    assert_eq!(Config::parse(&all, &path).unwrap(), Config::default());
    let table: toml::Table = all.parse().unwrap();
    for (section, keys) in KEYS {
        let table = match section {
            "" => &table,
            _ => table[section].as_table().unwrap(),
        };
        let shown: BTreeSet<&str> = table.keys().map(String::as_str).collect();
        let keys = keys.iter().filter(|key| !WITHOUT_DEFAULT.contains(key));
        assert_eq!(shown, keys.copied().collect(), "[{section}]");
    }
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
fn every_key_of_the_configuration_is_in_this_list() {
    for (section, keys) in KEYS {
        let header = if section.is_empty() {
            String::new()
        } else {
            format!("[{section}]\n")
        };
        let error = Config::parse(&format!("{header}no_such_key = 1\n"), Path::new("x"))
            .unwrap_err()
            .to_string();
        let expected = error.split_once("expected").unwrap().1;
        let named: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert_eq!(named, keys.iter().copied().collect(), "{error}");
    }
}

#[test]
fn every_key_is_in_the_reference_with_its_default() {
    let (_, reference) = shipped("docs/configuration.md");
    let defaults: toml::Table = uncommented(&shipped("packaging/config.toml").1)
        .parse()
        .unwrap();
    for (section, keys) in KEYS {
        for key in keys {
            if WITHOUT_DEFAULT.contains(key) {
                assert!(reference.contains(&format!("\n| `{key}` |")), "{key}");
                continue;
            }
            if section.is_empty() && defaults[*key].is_table() {
                let heading = format!("\n## [{key}]\n");
                assert!(reference.contains(&heading), "no section [{key}]");
                continue;
            }
            let default = match section {
                "" => as_written(&defaults[*key]),
                _ => as_written(&defaults[section][*key]),
            };
            let row = format!("\n| `{key}` | `{default}` |");
            assert!(reference.contains(&row), "no row {row:?}");
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
    }
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
