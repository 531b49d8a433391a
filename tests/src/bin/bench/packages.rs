//! Debian packages with the libraries they need: fetched and unpacked, never installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::tests::command::run;
use ::tests::error::{BedError, BedResult, Context};

/// The package of QEMU's guest agent.
pub(crate) const GUEST_AGENT: &str = "qemu-guest-agent";

/// The package of the database server.
pub(crate) const DATABASE: &str = "postgresql-15";

const PACKAGES: [&str; 3] = [GUEST_AGENT, DATABASE, "postgresql-client-15"];

/// Needed by parts that are not used, or (libc) too near to the machine's own programs to be mixed.
const LEFT_OUT: [&str; 5] = ["libc6", "libgcc-s1", "libllvm14", "libperl5.36", "libz3-4"];

/// Names of the packages and of the libraries behind them.
fn names() -> BedResult<BTreeSet<String>> {
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--recurse", "--no-recommends", "--no-suggests"]);
    command.args(["--no-conflicts", "--no-breaks", "--no-replaces"]);
    let said = run(command.arg("--no-enhances").args(PACKAGES))?;
    let is_library = |name: &&str| name.starts_with("lib") && !LEFT_OUT.contains(name);
    let libraries = said.lines().filter(is_library);
    Ok(libraries.chain(PACKAGES).map(ToOwned::to_owned).collect())
}

/// Changes whenever apt offers other versions.
pub(crate) fn offered() -> BedResult<String> {
    let mut command = Command::new("apt-get");
    run(command.args(["download", "--print-uris"]).args(names()?))
}

/// Unpacked packages.
#[derive(Debug)]
pub(crate) struct Unpacked {
    root: PathBuf,
    archives: PathBuf,
}

/// Fetches and unpacks them below `scratch`.
pub(crate) fn fetch(scratch: &Path) -> BedResult<Unpacked> {
    let (archives, root) = (scratch.join("archives"), scratch.join("unpacked"));
    for dir in [&archives, &root] {
        fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    run(Command::new("apt-get")
        .args(["-q", "download"])
        .args(names()?)
        .current_dir(&archives))?;
    let unpacked = Unpacked { root, archives };
    for archive in unpacked.archives()? {
        let mut command = Command::new("dpkg-deb");
        run(command.arg("-x").arg(archive).arg(&unpacked.root))?;
    }
    Ok(unpacked)
}

impl Unpacked {
    fn archives(&self) -> BedResult<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.archives);
        let entries = entries.doing(|| format!("reading {}", self.archives.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }

    /// The version of a package.
    pub(crate) fn version(&self, package: &str) -> BedResult<String> {
        let prefix = format!("{package}_");
        let is_its = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(&prefix)
        };
        let archive = self.archives()?.into_iter().find(is_its);
        let archive =
            archive.ok_or_else(|| BedError::Setup(format!("apt knows no package {package}")))?;
        let version = run(Command::new("dpkg-deb")
            .arg("-f")
            .arg(archive)
            .arg("Version"))?;
        Ok(version.trim().to_owned())
    }

    /// Where a file of a package is; its path there begins with `/`.
    pub(crate) fn path(&self, installed: &str) -> PathBuf {
        self.root.join(installed.trim_start_matches('/'))
    }

    /// What `LD_LIBRARY_PATH` must be for its programs to run here.
    pub(crate) fn library_path(&self) -> String {
        let dirs = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"];
        dirs.map(|dir| self.path(dir).display().to_string())
            .join(":")
    }

    /// The shared libraries of a program, wherever they are found.
    pub(crate) fn libraries(&self, program: &Path) -> BedResult<BTreeSet<PathBuf>> {
        let said = run(Command::new("ldd")
            .arg(program)
            .env("LD_LIBRARY_PATH", self.library_path()))?;
        if let Some(lacking) = said.lines().find(|line| line.contains("not found")) {
            let program = program.display();
            return Err(BedError::Setup(format!(
                "{program} needs a library that no package brought: {}",
                lacking.trim()
            )));
        }
        let words = said.split_whitespace();
        Ok(words
            .filter(|word| word.starts_with('/') && !word.ends_with(':'))
            .map(PathBuf::from)
            .collect())
    }
}
