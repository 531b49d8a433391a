//! What is in the deb.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::process::Command;

use tempfile::TempDir;
use tests::command::{output, run, said};

use crate::made;

/// The package, unpacked: its files, and the control files below DEBIAN.
pub(crate) fn unpacked() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    run(Command::new("dpkg-deb")
        .arg("-R")
        .arg(made::deb())
        .arg(directory.path()))
    .unwrap();
    directory
}

fn field(name: &str) -> String {
    run(Command::new("dpkg-deb")
        .arg("-f")
        .arg(made::deb())
        .arg(name))
    .unwrap()
    .trim()
    .to_owned()
}

/// Path to mode and owner, as tar lists them.
fn listed() -> BTreeMap<String, (String, String)> {
    let list = run(Command::new("dpkg-deb").arg("-c").arg(made::deb())).unwrap();
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (
            words[5].trim_start_matches("./").to_owned(),
            (words[0].to_owned(), words[1].to_owned()),
        )
    };
    list.lines().map(entry).collect()
}

#[test]
fn its_fields_say_what_it_is_and_needs() {
    assert_eq!(field("Package"), "hv-vssd");
    assert_eq!(field("Version"), format!("{}-1", made::version()));
    let tree = unpacked();
    let glibc = made::newest_glibc(&tree.path().join("usr/sbin/hv-vssd"));
    assert_eq!(field("Depends"), format!("libc6 (>= {glibc})"));
    for none in ["Conflicts", "Breaks", "Replaces"] {
        assert_eq!(field(none), "", "it is installed beside hyperv-daemons");
    }
}

/// In bytes: the agent is in every image, and all of it is locked in memory.
const LARGEST_PROGRAM: u64 = 3 << 20;

#[test]
fn the_program_is_small() {
    let size = fs::metadata(unpacked().path().join("usr/sbin/hv-vssd"))
        .unwrap()
        .len();
    assert!(size <= LARGEST_PROGRAM, "{size} bytes");
}

#[test]
fn all_that_a_source_installation_has_is_in_it_in_debians_places() {
    let expected: BTreeSet<String> = made::installed_from_source()
        .into_iter()
        .map(|path| match path.as_str() {
            page if page.contains("/man/man") => format!("{page}.gz"),
            "usr/share/zsh/site-functions/_hv-vssd" => {
                "usr/share/zsh/vendor-completions/_hv-vssd".to_owned()
            }
            "usr/share/doc/hv-vssd/CHANGELOG.md" => {
                "usr/share/doc/hv-vssd/changelog.Debian.gz".to_owned()
            }
            // In the words of Debian: see the copyright file.
            licence if licence.contains("/LICENSE-") => {
                "usr/share/doc/hv-vssd/copyright".to_owned()
            }
            _ => path,
        })
        .chain([
            "etc/apparmor.d/usr.sbin.hv-vssd".to_owned(),
            "usr/share/doc/hv-vssd/third-party-notices.gz".to_owned(),
            "usr/share/lintian/overrides/hv-vssd".to_owned(),
        ])
        .collect();
    let files: BTreeSet<String> = listed()
        .into_keys()
        .filter(|path| !path.is_empty() && !path.ends_with('/'))
        .collect();
    assert_eq!(files, expected);
}

#[test]
fn owners_and_modes_are_those_of_a_system() {
    let entries = listed();
    assert!(
        entries.contains_key("etc/hv-vssd/hooks.d/"),
        "hooks have a directory"
    );
    for (path, (mode, owner)) in entries {
        let expected = match path.as_str() {
            directory if directory.is_empty() || directory.ends_with('/') => "drwxr-xr-x",
            program
                if program.starts_with("usr/sbin/") || program.contains("/hooks.available/") =>
            {
                "-rwxr-xr-x"
            }
            _ => "-rw-r--r--",
        };
        assert_eq!(
            (mode.as_str(), owner.as_str()),
            (expected, "root/root"),
            "{path}"
        );
    }
}

#[test]
fn the_administrators_files_and_no_others_are_configuration() {
    let tree = unpacked();
    let text = fs::read_to_string(tree.path().join("DEBIAN/conffiles")).unwrap();
    let marked: BTreeSet<&str> = text.lines().collect();
    assert_eq!(
        marked,
        BTreeSet::from([
            "/etc/apparmor.d/usr.sbin.hv-vssd",
            "/etc/hv-vssd/config.toml"
        ])
    );
}

#[test]
fn its_sums_are_right_and_complete() {
    let tree = unpacked();
    let sums = tree.path().join("DEBIAN/md5sums");
    run(Command::new("md5sum")
        .args(["--check", "--strict", "--quiet"])
        .arg(&sums)
        .current_dir(tree.path()))
    .unwrap();
    let text = fs::read_to_string(sums).unwrap();
    let summed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(_, path)| path)
        .collect();
    let files = made::files(tree.path());
    let expected: BTreeSet<&str> = files
        .iter()
        .map(String::as_str)
        .filter(|path| path.starts_with("usr/"))
        .collect();
    assert_eq!(summed, expected);
}

#[test]
fn its_changelog_is_the_projects() {
    let tree = unpacked();
    let packed = tree
        .path()
        .join("usr/share/doc/hv-vssd/changelog.Debian.gz");
    // In RFC 1952, bytes 4 to 7 are the time: none.
    let mut head = [0_u8; 8];
    fs::File::open(&packed)
        .unwrap()
        .read_exact(&mut head)
        .unwrap();
    assert_eq!(head[4..], [0; 4]);
    let changelog = tree.path().join("changelog");
    fs::write(
        &changelog,
        run(Command::new("gzip").arg("-dc").arg(&packed)).unwrap(),
    )
    .unwrap();
    let parsed = |field: &str| {
        let mut command = Command::new("dpkg-parsechangelog");
        run(command.arg("-l").arg(&changelog).args(["-S", field]))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(parsed("Version"), field("Version"));
    assert_eq!(parsed("Maintainer"), field("Maintainer"));
    assert!(
        parsed("Changes").contains("hv-vssd run"),
        "{}",
        parsed("Changes")
    );
}

#[test]
fn lintian_has_nothing_to_say() {
    let mut command = Command::new("lintian");
    command
        .args([
            "--allow-root",
            "--display-info",
            "--fail-on",
            "error,warning,info",
        ])
        .arg(made::deb());
    let output = output(&mut command).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "");
}
