//! Why a file system is left out of a freeze.

use std::fmt;

use serde::{Serialize, Serializer};

/// Why a file system is left out of a freeze. Displays as a sentence for an operator; in JSON it is [`Reason::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Excluded by configuration.
    Excluded,
    /// There are lists of what to include, and it is on none.
    NotIncluded,
    /// Nothing is frozen, by configuration.
    FlushOnly,
    /// Its driver cannot freeze.
    CannotFreeze,
    /// Its device has gone: a disk that was pulled.
    DeviceGone,
    /// Its driver has shut it down, after an error or by request.
    ShutDown,
    /// It is live, mounted nowhere in sight, and does not open by its device.
    OutOfReach,
    /// On a disk, but served by a process of this guest.
    FuseOnDisk,
    /// On disks of this guest, or for all that is known so, but served by a cluster.
    ClusterOnDisk,
    /// Served by a process of this guest.
    Fuse,
    /// On a server elsewhere.
    Remote,
    /// Its files are those of another file system, which is treated on its own.
    Layered,
    /// The superblock is read-only, whatever its mounts are.
    ReadOnly,
    /// On a block device, but one that is in memory alone.
    InMemory,
    /// Nothing of it is on a disk.
    Pseudo,
}

impl Reason {
    /// A stable name for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::NotIncluded => "not-included",
            Self::FlushOnly => "flush-only",
            Self::CannotFreeze => "cannot-freeze",
            Self::DeviceGone => "device-gone",
            Self::ShutDown => "shut-down",
            Self::OutOfReach => "out-of-reach",
            Self::FuseOnDisk => "fuse-on-disk",
            Self::ClusterOnDisk => "cluster-on-disk",
            Self::Fuse => "fuse",
            Self::Remote => "remote",
            Self::Layered => "layered",
            Self::ReadOnly => "read-only",
            Self::InMemory => "in-memory",
            Self::Pseudo => "pseudo",
        }
    }

    /// Whether the file system is flushed with `syncfs` (`man 2 syncfs`) in place of being frozen: local, writable, and not to be frozen at all.
    #[must_use]
    pub const fn is_flushed(self) -> bool {
        matches!(self, Self::CannotFreeze | Self::FlushOnly)
    }

    /// Whether the image misses something that nobody wanted it to miss: it is local, writable or was so, and cannot be frozen. `strictness = "strict"` takes no
    /// checkpoint then.
    #[must_use]
    pub const fn is_a_gap(self) -> bool {
        matches!(
            self,
            Self::CannotFreeze | Self::FuseOnDisk | Self::ClusterOnDisk | Self::OutOfReach
        ) || self.is_dead()
    }

    /// Whether nothing can be written to it any more, whoever tries.
    #[must_use]
    pub const fn is_dead(self) -> bool {
        matches!(self, Self::DeviceGone | Self::ShutDown)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Excluded => "excluded by configuration",
            Self::NotIncluded => "not included by configuration",
            Self::FlushOnly => "flushed, not frozen, by configuration",
            Self::CannotFreeze => "cannot be frozen; flushed instead",
            Self::DeviceGone => "its device has gone: nothing can be written to it any more",
            Self::ShutDown => "shut down by its driver: takes no writes any more",
            Self::OutOfReach => "mounted nowhere in sight, and cannot be opened by its device",
            Self::FuseOnDisk => "on a disk, but served by a process (FUSE); never opened",
            Self::ClusterOnDisk => "on disks of this guest, but served by a cluster; never opened",
            Self::Fuse => "served by a process (FUSE); never opened",
            Self::Remote => "on a server; never opened",
            Self::Layered => "stored on another file system",
            Self::ReadOnly => "read-only: nothing to hold back",
            Self::InMemory => "on a device in memory (zram, brd), which no image has",
            Self::Pseudo => "nothing of it is on a disk",
        })
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}
