//! The same source gives the same bytes, in whatever directory, at whatever time and by whomever it is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::command::run;
use tests::paths;

use crate::made;

/// The source as it is now, and the program: somebody may be working on both.
fn snapshot(to: &Path) {
    let script = format!(
        "mkdir -p {to} && cd {source}
        tar -c --exclude=./target --exclude=./.git --exclude=./tests/fuzz . | tar -x -C {to}
        cp {program} {to}/program",
        to = to.display(),
        source = paths::workspace().display(),
        program = paths::target()
            .join("packages/cargo/release/hv-vssd")
            .display(),
    );
    run(Command::new("bash").args(["-ec", &script])).unwrap();
}

/// A copy of the source that differs in all that must not matter, and the packages that are made of it.
fn packages(source: &Path, parent: &Path, umask: &str, zone: &str, touched: &str) -> [PathBuf; 2] {
    let tree = parent.join("hv-vssd");
    let script = format!(
        "umask {umask}
        mkdir -p {tree} && cd {source} && tar -c . | tar -x -m --no-same-permissions -C {tree}
        find {tree} -type f -exec touch -d {touched} {{}} +
        cd / && exec {tree}/packaging/build --revision 1",
        tree = tree.display(),
        source = source.display(),
    );
    run(Command::new("bash")
        .args(["-ec", &script])
        .env("CARGO_TARGET_DIR", tree.join("target"))
        .env("BINARY", tree.join("program"))
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .env("TZ", zone))
    .unwrap();
    let directory = tree.join("target/packages");
    [made::deb(), made::rpm()].map(|package| directory.join(package.file_name().unwrap()))
}

#[test]
fn two_builds_give_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let (source, here, there) = (
        root.path().join("source"),
        root.path().join("a"),
        root.path().join("quite/another/place"),
    );
    snapshot(&source);
    let one = packages(&source, &here, "022", "UTC", "2001-02-03");
    let other = packages(&source, &there, "077", "Asia/Tokyo", "2030-04-05");
    for (one, other) in one.iter().zip(&other) {
        assert!(
            fs::read(one).unwrap() == fs::read(other).unwrap(),
            "{} differs",
            one.display()
        );
    }
}

#[test]
fn the_program_names_no_directory_of_the_machine_that_built_it() {
    let tree = tempfile::tempdir().unwrap();
    run(Command::new("dpkg-deb")
        .arg("-x")
        .arg(made::deb())
        .arg(tree.path()))
    .unwrap();
    let program = fs::read(tree.path().join("usr/sbin/hv-vssd")).unwrap();
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let holds = |text: &str| {
        program
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    // Where the sources of crates are, to be sure that there are paths at all.
    assert!(holds("/usr/src/crates/"), "paths are not mapped");
    for path in [
        paths::workspace().to_str().unwrap(),
        &cargo,
        "/.cargo/",
        "/home/",
    ] {
        assert!(!holds(path), "{path}");
    }
}
