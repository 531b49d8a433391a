//! What a guest is made of, prepared once and cached in [`crate::paths::testbed`]:
//! kernel, modules, the stand-in bus, the C daemon, the machine's own tools.

mod cpio;
mod libraries;
mod overlay;
mod packages;
mod root;
mod stub;

use std::fs;
use std::path::PathBuf;

use crate::error::{BedError, BedResult, Context};
use crate::kept::lock;
use crate::paths;

pub use overlay::{append_programs, append_system};

/// The kernels under test: those of Debian's cloud images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 12's own.
    V6_1,
    /// The one Debian 12 offers beside it.
    V6_12,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// Its series, as written in the report.
    #[must_use]
    pub fn series(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The package that depends on the current image of this series.
    fn meta_package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }

    fn home(self) -> PathBuf {
        paths::testbed().join("kernels").join(self.series())
    }
}

/// What QEMU is given for a kernel.
#[derive(Debug)]
pub struct Assets {
    /// The kernel image.
    pub vmlinuz: PathBuf,
    /// The initramfs, up to the programs under test.
    pub base: PathBuf,
}

/// Finds what [`prepare`] made.
///
/// # Errors
/// It was not made; the message says how to.
pub fn find(kernel: Kernel) -> BedResult<Assets> {
    let home = kernel.home();
    let assets = Assets {
        vmlinuz: home.join("vmlinuz"),
        base: home.join("base.cpio"),
    };
    if assets.vmlinuz.exists() && assets.base.exists() {
        return Ok(assets);
    }
    Err(BedError::Setup(format!(
        "no {} guest in {}: run `cargo run -p tests --bin testbed-prepare` (or tests/run) first",
        kernel.series(),
        home.display()
    )))
}

/// Makes what is missing or out of date for a kernel, and says what was done.
///
/// # Errors
/// A package cannot be had, or a tool fails.
pub fn prepare(kernel: Kernel) -> BedResult<String> {
    let home = kernel.home();
    fs::create_dir_all(&home).doing(|| format!("making {}", home.display()))?;
    let _lock = lock(&home.join("lock"))?;
    let image = packages::image(kernel.meta_package())?;
    let daemons = packages::daemons(kernel.series())?;
    let release = image.release().to_owned();
    let stamp = format!(
        "{} {} {}",
        image.full_name(),
        daemons.full_name(),
        fingerprint(&["vmbus-stub", "src/assets"])?
    );
    let stamp_file = home.join("stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) && find(kernel).is_ok() {
        return Ok(format!("{release}: up to date"));
    }
    let scratch = tempfile::tempdir_in(&home).doing(|| "making a scratch directory".into())?;
    let image_root = packages::unpack(&image, scratch.path())?;
    let daemons_root = packages::unpack(&daemons, scratch.path())?;
    let bus = stub::build(&release, scratch.path())?;
    let tree = root::assemble(&release, &image_root, &daemons_root, &bus, scratch.path())?;
    let base = scratch.path().join("base.cpio");
    cpio::write_tree(&tree, &base)?;
    fs::rename(&base, home.join("base.cpio")).doing(|| "keeping base.cpio".into())?;
    fs::copy(
        image_root.join("boot").join(format!("vmlinuz-{release}")),
        home.join("vmlinuz"),
    )
    .doing(|| "keeping vmlinuz".into())?;
    fs::write(&stamp_file, stamp).doing(|| "writing the stamp".into())?;
    Ok(format!("{release}: prepared"))
}

/// What the assets of a kernel were made of.
///
/// # Errors
/// They were not made.
pub(crate) fn stamp(kernel: Kernel) -> BedResult<String> {
    find(kernel)?;
    let file = kernel.home().join("stamp");
    fs::read_to_string(&file).doing(|| format!("reading {}", file.display()))
}

/// Changes whenever a file in one of these directories of the package does.
pub(crate) fn fingerprint(dirs: &[&str]) -> BedResult<String> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let tests = paths::workspace().join("tests");
    let mut hasher = DefaultHasher::new();
    for dir in dirs {
        let dir = tests.join(dir);
        let entries = fs::read_dir(&dir).doing(|| format!("reading {}", dir.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            fs::read(&file)
                .doing(|| format!("reading {}", file.display()))?
                .hash(&mut hasher);
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}
