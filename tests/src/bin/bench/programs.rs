//! What the guest gets for the measurements alone: QEMU's guest agent, PostgreSQL, and a database on two disks.
//! Made once, and again when apt offers other versions.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use ::tests::command::run;
use ::tests::error::{BedResult, Context};
use ::tests::guest::{Disk, Guest};
use ::tests::paths;

use crate::case::device;
use crate::cluster;
use crate::packages::{self, DATABASE, GUEST_AGENT, Unpacked};

/// Of the database server, inside its package and in the guest.
pub(crate) const DATABASE_HOME: &str = "/usr/lib/postgresql/15";

/// The database server.
pub(crate) const POSTGRES: &str = "/usr/lib/postgresql/15/bin/postgres";

/// Its clients: the stream of transactions, and single commands.
pub(crate) const PGBENCH: &str = "/usr/lib/postgresql/15/bin/pgbench";
pub(crate) const PSQL: &str = "/usr/lib/postgresql/15/bin/psql";

/// The made images.
#[derive(Debug)]
pub(crate) struct Programs {
    dir: PathBuf,
    /// Versions of the guest agent and of the database server.
    pub(crate) versions: String,
}

fn stamp_of(offered: &str) -> String {
    let mut hasher = DefaultHasher::new();
    let recipe = [
        include_str!("programs.rs"),
        include_str!("packages.rs"),
        include_str!("cluster.rs"),
    ];
    (offered, recipe).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// An ext4 image of a tree.
pub(crate) fn image(tree: &Path, image: &Path, size: &str) -> BedResult<()> {
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(tree)
        .arg(image)
        .arg(size))?;
    Ok(())
}

/// Programs and their libraries, as they are to lie in the guest.
fn carried(unpacked: &Unpacked, tree: &Path) -> BedResult<()> {
    for program in ["/usr/sbin/qemu-ga", POSTGRES, PGBENCH, PSQL] {
        let from = unpacked.path(program);
        copy(&from, &tree.join(program.trim_start_matches('/')))?;
        for library in unpacked.libraries(&from)? {
            let name = library.file_name().unwrap_or_default();
            copy(&library, &tree.join("lib/x86_64-linux-gnu").join(name))?;
        }
    }
    let module = format!("{DATABASE_HOME}/lib/plpgsql.so");
    let zones = "/usr/share/postgresql/15/timezonesets/Default";
    for file in [module.as_str(), zones] {
        copy(
            &unpacked.path(file),
            &tree.join(file.trim_start_matches('/')),
        )?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> BedResult<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    fs::copy(from, to).doing(|| format!("copying {}", from.display()))?;
    Ok(())
}

impl Programs {
    /// Finds the images, or makes them.
    pub(crate) fn prepare() -> BedResult<Self> {
        let dir = paths::testbed().join("bench/programs");
        let (stamp, versions) = (dir.join("stamp"), dir.join("versions"));
        let wanted = stamp_of(&packages::offered()?);
        if fs::read_to_string(&stamp).is_ok_and(|old| old == wanted) {
            let versions = fs::read_to_string(versions).doing(|| "reading versions".into())?;
            return Ok(Self { dir, versions });
        }
        eprintln!("preparing qemu-ga and PostgreSQL");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        let scratch = tempfile::tempdir().doing(|| "making a scratch directory".into())?;
        let unpacked = packages::fetch(scratch.path())?;
        let tree = scratch.path().join("tree");
        carried(&unpacked, &tree)?;
        image(&tree, &dir.join("programs.img"), "192M")?;
        cluster::make(&unpacked, scratch.path(), &dir)?;
        let text = format!(
            "qemu-ga {}, PostgreSQL {}",
            unpacked.version(GUEST_AGENT)?,
            unpacked.version(DATABASE)?
        );
        fs::write(versions, &text).doing(|| "writing versions".into())?;
        fs::write(stamp, wanted).doing(|| "writing the stamp".into())?;
        Ok(Self {
            dir,
            versions: text,
        })
    }

    /// The disk with the programs.
    pub(crate) fn disk(&self) -> Disk {
        Disk::copy_of(&self.dir.join("programs.img"))
    }

    /// The disks with the database: its data, its WAL.
    pub(crate) fn database_disks(&self) -> [Disk; 2] {
        cluster::IMAGES.map(|name| Disk::copy_of(&self.dir.join(name)))
    }

    /// Copies the programs from their disk into the guest's root, but for what is there and in use, and takes the disk away.
    pub(crate) fn install(guest: &Guest, disk: usize, with_database: bool) -> BedResult<()> {
        let device = device(disk);
        // Memory is for dirty pages.
        let but = if with_database {
            ""
        } else {
            "! -path '*postgresql*' ! -name 'libicu*'"
        };
        guest.sh(&format!(
            "mkdir -p /run/programs; mount -t ext4 -o ro /dev/{device} /run/programs; cd /run/programs
             find usr lib -type f {but} | while read -r file; do
                 if [ ! -e /$file ]; then mkdir -p /${{file%/*}}; cp $file /$file; fi
             done
             cd /; umount /run/programs"
        ))?;
        Ok(())
    }
}
