//! What the configuration does, and hooks that are refused.

use tests::error::Step;
use tests::faults::configure;
use tests::guest::{Disk, FsKind};
use tests::promise;
use tests::scenario::Bed;
use tests::steps::mount_all;

use super::check;

pub(super) fn configuration_and_hooks(bed: &mut Bed) -> Step<String> {
    let mut guest = bed.boot(&[Disk::new(FsKind::Ext4), Disk::new(FsKind::Vfat)])?;
    mount_all(&guest, &[FsKind::Ext4, FsKind::Vfat])?;
    bed.start_agent(&mut guest)?;
    let found = check(&guest)?;
    let told = found
        .gives("file-system-consistent")?
        .has("cannot-freeze", "warning")?;
    promise!(told.contains("/mnt/vfat (vfat)"), "{told}");

    configure(&guest, "strictness = \"strict\"\n")?;
    check(&guest)?
        .gives("fallback")?
        .has("cannot-freeze", "error")?;
    configure(&guest, "strictness = \"flush-only\"\n")?;
    check(&guest)?
        .gives("flushed-only")?
        .has("flush-only", "warning")?;
    configure(
        &guest,
        "[filesystems]\nexclude_types = [\"ext4\", \"vfat\"]\n",
    )?;
    let found = check(&guest)?;
    let told = found.has("excluded", "warning")?;
    promise!(told.contains("/mnt/ext4 (ext4)"), "{told}");
    configure(&guest, "strictnes = 1\n")?;
    check(&guest)?
        .gives("fallback")?
        .has("configuration", "error")?;
    configure(&guest, "")?;

    guest.sh(
        "mkdir -p /etc/hv-vssd/hooks.d; chmod 755 /etc/hv-vssd /etc/hv-vssd/hooks.d
         printf '#!/bin/sh\\n' >/etc/hv-vssd/hooks.d/10-app; chmod 755 /etc/hv-vssd/hooks.d/10-app",
    )?;
    check(&guest)?
        .gives("application-consistent")?
        .has_not("no-hooks")?;
    guest.sh("chmod 777 /etc/hv-vssd/hooks.d/10-app")?;
    let found = check(&guest)?;
    let told = found.gives("fallback")?.has("hook-refused", "error")?;
    promise!(told.contains("10-app"), "{told}");
    guest.sh("chmod 755 /etc/hv-vssd/hooks.d/10-app; chown 1000 /etc/hv-vssd/hooks.d/10-app")?;
    check(&guest)?
        .gives("fallback")?
        .has("hook-refused", "error")?;
    configure(&guest, "[hooks]\non_failure = \"continue\"\n")?;
    check(&guest)?
        .gives("file-system-consistent")?
        .has("hook-refused", "warning")?;
    guest.sh("chown 0 /etc/hv-vssd/hooks.d/10-app")?;
    configure(&guest, "[hooks]\nenabled = false\n")?;
    check(&guest)?
        .gives("file-system-consistent")?
        .has("hooks-disabled", "warning")?;
    Ok(
        "strictness, exclusions, a broken configuration, hooks of the wrong owner or mode are told"
            .into(),
    )
}
