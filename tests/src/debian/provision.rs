//! The disks of the system. What only a kernel can make (LVM, xfs) is made in a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{IMAGES, Variant};
use crate::assets::Kernel;
use crate::command::{find, run};
use crate::error::{BedError, BedResult, Context};
use crate::guest::{Disk, FsKind, Guest, Plan};

/// Size of `/`, in MiB: sparse, so that room costs nothing.
const ROOT_MIB: u64 = 4096;
/// Sizes of the other disks, in MiB.
const EFI_MIB: u64 = 64;
const LVM_MIB: u64 = 160;
const SWAP_MIB: u64 = 256;

/// Copying a system inside an emulated guest takes its time.
const LIMIT: Duration = Duration::from_secs(300);

/// In the chroot of the system; `/dev/vdc` and `/dev/vdd` are blank. No udev runs there.
const VOLUMES: &str = "export DM_DISABLE_UDEV=1
    pvcreate -q /dev/vdc
    vgcreate -q vg0 /dev/vdc
    lvcreate -q -y -L 128M -n data vg0
    mkfs.ext4 -q /dev/mapper/vg0-data
    vgchange -q -an vg0
    mkswap /dev/vdd";

/// Makes the images in a directory below `scratch` and returns that.
pub(super) fn make(variant: Variant<'_>, tree: &Path, scratch: &Path) -> BedResult<PathBuf> {
    let system = scratch.join("system.img");
    let mke2fs = find("mke2fs").ok_or_else(|| {
        BedError::Setup("this machine lacks mke2fs: tests/run as root installs it".into())
    })?;
    // The file is all zero: nothing is left to be initialised when it is mounted.
    run(Command::new(mke2fs)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-E",
            "assume_storage_prezeroed=1",
            "-d",
        ])
        .arg(tree)
        .arg(&system)
        .arg(format!("{ROOT_MIB}M")))?;
    let mut disks = vec![
        Disk::copy_of(&system),
        Disk::sized(FsKind::Vfat, EFI_MIB),
        Disk::sized(FsKind::Blank, LVM_MIB),
        Disk::sized(FsKind::Blank, SWAP_MIB),
    ];
    let mut script = String::from("mkdir /mnt/root; mount /dev/vda /mnt/root\n");
    if variant.root == FsKind::Xfs {
        disks.push(Disk::sized(FsKind::Xfs, ROOT_MIB));
        script.push_str(
            "mkdir /mnt/xfs; mount -t xfs /dev/vde /mnt/xfs
            cp -a /mnt/root/. /mnt/xfs/; umount /mnt/xfs\n",
        );
    }
    script.push_str(&format!(
        "modprobe dm_mod
        for at in dev proc sys; do mount --bind /$at /mnt/root/$at; done
        mount -t tmpfs none /mnt/root/run
        chroot /mnt/root /bin/sh -euc '{VOLUMES}'
        for at in run sys proc dev; do umount /mnt/root/$at; done
        umount /mnt/root; sync"
    ));
    let guest = Guest::boot(&Plan {
        kernel: Kernel::V6_1,
        with_hv_vssd: false,
        disks: &disks,
        name: "debian".into(),
    })?;
    let ended = guest.exec(&["/bin/sh", "-euc", &script], LIMIT)?;
    if ended.status != Some(0) {
        return Err(BedError::Guest(format!(
            "making the disks failed (see {}): {}{}",
            guest.dir().display(),
            ended.stdout,
            ended.stderr
        )));
    }
    let made = scratch.join("images");
    fs::create_dir_all(&made).doing(|| format!("making {}", made.display()))?;
    let mut images: Vec<PathBuf> = Vec::new();
    for number in 0..disks.len() {
        images.push(guest.image(number)?.to_path_buf());
    }
    let dir = guest.dir().to_path_buf();
    drop(guest);
    if variant.root == FsKind::Xfs {
        images.rotate_right(1);
        images.remove(1);
    }
    for (image, name) in images.iter().zip(IMAGES) {
        fs::rename(image, made.join(name)).doing(|| format!("keeping {}", image.display()))?;
    }
    fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))?;
    Ok(made)
}
