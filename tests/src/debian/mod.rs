//! A Debian 12 system with systemd, udev, dbus, a persistent journal and the distribution's
//! hyperv-daemons, made once for each [`Variant`] and kept in [`crate::paths::testbed`].
//!
//! Its disks, in the order of [`Made::disks`]:
//!
//! | disk | holds |
//! |---|---|
//! | `/dev/vda` | `/`: ext4 or xfs |
//! | `/dev/vdb` | `/boot/efi`: vfat |
//! | `/dev/vdc` | LVM: volume `data` of the group `vg0`, ext4, at `/srv` |
//! | `/dev/vdd` | swap |
//!
//! `mmdebstrap` makes it from this machine's own package sources, with the packages that a
//! variant adds. Both kernels' modules are in it; the kernel itself is QEMU's to start. Each
//! guest gets copies of the images, so that tests do not disturb each other.
//!
//! For hv-vssd its package is installed into a copy of `/`, once for each package (`installed`).
//!
//! A test that needs a server names its package: `System::new().packages(&["redis-server"])`, see
//! [`crate::booted`]. What is missing is made by the test that asks first; what is listed in [`SETS`] is made, and
//! made anew when it is out of date, by `testbed-prepare`. List what the project's tests use.

mod installed;
mod provision;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::assets::{self, Kernel};
use crate::command::run;
use crate::error::{BedError, BedResult, Context};
use crate::guest::{Disk, FsKind};
use crate::kept::lock;
use crate::paths;

/// The variants that the tests of the project use; those that take longest last.
pub const SETS: &[Variant<'static>] = &[
    Variant {
        root: FsKind::Ext4,
        packages: &["apparmor"],
    },
    Variant {
        root: FsKind::Ext4,
        packages: &[],
    },
    Variant {
        root: FsKind::Xfs,
        packages: &[],
    },
    Variant {
        root: FsKind::Ext4,
        packages: &["postgresql", "mariadb-server", "redis-server"],
    },
];

/// The images of a system, in the order of its disks.
const IMAGES: [&str; 4] = [ROOT_IMAGE, "efi.img", "lvm.img", "swap.img"];

/// The image of `/`.
const ROOT_IMAGE: &str = "root.img";

/// Which Debian.
#[derive(Debug, Clone, Copy)]
pub struct Variant<'a> {
    /// Type of its `/`: ext4 or xfs.
    pub root: FsKind,
    /// Debian packages beside the usual ones, installed with what they depend on.
    pub packages: &'a [&'a str],
}

/// A system that was made.
#[derive(Debug)]
pub struct Made {
    home: PathBuf,
    root: PathBuf,
}

impl Made {
    fn at(home: PathBuf) -> Self {
        Self {
            root: home.join(ROOT_IMAGE),
            home,
        }
    }

    /// The same, with another image of `/`.
    fn with_root(self, root: PathBuf) -> Self {
        Self { root, ..self }
    }

    fn root(&self) -> &Path {
        &self.root
    }

    /// What it was made of; of one with a package that, too.
    pub(crate) fn stamp(&self) -> BedResult<String> {
        let file = self.root.with_file_name("stamp");
        fs::read_to_string(&file).doing(|| format!("reading {}", file.display()))
    }

    /// Its disks, to be copied for a guest.
    #[must_use]
    pub fn disks(&self) -> Vec<Disk> {
        let others = IMAGES.iter().skip(1).map(|name| self.home.join(name));
        let images = std::iter::once(self.root.clone()).chain(others);
        images.map(|image| Disk::copy_of(&image)).collect()
    }
}

impl Variant<'_> {
    /// As a directory's name.
    pub(crate) fn name(self) -> String {
        let words = std::iter::once(self.root.name()).chain(self.packages.iter().copied());
        words.collect::<Vec<_>>().join("+")
    }

    fn home(self) -> PathBuf {
        paths::testbed().join("debian").join(self.name())
    }

    fn made(self) -> Option<Made> {
        let home = self.home();
        let whole = home.join("stamp").exists();
        whole.then(|| Made::at(home))
    }

    /// Finds it, or makes it if there is none; one that is out of date is taken as it is.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn find_or_make(self) -> BedResult<Made> {
        if let Some(made) = self.made() {
            return Ok(made);
        }
        self.prepare()?;
        self.made()
            .ok_or_else(|| BedError::Setup(format!("no {} system was made", self.name())))
    }

    /// Makes it if it is missing or out of date, and says what was done.
    ///
    /// # Errors
    /// This user is not root, a package cannot be had, or a tool fails.
    pub fn prepare(self) -> BedResult<String> {
        let name = self.name();
        let home = self.home();
        let parent = paths::testbed().join("debian");
        fs::create_dir_all(&parent).doing(|| format!("making {}", parent.display()))?;
        let _lock = lock(&parent.join(format!("{name}.lock")))?;
        let stamp = self.stamp()?;
        if fs::read_to_string(home.join("stamp")).is_ok_and(|old| old == stamp) {
            return Ok(format!("{name}: up to date"));
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(BedError::Setup(
                "making a Debian system needs root: run `tests/run` as root".into(),
            ));
        }
        let scratch =
            tempfile::tempdir_in(&parent).doing(|| "making a scratch directory".into())?;
        let tree = tree::make(self, scratch.path())?;
        let images = provision::make(self, &tree, scratch.path())?;
        fs::write(images.join("stamp"), stamp).doing(|| "writing the stamp".into())?;
        let _ = fs::remove_dir_all(&home);
        fs::rename(&images, &home).doing(|| format!("keeping {}", home.display()))?;
        Ok(format!("{name}: prepared"))
    }

    /// All that it is made of.
    fn stamp(self) -> BedResult<String> {
        let mut stamp = String::new();
        for package in tree::PACKAGES.iter().chain(self.packages) {
            stamp.push_str(&format!("{package}={}\n", candidate(package)?));
        }
        for kernel in Kernel::ALL {
            stamp.push_str(&assets::stamp(kernel)?);
            stamp.push('\n');
        }
        stamp.push_str(&assets::fingerprint(&["src/debian"])?);
        Ok(stamp)
    }
}

/// The version of a package that apt would install.
fn candidate(package: &str) -> BedResult<String> {
    let said = run(Command::new("apt-cache").args(["policy", package]))?;
    let lines = said.lines().map(str::trim);
    let mut versions = lines.filter_map(|line| line.strip_prefix("Candidate: "));
    versions.next().map(ToOwned::to_owned).ok_or_else(|| {
        BedError::Setup(format!(
            "apt knows no package {package}: run `apt-get update`, or tests/run as root"
        ))
    })
}
