//! The base of the guest's root: everything but the programs under test.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::libraries::copy_program;
use crate::command::{find, run};
use crate::error::{BedError, BedResult, Context};

/// Loaded at boot.
const BOOT_MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "virtio_console"];

/// Loaded by the kernel when a scenario mounts or maps something.
const MODULES: [&str; 29] = [
    "nbd",
    "xfs",
    "btrfs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "nls_utf8",
    "exfat",
    "ntfs3",
    "squashfs",
    "isofs",
    "overlay",
    "loop",
    "dm_mod",
    "dm_crypt",
    "dm_flakey",
    "dm_snapshot",
    "dm_thin_pool",
    "xts",
    "ecb",
    "aes_generic",
    "crc32c_generic",
    "fuse",
    "autofs4",
    "binfmt_misc",
    "hv_utils",
    "hv_vmbus",
    "xxhash_generic",
    "blake2b_generic",
];

/// Tools of this machine that scenarios use in the guest.
const TOOLS: [&str; 7] = [
    "dmsetup",
    "mke2fs",
    "btrfs",
    "mkfs.xfs",
    "strace",
    "nbd-server",
    "nbd-client",
];

/// Builds the tree below `scratch` and returns it.
pub(super) fn assemble(
    release: &str,
    image: &Path,
    daemons: &Path,
    bus: &Path,
    scratch: &Path,
) -> BedResult<PathBuf> {
    let root = scratch.join("root");
    for dir in [
        "dev", "proc", "sys", "run", "tmp", "mnt", "etc", "root", "bin", "sbin", "var",
    ] {
        make_dir(&root.join(dir))?;
    }
    busybox(&root)?;
    for tool in TOOLS {
        let program = find(tool).ok_or_else(|| lacks(tool))?;
        copy_program(&program, &root, &format!("/sbin/{tool}"))?;
    }
    copy_program(
        &daemons.join("usr/sbin/hv_vss_daemon"),
        &root,
        "/usr/sbin/hv_vss_daemon",
    )?;
    modules(release, image, &root)?;
    let lib = root.join("lib/modules").join(release);
    // The genuine bus goes; its place is taken by ours, loaded by path.
    let genuine = lib.join("kernel/drivers/hv/hv_vmbus.ko");
    fs::remove_file(&genuine).doing(|| format!("removing {}", genuine.display()))?;
    fs::copy(bus, root.join("lib/hv_vmbus.ko")).doing(|| "copying the stand-in bus".into())?;
    fs::rename(
        lib.join("kernel/drivers/hv/hv_utils.ko"),
        root.join("lib/hv_utils.ko"),
    )
    .doing(|| "finding hv_utils.ko".into())?;
    run(Command::new("depmod").arg("-b").arg(&root).arg(release))?;
    write(
        &root.join("etc/boot-modules"),
        &(BOOT_MODULES.join("\n") + "\n"),
    )?;
    write(&root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    write(&root.join("etc/group"), "root:x:0:\n")?;
    symlink("/proc/mounts", root.join("etc/mtab")).doing(|| "linking mtab".into())?;
    Ok(root)
}

fn busybox(root: &Path) -> BedResult<()> {
    let program = find("busybox").ok_or_else(|| lacks("busybox"))?;
    copy_program(&program, root, "/bin/busybox")?;
    let applets = run(Command::new(&program).arg("--list"))?;
    for applet in applets.lines() {
        let link = root.join("bin").join(applet);
        if !link.exists() {
            symlink("/bin/busybox", &link).doing(|| format!("linking {applet}"))?;
        }
    }
    symlink("/bin/busybox", root.join("sbin/modprobe")).doing(|| "linking modprobe".into())
}

/// Copies the wanted modules and all they depend on, unpacked, as far as this kernel has them.
fn modules(release: &str, image: &Path, root: &Path) -> BedResult<()> {
    let from = image.join("lib/modules").join(release);
    let to = root.join("lib/modules").join(release);
    run(Command::new("depmod").arg("-b").arg(image).arg(release))?;
    let table = from.join("modules.dep");
    let table = fs::read_to_string(&table).doing(|| format!("reading {}", table.display()))?;
    let wanted: BTreeSet<&str> = BOOT_MODULES.into_iter().chain(MODULES).collect();
    let mut files = BTreeSet::new();
    for (module, needs) in table.lines().filter_map(|line| line.split_once(':')) {
        if wanted.contains(module_name(module).as_str()) {
            files.insert(module);
            files.extend(needs.split_whitespace());
        }
    }
    for file in files {
        let plain = to.join(file.strip_suffix(".xz").unwrap_or(file));
        make_dir(plain.parent().unwrap_or(&to))?;
        if file.ends_with(".xz") {
            let packed = to.join(file);
            copy(&from.join(file), &packed)?;
            run(Command::new("xz").arg("-d").arg(&packed))?;
        } else {
            copy(&from.join(file), &plain)?;
        }
    }
    for list in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        copy(&from.join(list), &to.join(list))?;
    }
    Ok(())
}

fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

fn lacks(tool: &str) -> BedError {
    BedError::Setup(format!(
        "this machine lacks {tool}: tests/run as root installs it"
    ))
}

fn make_dir(dir: &Path) -> BedResult<()> {
    fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))
}

fn copy(from: &Path, to: &Path) -> BedResult<()> {
    fs::copy(from, to).doing(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> BedResult<()> {
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}
