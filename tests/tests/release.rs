//! What packaging/release says to a tree that must not be released, and what the checks of dependencies rest on.
//! Needs git, and no guest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use tests::paths;

/// All that `packaging/release --state` reads.
const READ: [&str; 6] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "docs",
    "packaging",
];

/// A copy of the tree that may be released: committed, tagged, with a dated section in its CHANGELOG.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(TempDir::new().unwrap());
        for name in READ {
            let status = Command::new("cp")
                .arg("-a")
                .arg(paths::workspace().join(name))
                .arg(tree.path())
                .status()
                .unwrap();
            assert!(status.success(), "cp {name}: {status}");
        }
        tree.write("CHANGELOG.md", &changelog(&version(), "2026-01-31"));
        tree.git(&["init", "--quiet"]);
        tree.commit();
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path().join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}");
        self.write(file, &text.replace(from, to));
    }

    fn git(&self, arguments: &[&str]) {
        let status = Command::new("git")
            .args(["-c", "user.name=Test", "-c", "user.email=test@localhost"])
            .args(["-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"])
            .args(arguments)
            .current_dir(self.path())
            .status()
            .unwrap();
        assert!(status.success(), "git {arguments:?}: {status}");
    }

    /// Commits what there is, and tags it.
    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=Test"]);
        self.git(&["tag", "--force", &format!("v{}", version())]);
    }

    fn state(&self) -> Output {
        Command::new(self.path().join("packaging/release"))
            .arg("--state")
            .output()
            .unwrap()
    }

    /// Asserts that it is refused in one sentence that has all of `words`.
    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let output = self.state();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "not refused; said: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn changelog(version: &str, date: &str) -> String {
    format!("# Changelog\n\n## [{version}] - {date}\n\n### Added\n\n- Something.\n")
}

#[test]
fn a_tree_whose_parts_agree_may_be_released() {
    let output = Tree::new().state();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{} may be released\n", version())
    );
}

#[test]
fn a_changed_file_is_named() {
    let tree = Tree::new();
    tree.write("docs/new.md", "not committed\n");
    tree.refused(&["not clean", "docs/new.md", "commit"]);
}

#[test]
fn a_commit_after_the_tag_is_refused() {
    let tree = Tree::new();
    tree.git(&["commit", "--quiet", "--allow-empty", "--message=Later"]);
    tree.refused(&["tag", "git tag -s v"]);
}

#[test]
fn a_directory_without_git_is_refused() {
    let tree = Tree::new();
    fs::remove_dir_all(tree.path().join(".git")).unwrap();
    tree.refused(&["no git checkout"]);
}

#[test]
fn a_changelog_of_another_version_is_refused() {
    let tree = Tree::new();
    tree.write("CHANGELOG.md", &changelog("9.9.9", "2026-01-31"));
    tree.commit();
    tree.refused(&["CHANGELOG.md has no section", &version()]);
}

#[test]
fn a_changelog_without_a_real_date_is_refused() {
    for date in ["soon", "2026-02-31", "31.01.2026"] {
        let tree = Tree::new();
        tree.write("CHANGELOG.md", &changelog(&version(), date));
        tree.commit();
        tree.refused(&["CHANGELOG.md", date, "date"]);
    }
}

#[test]
fn a_newer_section_above_that_of_the_version_is_refused() {
    let tree = Tree::new();
    let both = changelog("9.9.9", "2026-02-01") + &changelog(&version(), "2026-01-31");
    tree.write("CHANGELOG.md", &both);
    tree.commit();
    tree.refused(&["newest"]);
}

#[test]
fn an_empty_section_is_refused() {
    let tree = Tree::new();
    tree.replace("CHANGELOG.md", "- Something.\n", "");
    tree.commit();
    tree.refused(&["empty"]);
}

#[test]
fn every_place_that_repeats_the_version_is_compared() {
    let version = version();
    let lock = format!("name = \"hvutil-sys\"\nversion = \"{version}\"");
    let library = format!("path = \"hvutil-sys\", version = \"{version}\"");
    let manual = format!("hv-vssd {version}");
    let package = format!("hv-vssd_{version}-");
    for (file, text) in [
        ("Cargo.toml", &library),
        ("Cargo.lock", &lock),
        ("packaging/man/hv-vssd.toml.5", &manual),
        ("README.md", &package),
        ("docs/packaging.md", &package),
    ] {
        let tree = Tree::new();
        tree.replace(file, text, &text.replace(&version, "9.9.9"));
        tree.commit();
        tree.refused(&[file, &version]);
    }
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let output = Command::new(paths::workspace().join("packaging/release"))
        .arg("--chek")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
