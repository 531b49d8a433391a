//! File system types by how a freeze has to treat them.

use super::mount_table::MountTable;

/// How a file system of some type is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On a server elsewhere: a dead one would block whoever opens its mount point.
    Remote,
    /// Served by a process of this guest: a dead or frozen one would do the same.
    Fuse,
    /// Its files are those of another file system; the option, or for `None` the source, names the directory they are written to.
    Layered(Option<&'static str>),
    /// Local, but its driver has no `freeze_fs` (struct super_operations in the kernel's include/linux/fs.h).
    CannotFreeze,
    /// Nothing of it is on a disk.
    Pseudo,
    /// To be frozen; FIFREEZE itself tells whether that is possible.
    Freezable,
}

const REMOTE: [&str; 24] = [
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gpfs", "lustre", "mvfs", "ncpfs",
    "nfs", "nfs4", "orangefs", "panfs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf",
    "virtiofs", "vmhgfs", "webdav",
];

const CANNOT_FREEZE: [&str; 27] = [
    "adfs", "affs", "apfs", "bfs", "exfat", "hfs", "hfsplus", "hpfs", "jffs2", "minix", "msdos",
    "ntfs", "ntfs3", "ntfsplus", "ocfs2", "omfs", "qnx4", "qnx6", "sysv", "ubifs", "udf", "ufs",
    "umsdos", "vfat", "yaffs2", "zfs", "zonefs",
];

impl Kind {
    /// The kind of `fstype`, a type as mountinfo names it; `nodev` tells whether /proc/filesystems marks a type as one without a device.
    pub(crate) fn of(fstype: &str, nodev: impl Fn(&str) -> bool) -> Self {
        let base = fstype.split('.').next().unwrap_or(fstype);
        match base {
            "fuse" | "fuseblk" => Self::Fuse,
            // aufs has its branches in sysfs alone, and so has no such option: what it lies on stays unknown.
            "overlay" | "overlayfs" | "aufs" => Self::Layered(Some("upperdir")),
            "ecryptfs" | "shiftfs" => Self::Layered(None),
            _ if REMOTE.contains(&base) => Self::Remote,
            _ if CANNOT_FREEZE.contains(&base) => Self::CannotFreeze,
            // The initial RAM file system is registered nowhere.
            "rootfs" | "ramfs" => Self::Pseudo,
            _ if nodev(fstype) || nodev(base) => Self::Pseudo,
            _ => Self::Freezable,
        }
    }

    /// Whether a file system of this kind has blocks, and so may be opened to be frozen or flushed.
    pub(crate) const fn has_blocks(self) -> bool {
        matches!(self, Self::CannotFreeze | Self::Freezable)
    }

    /// Whether looking up a path on a mount of this kind, of type `fstype`, could wait for a server, a process or an automount.
    pub(crate) fn may_block(self, fstype: &str) -> bool {
        matches!(self, Self::Remote | Self::Fuse) || fstype == "autofs"
    }
}

/// The kinds of a table's mounts: each type is looked up once.
pub(crate) struct Kinds(Vec<(Kind, bool)>);

impl Kinds {
    /// `kind_of` tells the kind of a type.
    pub(crate) fn of(table: &MountTable, kind_of: impl Fn(&str) -> Kind) -> Self {
        let kind = |fstype| {
            let kind = kind_of(fstype);
            (kind, kind.may_block(fstype))
        };
        Self(table.types().map(kind).collect())
    }

    /// The kind of the mount at `index`.
    #[inline(always)]
    pub(crate) fn kind(&self, table: &MountTable, index: usize) -> Kind {
        self.0
            .get(table.type_of(index))
            .map_or(Kind::Pseudo, |(kind, _)| *kind)
    }

    /// [`Kind::may_block`] of the mount at `index`.
    #[inline(always)]
    pub(crate) fn may_block(&self, table: &MountTable, index: usize) -> bool {
        self.0
            .get(table.type_of(index))
            .is_some_and(|(_, may_block)| *may_block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_treated_as_what_it_is() {
        let nodev = |name: &str| {
            matches!(
                name,
                "tmpfs" | "zfs" | "nfs" | "overlay" | "autofs" | "fuse" | "ubifs"
            )
        };
        for (fstype, kind) in [
            ("ext4", Kind::Freezable),
            ("btrfs", Kind::Freezable),
            ("somefs-of-2031", Kind::Freezable),
            ("tmpfs", Kind::Pseudo),
            ("autofs", Kind::Pseudo),
            ("rootfs", Kind::Pseudo),
            ("nfs", Kind::Remote),
            ("nfs4", Kind::Remote),
            ("fuse", Kind::Fuse),
            ("fuse.glusterfs", Kind::Fuse),
            ("fuseblk", Kind::Fuse),
            ("fuseblk.ntfs-3g", Kind::Fuse),
            ("vfat", Kind::CannotFreeze),
            ("zfs", Kind::CannotFreeze),
            ("ubifs", Kind::CannotFreeze),
            ("ocfs2", Kind::CannotFreeze),
            ("zonefs", Kind::CannotFreeze),
            ("gfs2", Kind::Freezable),
            ("aufs", Kind::Layered(Some("upperdir"))),
            ("overlay", Kind::Layered(Some("upperdir"))),
        ] {
            assert_eq!(Kind::of(fstype, nodev), kind, "{fstype}");
        }
    }

    #[test]
    fn the_lists_can_be_read() {
        assert!(REMOTE.is_sorted());
        assert!(CANNOT_FREEZE.is_sorted());
    }
}
