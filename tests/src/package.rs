//! hv-vssd's Debian package, made by `packaging/build` of the program under test.
//!
//! `testbed-prepare` makes it; a test that finds it missing, or older than what it is made of, makes it anew. So no
//! test installs yesterday's program.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::error::{BedError, BedResult, Context};
use crate::kept::lock;
use crate::paths;

/// The package's revisions: the one that is installed, and the one that it is upgraded to.
pub const REVISIONS: [u32; 2] = [1, 2];

/// What the package is made of, beside the program; files and directories of the workspace.
const SOURCES: [&str; 8] = [
    "CHANGELOG.md",
    "README.md",
    "SECURITY.md",
    "Cargo.toml",
    "daemon/Cargo.toml",
    "docs",
    "packaging",
    "systemd",
];

/// The version and revision of the package as dpkg has it.
#[must_use]
pub fn version(revision: u32) -> String {
    format!("{}-{revision}", env!("CARGO_PKG_VERSION"))
}

/// The package of a revision, made if it is missing or out of date.
///
/// # Errors
/// The program was not built, or `packaging/build` fails; the message says why.
pub fn deb(revision: u32) -> BedResult<PathBuf> {
    let home = paths::testbed().join("package");
    fs::create_dir_all(&home).doing(|| format!("making {}", home.display()))?;
    let _lock = lock(&home.join("lock"))?;
    let package = home
        .join("packages")
        .join(format!("hv-vssd_{}_amd64.deb", version(revision)));
    let program = paths::hv_vssd();
    if !program.is_file() {
        return Err(BedError::Setup(format!(
            "no {}: run `cargo build --release -p hv-vssd` first",
            program.display()
        )));
    }
    let stamp = stamp(&program)?;
    let stamp_file = home.join(format!("stamp-{revision}"));
    if package.is_file() && fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(package);
    }
    run(Command::new(paths::workspace().join("packaging/build"))
        .args(["deb", "--revision", &revision.to_string()])
        // A directory of its own: packages that are to be released are not replaced.
        .env("CARGO_TARGET_DIR", &home)
        .env("BINARY", &program))?;
    fs::write(&stamp_file, stamp).doing(|| format!("writing {}", stamp_file.display()))?;
    Ok(package)
}

/// Changes whenever the program or a source of the package does.
fn stamp(program: &Path) -> BedResult<String> {
    let mut hasher = DefaultHasher::new();
    add(program, &mut hasher)?;
    for source in SOURCES {
        add(&paths::workspace().join(source), &mut hasher)?;
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn add(path: &Path, hasher: &mut DefaultHasher) -> BedResult<()> {
    if !path.is_dir() {
        let content = fs::read(path).doing(|| format!("reading {}", path.display()))?;
        (path, content).hash(hasher);
        return Ok(());
    }
    let entries = fs::read_dir(path).doing(|| format!("reading {}", path.display()))?;
    let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    below.sort();
    below.iter().try_for_each(|path| add(path, hasher))
}
