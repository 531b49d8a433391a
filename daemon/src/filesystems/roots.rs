//! Where a scan reads.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use super::device::DeviceNumber;
use super::nodes::{self, Behind};

/// Where to read; anything but the system's own is for tests and demonstrations.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The proc file system; `filesystems` and of each process `mountinfo`, `ns/mnt`, `root` and `comm` are read there.
    pub proc: PathBuf,
    /// The sys file system.
    pub sys: PathBuf,
    /// How a path below `/dev` becomes a device number.
    pub dev: DeviceNodes,
    /// Whether the mount namespaces of other processes are read too.
    pub other_namespaces: bool,
}

/// How a path below `/dev` becomes a device number.
#[derive(Debug, Clone)]
pub enum DeviceNodes {
    /// By a look-up that follows nothing others than root can write, and never leaves the file system of `/dev`.
    System,
    /// By this list.
    Listed(BTreeMap<PathBuf, DeviceNumber>),
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            dev: DeviceNodes::System,
            other_namespaces: true,
        }
    }
}

impl DeviceNodes {
    /// The block device that `path` names; only paths below `/dev` are looked at.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> Option<DeviceNumber> {
        let stays =
            path.starts_with("/dev") && !path.components().any(|part| part == Component::ParentDir);
        if !stays {
            return None;
        }
        match self {
            Self::System => nodes::resolve(path),
            Self::Listed(nodes) => nodes.get(path).copied(),
        }
    }

    /// What is behind the loop device `dev` of this name, for a file of this path; as far as that can be found out until `deadline`.
    pub(crate) fn behind_loop(
        &self,
        name: &str,
        dev: DeviceNumber,
        path: &Path,
        deadline: Instant,
    ) -> Behind {
        match self {
            Self::System => nodes::behind_loop(name, dev, deadline),
            Self::Listed(nodes) => nodes
                .get(path)
                .map_or(Behind::File(None), |number| Behind::Device(*number)),
        }
    }
}
