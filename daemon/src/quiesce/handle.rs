//! Handles: how a file system is held open from before the first freeze to after the last thaw.
//!
//! A handle is verified to lie on the superblock of the plan, and where the kernel can (5.2), it is a descriptor into
//! a detached copy of the mount: `umount` works meanwhile, and the thaw still reaches the file system.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hvutil_sys::mount;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::backend::Target;
use crate::filesystems::DeviceNumber;

/// An open descriptor on a file system, fit for `FIFREEZE`.
#[derive(Debug)]
pub struct Handle {
    fd: OwnedFd,
}

/// No way leads to a file system.
#[derive(Debug, thiserror::Error)]
#[error("{target} cannot be opened through any of its mounts")]
pub struct HandleError {
    target: String,
    /// Why the last way failed.
    #[source]
    source: io::Error,
}

impl Handle {
    /// Opens the file system through the first of its mounts that still is what the table said, or, when all of them
    /// are out of reach, through a new detached mount of its device.
    ///
    /// # Errors
    /// [`HandleError`] when no way leads there.
    pub fn open(target: &Target) -> Result<Self, HandleError> {
        let mut last = None;
        for (id, path) in &target.mounts {
            match open_mount(*id, path) {
                Ok(fd) => return Ok(Self { fd }),
                Err(error) => last = Some(error),
            }
        }
        open_device(target)
            .map(|fd| Self { fd })
            .map_err(|error| HandleError {
                target: target.to_string(),
                // Why the mounts failed says more than that the device cannot be mounted a second time.
                source: last.unwrap_or(error),
            })
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_mount(id: u64, path: &Path) -> io::Result<OwnedFd> {
    // O_PATH opens nothing yet: no device, no automount, no file-system code.
    let place = open(
        path,
        OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW,
        Mode::empty(),
    )?;
    let found = mount::mount_id(&place)?;
    if found != id {
        return Err(io::Error::other(format!(
            "{} is no longer that mount, or is hidden under another (mount {found} where {id} was expected)",
            path.display()
        )));
    }
    let kind = SFlag::from_bits_truncate(fstat(&place)?.st_mode) & SFlag::S_IFMT;
    match kind {
        SFlag::S_IFDIR => match mount::clone_mount(&place) {
            Ok(tree) => mount::open_root(&tree),
            // Before 5.2, or a mount that may not be copied: a plain descriptor freezes as well, but keeps it busy.
            Err(_) => mount::open_root(&place),
        },
        SFlag::S_IFREG => reopen_file(&place),
        _ => Err(io::Error::other(format!(
            "{} is neither a directory nor a file",
            path.display()
        ))),
    }
}

/// Opens what an `O_PATH` descriptor names, without a second look-up of its path.
fn reopen_file(place: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    Ok(open(
        &path,
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}

fn open_device(target: &Target) -> io::Result<OwnedFd> {
    if !target.source.starts_with("/dev") {
        return Err(io::Error::other(format!(
            "{} names no device to mount a second time",
            target.source.display()
        )));
    }
    let tree = mount::mount_device(&target.fstype, &target.source)?;
    let root = mount::open_root(&tree)?;
    let (major, minor) = mount::device_number(&root)?;
    if (DeviceNumber { major, minor }) == target.dev {
        return Ok(root);
    }
    Err(io::Error::other(format!(
        "{} now holds another file system ({major}:{minor})",
        target.source.display()
    )))
}
