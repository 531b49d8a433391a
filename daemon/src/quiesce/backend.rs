//! What the engine needs of the system: the seam between the real kernel and a double with scripted faults.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use hvutil_sys::freeze;

use super::handle::{Handle, HandleError};
use crate::filesystems::plan::{Candidate, LeftOut, Superblock};
use crate::filesystems::text::printable;
use crate::filesystems::{DeviceNumber, Plan, Policy, ScanError, scan};

/// A file system to be opened, with every way that may lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The superblock's identity.
    pub dev: DeviceNumber,
    /// Its type, such as `ext4`.
    pub fstype: String,
    /// Its source, such as `/dev/sda1`.
    pub source: PathBuf,
    /// Mounts of it, the best way first: mount id and mount point.
    pub mounts: Vec<(u64, PathBuf)>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.mounts.first().map_or(&self.source, |(_, path)| path);
        let place = printable(place);
        write!(f, "{place} ({} on {})", self.fstype, self.dev)
    }
}

impl From<&Superblock> for Target {
    fn from(superblock: &Superblock) -> Self {
        Self {
            dev: superblock.dev,
            fstype: superblock.fstype.clone(),
            source: PathBuf::from(&superblock.source),
            mounts: ways(&superblock.mounts),
        }
    }
}

impl From<&LeftOut> for Target {
    fn from(left_out: &LeftOut) -> Self {
        Self {
            dev: left_out.dev,
            fstype: left_out.fstype.clone(),
            source: PathBuf::from(&left_out.source),
            mounts: ways(&left_out.mounts),
        }
    }
}

fn ways(mounts: &[Candidate]) -> Vec<(u64, PathBuf)> {
    mounts
        .iter()
        .map(|mount| (mount.id, mount.mount_point.clone()))
        .collect()
}

/// The engine's view of the system.
pub trait Backend: std::fmt::Debug + Send + Sync + 'static {
    /// What an open file system is held by.
    type Handle: std::fmt::Debug + Send + Sync + 'static;

    /// Reads the mount table and decides what is to be frozen, in which order.
    ///
    /// # Errors
    /// [`ScanError`]: the table cannot be read or understood.
    fn plan(&self) -> Result<Plan, ScanError>;

    /// Opens a file system for the other calls, and verifies that it is the one meant.
    ///
    /// # Errors
    /// [`HandleError`]: no way leads to it.
    fn open(&self, target: &Target) -> Result<Self::Handle, HandleError>;

    /// The handle's descriptor, for the guardian; a double has none.
    fn descriptor<'a>(&self, _handle: &'a Self::Handle) -> Option<BorrowedFd<'a>> {
        None
    }

    /// Whether a file system has appeared since the last plan that should be frozen too. Called while all is frozen:
    /// opens nothing and looks up no path.
    fn has_appeared(&self) -> bool {
        false
    }

    /// `syncfs`.
    ///
    /// # Errors
    /// What the kernel says.
    fn sync(&self, handle: &Self::Handle) -> io::Result<()>;

    /// `FIFREEZE`.
    ///
    /// # Errors
    /// What the kernel says.
    fn freeze(&self, handle: &Self::Handle) -> io::Result<()>;

    /// `FITHAW`.
    ///
    /// # Errors
    /// What the kernel says.
    fn thaw(&self, handle: &Self::Handle) -> io::Result<()>;
}

/// The running kernel.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// What the operator wants left alone.
    pub policy: Policy,
}

impl Backend for Kernel {
    type Handle = Handle;

    fn plan(&self) -> Result<Plan, ScanError> {
        Ok(Plan::new(&scan()?, &self.policy))
    }

    fn open(&self, target: &Target) -> Result<Handle, HandleError> {
        Handle::open(target)
    }

    fn descriptor<'a>(&self, handle: &'a Handle) -> Option<BorrowedFd<'a>> {
        Some(handle.as_fd())
    }

    fn sync(&self, handle: &Handle) -> io::Result<()> {
        freeze::sync(handle)
    }

    fn freeze(&self, handle: &Handle) -> io::Result<()> {
        freeze::freeze(handle)
    }

    fn thaw(&self, handle: &Handle) -> io::Result<()> {
        freeze::thaw(handle)
    }
}
