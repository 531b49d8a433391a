//! Which file system is meant, and the ways that lead to it.

use std::path::PathBuf;

use crate::filesystems::text::printable;
use crate::filesystems::{Candidate, DeviceNumber, LeftOut, Superblock};

/// Trying more ways than this to one file system does not make it more reachable.
pub(super) const MOST_WAYS: usize = 16;

/// A file system to be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The superblock's identity.
    pub dev: DeviceNumber,
    /// Its type, such as `ext4`.
    pub fstype: String,
    /// Its source, such as `/dev/sda1`.
    pub source: PathBuf,
    /// Where an operator knows it to be mounted; empty when nowhere.
    pub place: PathBuf,
    /// Mounts to open it through, the best first: mount id, and a path that waits for nobody.
    pub mounts: Vec<(u64, PathBuf)>,
}

impl Target {
    fn new(dev: DeviceNumber, fstype: &str, source: PathBuf, mounts: &[Candidate]) -> Self {
        let ways = mounts.iter().filter(|mount| mount.is_open());
        Self {
            dev,
            fstype: fstype.to_owned(),
            source,
            place: mounts
                .first()
                .map(|mount| mount.mount_point.clone())
                .unwrap_or_default(),
            mounts: ways
                .take(MOST_WAYS)
                .map(|mount| (mount.id, mount.path().into_owned()))
                .collect(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if self.place.as_os_str().is_empty() {
            &self.source
        } else {
            &self.place
        };
        write!(f, "{} ({} on {})", printable(place), self.fstype, self.dev)
    }
}

impl From<&Superblock> for Target {
    fn from(superblock: &Superblock) -> Self {
        let source = PathBuf::from(&superblock.source);
        Self::new(
            superblock.dev,
            &superblock.fstype,
            source,
            &superblock.mounts,
        )
    }
}

impl From<&LeftOut> for Target {
    fn from(left_out: &LeftOut) -> Self {
        let source = PathBuf::from(&left_out.source);
        Self::new(left_out.dev, &left_out.fstype, source, &left_out.mounts)
    }
}
