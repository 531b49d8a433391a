//! The commands as a person or a script meets them: exit status, what is said where.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn hv_vssd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("JOURNAL_STREAM")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn config(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn am_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn every_command_explains_itself() {
    let output = hv_vssd(&["--help"]);
    assert!(output.status.success());
    let text = stdout(&output);
    for command in ["run", "check", "plan", "config", "thaw", "demo", "freeze"] {
        assert!(text.contains(&format!("\n  {command} ")), "{text}");
        let help = hv_vssd(&[command, "--help"]);
        assert!(help.status.success(), "{command}");
        let help = stdout(&help);
        assert!(help.contains("Usage: hv-vssd ") && help.contains("--help"));
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{help}"
        );
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = hv_vssd(&["--version"]);
    assert_eq!(
        stdout(&output),
        format!("hv-vssd {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    for arguments in [
        &["--nonsense"][..],
        &["nonsense"],
        &["run", "--nonsense"],
        &["run", "argument"],
        &["run", "--config"],
        &["plan", "--jsn"],
        &["demo", "--dir"],
        &["freeze"],
        &["freeze", "--for", "soon"],
        &[],
    ] {
        let output = hv_vssd(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("--help"), "{arguments:?}");
        assert_eq!(stdout(&output), "");
    }
}

/// Only one agent runs on a machine: tests that start one take turns, also where each is a process of its own.
fn turn() -> nix::fcntl::Flock<File> {
    let path = std::env::temp_dir().join("hv-vssd-tests-run.lock");
    let file = File::create(path).unwrap();
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap()
}

#[test]
fn run_without_the_device_says_what_to_do() {
    assert!(am_root(), "this test needs root");
    let _turn = turn();
    let output = hv_vssd(&["run", "--device", "/nonexistent/hv_vss"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("/nonexistent/hv_vss does not exist") && text.contains("modprobe hv_utils"),
        "{text}"
    );
    let told = text.lines().filter(|line| line.starts_with("hv-vssd: "));
    assert_eq!(told.count(), 1, "{text}");
}

#[test]
fn run_on_what_is_no_channel_fails_instead_of_waiting() {
    assert!(am_root(), "this test needs root");
    let _turn = turn();
    let output = hv_vssd(&["run", "--device", "/dev/null"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("driver"), "{}", stderr(&output));
}

#[test]
fn a_malformed_configuration_is_one_line_with_file_line_and_what_is_wrong() {
    for (text, line, wrong) in [
        ("[limits]\nhold = = 3\n", "line 2", ""),
        ("[limits]\n\nhodl = 3\n", "line 3", "hodl"),
        ("[limits]\nhold = \"long\"\n", "line 2", "whole number"),
        ("limits = 3\n", "line 1", "must be a table"),
        (
            "[filesystems]\nexclude_types = \"ext4\"\n",
            "line 2",
            "a list",
        ),
        ("[unknown]\n", "line 1", "unknown"),
    ] {
        let file = config(text);
        let path = file.path().to_str().unwrap();
        for command in ["run", "plan", "config"] {
            let output = hv_vssd(&[command, "--config", path]);
            assert_eq!(output.status.code(), Some(2), "{text}");
            let told = stderr(&output);
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(told.starts_with("hv-vssd: "), "{told}");
            for part in [path, line, wrong] {
                assert!(told.contains(part), "{part} is not in: {told}");
            }
            assert_eq!(stdout(&output), "");
        }
    }
}

#[test]
fn a_named_configuration_that_is_not_there_or_no_text_is_an_error() {
    let output = hv_vssd(&["plan", "--config", "/nonexistent.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/nonexistent.toml"));
    let file = config("");
    fs::write(file.path(), b"\xff\xfe\x00").unwrap();
    let output = hv_vssd(&["plan", "--config", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}

#[test]
fn the_plan_of_this_machine_can_be_read_by_a_person() {
    let output = hv_vssd(&["plan"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stdout(&output).trim().is_empty());
    let all = hv_vssd(&["plan", "--all"]);
    assert!(stdout(&all).lines().count() >= stdout(&output).lines().count());
}

#[test]
fn the_plan_as_json_has_the_documented_keys() {
    let output = hv_vssd(&["plan", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(
        keys(&plan),
        [
            "left_out",
            "refused",
            "strictness",
            "superblocks",
            "unread_processes"
        ]
    );
    assert_eq!(plan["strictness"], "normal");
    assert!(plan["refused"].as_array().unwrap().is_empty());
    let superblocks = plan["superblocks"].as_array().unwrap();
    let left_out = plan["left_out"].as_array().unwrap();
    for superblock in superblocks {
        assert_eq!(
            keys(superblock),
            [
                "beneath_unknown",
                "dev",
                "fstype",
                "mounts",
                "served_by",
                "source",
                "stacked_on",
                "stage"
            ]
        );
    }
    for entry in left_out {
        assert_eq!(
            keys(entry),
            [
                "dev",
                "explanation",
                "flush",
                "fstype",
                "mounts",
                "reason",
                "source"
            ]
        );
        assert!(!entry["explanation"].as_str().unwrap().is_empty());
    }
    for entry in superblocks.iter().chain(left_out) {
        let mounts = entry["mounts"].as_array().unwrap();
        assert!(!mounts.is_empty());
        for mount in mounts {
            assert_eq!(
                keys(mount),
                [
                    "hidden",
                    "id",
                    "mount_point",
                    "namespace_of",
                    "root",
                    "through_server"
                ]
            );
        }
        assert!(entry["dev"].as_str().unwrap().contains(':'));
    }
    let numbers: Vec<u64> = superblocks
        .iter()
        .map(|superblock| superblock["stage"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted());
    assert!(numbers.first().is_none_or(|first| *first == 1));
}

#[test]
fn what_is_excluded_is_listed_with_that_reason() {
    let before: Value = serde_json::from_slice(&hv_vssd(&["plan", "--json"]).stdout).unwrap();
    let types: Vec<&str> = before["superblocks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|superblock| superblock["fstype"].as_str().unwrap())
        .collect();
    let file = config(&format!("[filesystems]\nexclude_types = {types:?}\n"));
    let path = file.path().to_str().unwrap();
    let output = hv_vssd(&["plan", "--json", "--config", path]);
    let after: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(after["superblocks"].as_array().unwrap().len(), 0);
    let excluded = after["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["reason"] == "excluded");
    assert!(excluded.count() >= types.len());
}

#[test]
fn flush_only_is_told_before_anything_else() {
    let file = config("strictness = \"flush-only\"\n");
    let path = file.path().to_str().unwrap();
    let text = stdout(&hv_vssd(&["plan", "--config", path]));
    assert!(text.starts_with("Nothing is frozen"), "{text}");
    let plan: Value =
        serde_json::from_slice(&hv_vssd(&["plan", "--json", "--config", path]).stdout).unwrap();
    assert_eq!(plan["strictness"], "flush-only");
    assert_eq!(plan["superblocks"].as_array().unwrap().len(), 0);
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is_one() {
    for arguments in [
        &["plan"][..],
        &["plan", "--json"],
        &["config"],
        &["config", "--json"],
    ] {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let command = |output: Stdio| {
            Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
                .args(arguments)
                .stdout(output)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
                .wait_with_output()
                .unwrap()
        };
        let output = command(writer.into());
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command(full.into());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).starts_with("hv-vssd: "));
    }
}
