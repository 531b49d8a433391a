//! packaging/tools: what is missing, as those scripts are told that need it.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::command::{output, said};
use tests::paths;

/// A script of packaging/, with what cargo has installed in another place than usual.
fn script(name: &str, arguments: &[&str], installed: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(paths::workspace().join("packaging").join(name));
    command
        .args(arguments)
        .env("CARGO_INSTALL_ROOT", installed)
        .env("CARGO_TARGET_DIR", installed);
    let output = output(&mut command).unwrap();
    (output.status.code(), said(&output))
}

/// cargo's own list of what it has installed.
fn install(root: &Path, tool: &str, version: &str) {
    let list = format!(
        "[v1]\n\"{tool} {version} (registry+https://github.com/rust-lang/crates.io-index)\" = [\"{tool}\"]\n"
    );
    fs::write(root.join(".crates.toml"), list).unwrap();
}

#[test]
fn a_tool_is_missing_until_it_is_there_in_the_version_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let missing = |tools: &[&str]| {
        let (status, text) = script("tools", &[&["missing"], tools].concat(), root.path());
        assert_eq!(status, Some(0), "{text}");
        text
    };
    let all = missing(&[]);
    assert_eq!(all.lines().count(), 5, "{all}");
    let one = missing(&["cargo-deb"]);
    let (name, version) = one.trim().split_once('@').unwrap();
    assert_eq!(name, "cargo-deb");
    assert!(all.lines().any(|line| line == one.trim()), "{all}");

    install(root.path(), "cargo-deb", "0.0.1");
    assert_eq!(missing(&["cargo-deb"]), one);
    install(root.path(), "cargo-deb", version);
    assert_eq!(missing(&["cargo-deb"]), "");
    assert_eq!(missing(&[]).lines().count(), 4);
}

#[test]
fn what_needs_a_missing_tool_says_how_it_is_installed() {
    let root = tempfile::tempdir().unwrap();
    for (name, arguments, tools) in [
        (
            "build",
            &[][..],
            &["cargo-deb@", "cargo-generate-rpm@", "cargo-auditable@"][..],
        ),
        ("release", &["--check"], &["auditable2cdx@"]),
        ("release", &["--deny"], &["cargo-deny@"]),
    ] {
        let (status, text) = script(name, arguments, root.path());
        assert_eq!(status, Some(1), "{text}");
        for part in [tools, &["'packaging/tools install'"]].concat() {
            assert!(text.contains(part), "{text:?} has no {part:?}");
        }
    }
}

#[test]
fn a_tool_that_it_does_not_know_is_refused_with_those_that_it_knows() {
    let root = tempfile::tempdir().unwrap();
    let (status, text) = script("tools", &["install", "cargo-audit"], root.path());
    assert_eq!(status, Some(1), "{text}");
    for part in ["cargo-audit", "cargo-deny", "auditable2cdx"] {
        assert!(text.contains(part), "{text:?} has no {part:?}");
    }
    let (status, text) = script("tools", &["list"], root.path());
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("Usage: packaging/tools"), "{text}");
}
