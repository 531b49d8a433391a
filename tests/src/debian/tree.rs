//! The files of the system.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Variant;
use crate::assets::{self, Kernel};
use crate::command::{find, run};
use crate::error::{BedError, BedResult, Context};
use crate::proto::TESTGUEST;

/// In every variant.
pub(super) const PACKAGES: [&str; 15] = [
    "dbus",
    "dmsetup",
    "dosfstools",
    "e2fsprogs",
    "hyperv-daemons",
    "init-system-helpers",
    "kmod",
    "libpam-systemd",
    "lvm2",
    "procps",
    "strace",
    "systemd",
    "systemd-sysv",
    "udev",
    "xfsprogs",
];

/// Units that do nothing for the tests: consoles nobody looks at, housekeeping at odd times.
const MASKED: [&str; 13] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty@tty1.service",
    "logrotate.timer",
    "man-db.timer",
    "serial-getty@ttyS0.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-pstore.service",
];

/// Makes the tree below `scratch` and returns it.
pub(super) fn make(variant: Variant<'_>, scratch: &Path) -> BedResult<PathBuf> {
    let tree = scratch.join("tree");
    let packages: Vec<&str> = PACKAGES.iter().chain(variant.packages).copied().collect();
    let mmdebstrap = find("mmdebstrap").ok_or_else(|| {
        BedError::Setup("this machine lacks mmdebstrap: tests/run as root installs it".into())
    })?;
    run(Command::new(mmdebstrap)
        .args(["--quiet", "--variant=minbase", "--format=directory"])
        .arg(format!("--include={}", packages.join(",")))
        .arg("bookworm")
        .arg(&tree)
        .args(sources()?))?;
    for kernel in Kernel::ALL {
        modules(kernel, &tree, scratch)?;
    }
    configure(variant, &tree)?;
    Ok(tree)
}

/// This machine's own files of package sources that have Debian 12, without its backports.
fn sources() -> BedResult<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let listed = fs::read_dir("/etc/apt/sources.list.d");
    files.extend(
        listed
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    files.retain(|file| {
        let known = file
            .extension()
            .is_some_and(|kind| kind == "list" || kind == "sources");
        let text = fs::read_to_string(file).unwrap_or_default();
        known && text.lines().any(offers_bookworm)
    });
    if files.is_empty() {
        return Err(BedError::Setup(
            "no file of package sources in /etc/apt offers Debian 12 (bookworm)".into(),
        ));
    }
    Ok(files)
}

/// Whether a line of a file of package sources, of either form, names the suite itself.
fn offers_bookworm(line: &str) -> bool {
    let mut words = line.split_whitespace();
    matches!(words.next(), Some("Suites:" | "deb")) && words.any(|word| word == "bookworm")
}

/// The modules that the initramfs guests have, for udev and mount to load.
fn modules(kernel: Kernel, tree: &Path, scratch: &Path) -> BedResult<()> {
    let base = assets::find(kernel)?.base;
    let archive = File::open(&base).doing(|| format!("opening {}", base.display()))?;
    let unpacked = scratch.join(kernel.series());
    make_dir(&unpacked)?;
    let status = Command::new("cpio")
        .args([
            "--extract",
            "--make-directories",
            "--quiet",
            "lib/modules/*",
        ])
        .current_dir(&unpacked)
        .stdin(Stdio::from(archive))
        .status()
        .doing(|| "running cpio (tests/run as root installs it)".into())?;
    if !status.success() {
        return Err(BedError::Setup(format!("cpio: {status}")));
    }
    let from = unpacked.join("lib/modules");
    run(Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(tree.join("usr/lib")))?;
    Ok(())
}

fn configure(variant: Variant<'_>, tree: &Path) -> BedResult<()> {
    let fstab = format!(
        "/dev/vda / {} defaults 0 1\n\
         /dev/vdb /boot/efi vfat umask=0077 0 1\n\
         /dev/mapper/vg0-data /srv ext4 defaults 0 2\n\
         /dev/vdd none swap sw 0 0\n",
        variant.root.name()
    );
    write(&tree.join("etc/fstab"), &fstab)?;
    write(&tree.join("etc/hostname"), "guest\n")?;
    write(
        &tree.join("etc/hosts"),
        "127.0.0.1 localhost\n127.0.1.1 guest\n",
    )?;
    // One that is known is no first boot.
    write(
        &tree.join("etc/machine-id"),
        "6876767373642d7465737462656400aa\n",
    )?;
    make_dir(&tree.join("boot/efi"))?;
    // With it the journal is persistent: Storage=auto.
    make_dir(&tree.join("var/log/journal"))?;
    for unit in MASKED {
        link("/dev/null", &tree.join("etc/systemd/system").join(unit))?;
    }
    link(TESTGUEST, &tree.join("usr/sbin/hv-testguest"))?;
    // As new as /usr: nothing is rebuilt at boot.
    for at in ["etc/.updated", "var/.updated"] {
        let reference = format!("--reference={}", tree.join("usr").display());
        run(Command::new("touch").arg(reference).arg(tree.join(at)))?;
    }
    Ok(())
}

fn make_dir(dir: &Path) -> BedResult<()> {
    fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))
}

fn write(path: &Path, text: &str) -> BedResult<()> {
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

fn link(to: &str, at: &Path) -> BedResult<()> {
    let _ = fs::remove_file(at);
    symlink(to, at).doing(|| format!("linking {}", at.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_of_the_suite_itself_are_taken() {
        assert!(offers_bookworm("Suites: bookworm bookworm-updates"));
        assert!(offers_bookworm(
            "deb [signed-by=/x] http://mirror/debian bookworm main"
        ));
        assert!(!offers_bookworm(
            "deb http://mirror/debian bookworm-backports main"
        ));
        assert!(!offers_bookworm("Suites: nodistro"));
        assert!(!offers_bookworm("# bookworm"));
    }
}
