//! Where the packages are, and what they are expected to hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::command::run;
use tests::paths;

/// A package that packaging/build has made.
fn made(name: &str) -> PathBuf {
    let package = paths::target().join("packages").join(name);
    assert!(
        package.is_file(),
        "{name} is missing: packaging/build makes it"
    );
    package
}

pub(crate) fn deb() -> PathBuf {
    made(&format!("hv-vssd_{}-1_amd64.deb", version()))
}

pub(crate) fn rpm() -> PathBuf {
    made(&format!("hv-vssd-{}-1.x86_64.rpm", version()))
}

/// Of [workspace.package] in Cargo.toml.
pub(crate) fn version() -> String {
    let text = fs::read_to_string(paths::workspace().join("Cargo.toml")).unwrap();
    let (_, rest) = text.split_once("\nversion = \"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// What packaging/install installs, with PREFIX=/usr: paths without the leading slash.
pub(crate) fn installed_from_source() -> BTreeSet<String> {
    let root = tempfile::tempdir().unwrap();
    run(Command::new(paths::workspace().join("packaging/install"))
        .env("PREFIX", "/usr")
        .env("DESTDIR", root.path())
        .env("BINARY", "/bin/true"))
    .unwrap();
    files(root.path())
}

/// All files below, without the leading slash.
pub(crate) fn files(root: &Path) -> BTreeSet<String> {
    let list = run(Command::new("find")
        .arg(root)
        .args(["!", "-type", "d", "-printf", "%P\\n"]))
    .unwrap();
    list.lines().map(str::to_owned).collect()
}

/// The highest version of glibc whose symbols the program uses.
pub(crate) fn newest_glibc(program: &Path) -> String {
    let symbols = run(Command::new("objdump").arg("-T").arg(program)).unwrap();
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let version: String = rest
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        let numbers: Vec<u32> = version
            .split('.')
            .filter_map(|number| number.parse().ok())
            .collect();
        (numbers.first() == Some(&2)).then_some((numbers, version))
    });
    versions.max().expect("the program is linked to glibc").1
}
