//! packaging/build and packaging/deb/changelog with what they must refuse, and what they must make of it.

use std::io::Write;
use std::process::{Command, Stdio};

use tests::command::{output, run, said};
use tests::paths;

fn build(arguments: &[&str], binary: &str) -> (Option<i32>, String) {
    let target = tempfile::tempdir().unwrap();
    let mut command = Command::new(paths::workspace().join("packaging/build"));
    command
        .args(arguments)
        .env("BINARY", binary)
        .env("CARGO_TARGET_DIR", target.path());
    let output = output(&mut command).unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn what_cannot_be_built_is_refused_with_a_reason() {
    for revision in ["", "-1", "1-2", "x", "1 2"] {
        let (status, text) = build(&["--revision", revision], "/bin/true");
        assert_eq!(status, Some(1), "{text}");
        let reason = format!("it is '{revision}'");
        assert!(text.contains(&reason), "{text}");
    }
    let (status, text) = build(&[], "/nowhere/hv-vssd");
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("BINARY=/nowhere/hv-vssd does not exist"),
        "{text}"
    );
    let (status, text) = build(&["tar"], "/bin/true");
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("Usage: packaging/build"), "{text}");
}

#[test]
fn a_program_that_is_ready_is_packed_as_it_is_in_the_revision_asked_for() {
    let target = tempfile::tempdir().unwrap();
    run(Command::new(paths::workspace().join("packaging/build"))
        .args(["deb", "--revision", "1.2"])
        .env("BINARY", "/bin/true")
        .env("MAINTAINER", "Some One <one@example.org>")
        .env("CARGO_TARGET_DIR", target.path()))
    .unwrap();
    let version = format!("{}-1.2", crate::made::version());
    let package = target
        .path()
        .join(format!("packages/hv-vssd_{version}_amd64.deb"));
    let field = |name| run(Command::new("dpkg-deb").arg("-f").arg(&package).arg(name)).unwrap();
    assert_eq!(field("Version").trim(), version);
    assert_eq!(field("Maintainer").trim(), "Some One <one@example.org>");
    let tree = target.path().join("tree");
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&tree)).unwrap();
    run(Command::new("cmp")
        .arg("/bin/true")
        .arg(tree.join("usr/sbin/hv-vssd")))
    .unwrap();
}

fn changelog(text: &str) -> String {
    let mut child = Command::new(paths::workspace().join("packaging/deb/changelog"))
        .arg("1.1.0-2")
        .env("MAINTAINER", "Some One <one@example.org>")
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

const OLD: &str = "
## [1.0.0] - 2023-01-31

### Added

- The first.
";

const OLD_MADE: &str = "
hv-vssd (1.0.0-1) unstable; urgency=medium

  [ Added ]
  * The first.

 -- Some One <one@example.org>  Tue, 31 Jan 2023 12:00:00 +0000
";

const NEW_MADE: &str = "hv-vssd (1.1.0-2) unstable; urgency=medium

  [ Fixed ]
  * A long line that is not at its end before the eightieth column is broken,
    and goes on.
  * Another.

 -- Some One <one@example.org>  Tue, 14 Nov 2023 22:13:20 +0000
";

const NEW: &str = "
### Fixed

- A long line that is not at its end before the eightieth
  column is broken, and goes on.
- Another.
";

#[test]
fn a_version_is_one_entry_of_debians_changelog_before_and_after_its_release() {
    let expected = format!("{NEW_MADE}{OLD_MADE}");
    let before = changelog(&format!("# Changelog\n\n## [Unreleased]\n{NEW}{OLD}"));
    assert_eq!(before, expected);
    let after = changelog(&format!(
        "# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2023-11-14\n{NEW}{OLD}"
    ));
    assert_eq!(after, expected);
}
