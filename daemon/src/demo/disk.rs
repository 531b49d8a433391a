//! Scratch disks: an image on a loop device, mounted in the demo's namespace.

use std::path::{Path, PathBuf};

use hvutil_sys::loopdev::LoopDevice;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::images::{Copy, Image};
use super::scene::Scene;
use super::screen::Screen;
use super::{DemoError, copy};
use crate::filesystems::{Plan, Policy, scan_own_namespace};

/// A mounted image. Unmounted and detached on drop.
pub(super) struct Disk {
    image: Image,
    mounted: Mounted,
}

struct Mounted {
    device: LoopDevice,
    mount_point: PathBuf,
}

/// What is left of a disk after its unmount.
pub(super) struct Copies {
    pub(super) fstype: &'static str,
    pub(super) held: Copy,
    pub(super) running: Copy,
}

impl Disk {
    pub(super) fn fstype(&self) -> &'static str {
        self.image.fstype
    }

    pub(super) fn device(&self) -> &Path {
        self.mounted.device.path()
    }

    pub(super) fn mount_point(&self) -> &Path {
        &self.mounted.mount_point
    }

    /// Copies the image to where copies of a held, or of a running disk go.
    pub(super) fn copy(&self, held: bool) -> Result<(), DemoError> {
        let to = if held {
            &self.image.held
        } else {
            &self.image.running
        };
        copy::sparse(&self.image.file, &to.file).map_err(|error| {
            DemoError::because(format!("{} cannot be written", to.path.display()), error)
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.mount_point, MntFlags::MNT_DETACH);
    }
}

/// Attaches and mounts; a type that this kernel does not know is skipped.
pub(super) fn mount_all(
    scene: &Scene,
    images: Vec<Image>,
    screen: &Screen,
) -> Result<Vec<Disk>, DemoError> {
    let mut disks = Vec::new();
    for image in images {
        let device = LoopDevice::attach(&image.file)
            .map_err(|error| DemoError::because("no loop device can be had", error))?;
        let mount_point = scene.directory(image.fstype)?;
        match mount(
            Some(device.path()),
            &mount_point,
            Some(image.fstype),
            MsFlags::MS_NOATIME,
            None::<&str>,
        ) {
            Ok(()) => {
                screen.disk(image.fstype, device.path());
                disks.push(Disk {
                    image,
                    mounted: Mounted {
                        device,
                        mount_point,
                    },
                });
            }
            Err(nix::Error::ENODEV) => screen.skipped(image.fstype, "this kernel does not have it"),
            Err(error) => {
                return Err(DemoError::because(
                    format!("{} cannot be mounted", image.fstype),
                    error,
                ));
            }
        }
    }
    if disks.is_empty() {
        return Err(DemoError::new(
            "this kernel can mount none of ext4, xfs and btrfs",
        ));
    }
    Ok(disks)
}

/// Unmounts for good, so that a copy of the same file system can be mounted; tells which disk cannot be.
pub(super) fn unmount_all(disks: Vec<Disk>) -> Result<Vec<Copies>, DemoError> {
    disks
        .into_iter()
        .map(|Disk { image, mounted }| {
            umount2(&mounted.mount_point, MntFlags::empty()).map_err(|error| {
                DemoError::because(format!("{} cannot be unmounted", image.fstype), error)
            })?;
            drop(mounted);
            Ok(Copies {
                fstype: image.fstype,
                held: image.held,
                running: image.running,
            })
        })
        .collect()
}

/// The last check before anything is frozen: the agent's plan names the scratch disks, and nothing else.
pub(super) fn only_these(disks: &[Disk]) -> Result<(), DemoError> {
    let scan = scan_own_namespace()
        .map_err(|error| DemoError::new(crate::quiesce::error::with_causes(&error)))?;
    let plan = Plan::new(&scan, &Policy::default());
    let made =
        |source: &std::ffi::OsStr| disks.iter().any(|disk| disk.device().as_os_str() == source);
    let foreign = plan
        .superblocks()
        .find(|superblock| !made(&superblock.source));
    if let Some(superblock) = foreign {
        return Err(DemoError::new(format!(
            "{} is in sight of the demo, and was not made by it: nothing is frozen",
            superblock.source.to_string_lossy()
        )));
    }
    if plan.superblocks().count() == disks.len() {
        Ok(())
    } else {
        Err(DemoError::new(
            "the plan misses a scratch disk: nothing is frozen",
        ))
    }
}
