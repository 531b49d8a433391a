//! A system with hv-vssd's package installed: made once for each package, so that no guest spends its boot on dpkg.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Made, ROOT_IMAGE, Variant};
use crate::assets::Kernel;
use crate::command::run;
use crate::error::{BedError, BedResult, Context};
use crate::guest::{Disk, Guest, Plan};
use crate::kept;
use crate::paths;

/// For dpkg in an emulated guest, on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Where the package waits in the initramfs, as text: the control channel carries nothing else.
const ENCODED: &str = "/tmp/package";

impl Variant<'_> {
    /// This system with a package installed by dpkg, before it has ever run; made if it is missing or out of date.
    ///
    /// # Errors
    /// The system cannot be made, or dpkg fails: it says why.
    pub fn with_package(self, package: &Path) -> BedResult<Made> {
        let base = self.find_or_make()?;
        let name = format!("{}.installed", self.name());
        let parent = paths::testbed().join("debian");
        kept::directory(&parent, &name, &stamp(&base, package)?, |into| {
            self.install(&base, package, &into.join(ROOT_IMAGE))
        })?;
        Ok(base.with_root(parent.join(name).join(ROOT_IMAGE)))
    }

    /// Installs the package into a copy of the system's `/`, as a chroot: no systemd runs there.
    fn install(self, base: &Made, package: &Path, image: &Path) -> BedResult<()> {
        let encoded = run(Command::new("base64").arg(package))?;
        let guest = Guest::boot(&Plan {
            kernel: Kernel::V6_1,
            with_hv_vssd: false,
            disks: &[Disk::copy_of(base.root())],
            name: "debian-package".into(),
        })?;
        guest.write(ENCODED, &encoded)?;
        let script = format!(
            "mkdir /mnt/root; mount -t {} /dev/vda /mnt/root
            base64 -d {ENCODED} > /mnt/root/package.deb
            PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /mnt/root dpkg --install /package.deb
            rm /mnt/root/package.deb; umount /mnt/root; sync",
            self.root.name()
        );
        let ended = guest.exec(&["/bin/sh", "-euc", &script], LIMIT)?;
        if ended.status != Some(0) {
            return Err(BedError::Guest(format!(
                "installing {} failed: {}{}",
                package.display(),
                ended.stdout,
                ended.stderr
            )));
        }
        let made: PathBuf = guest.image(0)?.to_path_buf();
        let dir = guest.dir().to_path_buf();
        drop(guest);
        fs::rename(&made, image).doing(|| format!("keeping {}", made.display()))?;
        fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))
    }
}

/// Changes whenever the system or the package does.
fn stamp(base: &Made, package: &Path) -> BedResult<String> {
    let content = fs::read(package).doing(|| format!("reading {}", package.display()))?;
    let mut hasher = DefaultHasher::new();
    (base.stamp()?, content).hash(&mut hasher);
    Ok(format!("{:016x}\n", hasher.finish()))
}
