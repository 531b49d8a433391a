//! Debian packages: resolved, fetched and unpacked, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::error::{BedError, BedResult, Context};

/// A package of a version.
#[derive(Debug)]
pub(super) struct Package {
    name: String,
    version: String,
}

impl Package {
    /// `name=version`.
    pub(super) fn full_name(&self) -> String {
        format!("{}={}", self.name, self.version)
    }

    /// The kernel release of an image package.
    pub(super) fn release(&self) -> &str {
        self.name.strip_prefix("linux-image-").unwrap_or(&self.name)
    }
}

/// The image package that a meta package stands for today.
pub(super) fn image(meta: &str) -> BedResult<Package> {
    let said = run(Command::new("apt-cache").args(["depends", meta]))?;
    let name = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| missing(meta))?;
    let version = versions(name)?
        .into_iter()
        .next()
        .ok_or_else(|| missing(name))?;
    Ok(Package {
        name: name.to_owned(),
        version,
    })
}

/// The C daemon's package: of the kernel's series, or else the newest there is.
pub(super) fn daemons(series: &str) -> BedResult<Package> {
    let name = "hyperv-daemons";
    let all = versions(name)?;
    let of_series = all
        .iter()
        .find(|version| version.starts_with(&format!("{series}.")));
    let version = of_series.or(all.first()).ok_or_else(|| missing(name))?;
    Ok(Package {
        name: name.to_owned(),
        version: version.clone(),
    })
}

fn missing(name: &str) -> BedError {
    BedError::Setup(format!(
        "apt knows no package {name}: run `apt-get update`, or tests/run as root"
    ))
}

/// The versions apt offers, newest first.
fn versions(name: &str) -> BedResult<Vec<String>> {
    let said = run(Command::new("apt-cache").args(["madison", name]))?;
    let columns = said.lines().filter_map(|line| line.split('|').nth(1));
    Ok(columns.map(|version| version.trim().to_owned()).collect())
}

/// Fetches a package and unpacks it into a directory below `scratch`.
pub(super) fn unpack(package: &Package, scratch: &Path) -> BedResult<PathBuf> {
    let fetched = scratch.join(format!("{}.deb", package.name));
    std::fs::create_dir_all(&fetched).doing(|| format!("making {}", fetched.display()))?;
    run(Command::new("apt-get")
        .args(["download", &package.full_name()])
        .current_dir(&fetched))?;
    let archive = std::fs::read_dir(&fetched)
        .doing(|| format!("reading {}", fetched.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| missing(&package.name))?;
    let root = scratch.join(&package.name);
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&root))?;
    Ok(root)
}
