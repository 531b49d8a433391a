//! Disk images, made outside the guest.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{find, run};
use crate::error::{BedError, BedResult, Context};

/// What a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    /// Nothing: the scenario formats it itself.
    Blank,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// FAT.
    Vfat,
    /// exFAT.
    Exfat,
    /// A squashfs image with one file.
    Squashfs,
    /// An ISO 9660 image with one file.
    Iso,
}

impl FsKind {
    /// The type's name for mount(8).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blank => "none",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Vfat => "vfat",
            Self::Exfat => "exfat",
            Self::Squashfs => "squashfs",
            Self::Iso => "iso9660",
        }
    }

    fn default_mib(self) -> u64 {
        match self {
            Self::Blank | Self::Ext4 => 64,
            Self::Xfs => 320,
            Self::Btrfs => 160,
            Self::Vfat | Self::Exfat => 32,
            Self::Squashfs | Self::Iso => 0,
        }
    }

    /// The command that makes it, up to the image's path.
    fn maker(self) -> &'static [&'static str] {
        match self {
            Self::Blank => &[],
            Self::Ext4 => &["mke2fs", "-q", "-F", "-t", "ext4"],
            Self::Xfs => &["mkfs.xfs", "-q", "-f"],
            Self::Btrfs => &["mkfs.btrfs", "-q", "-f"],
            Self::Vfat => &["mkfs.vfat", "-F", "32"],
            Self::Exfat => &["mkfs.exfat"],
            Self::Squashfs => &["mksquashfs"],
            Self::Iso => &["xorriso"],
        }
    }
}

/// A disk to be made for a guest.
#[derive(Debug, Clone)]
pub struct Disk {
    kind: FsKind,
    mib: u64,
    from: Option<PathBuf>,
    bytes_per_second: Option<u64>,
}

impl Disk {
    /// A disk of the usual size for its kind.
    #[must_use]
    pub fn new(kind: FsKind) -> Self {
        Self {
            kind,
            mib: kind.default_mib(),
            from: None,
            bytes_per_second: None,
        }
    }

    /// A disk of a size, in MiB.
    #[must_use]
    pub fn sized(kind: FsKind, mib: u64) -> Self {
        Self {
            kind,
            mib,
            from: None,
            bytes_per_second: None,
        }
    }

    /// A disk with the content of an image.
    #[must_use]
    pub fn copy_of(image: &Path) -> Self {
        Self {
            kind: FsKind::Blank,
            mib: 0,
            from: Some(image.to_path_buf()),
            bytes_per_second: None,
        }
    }

    /// The same disk, that writes no faster.
    #[must_use]
    pub fn throttled(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// How fast it may be written to, if that is limited.
    pub(super) fn bytes_per_second(&self) -> Option<u64> {
        self.bytes_per_second
    }

    /// QEMU's options of a drive for it.
    pub(super) fn drive_options(&self) -> String {
        self.bytes_per_second
            .map(|speed| format!(",throttling.bps-write={speed}"))
            .unwrap_or_default()
    }

    /// Makes the image.
    pub(super) fn make(&self, image: &Path) -> BedResult<()> {
        if let Some(from) = &self.from {
            return crate::images::copy(from, image);
        }
        match self.kind {
            FsKind::Squashfs | FsKind::Iso => return self.make_read_only(image),
            _ => {}
        }
        File::create(image)
            .and_then(|file| file.set_len(self.mib << 20))
            .doing(|| format!("making {}", image.display()))?;
        if let Some((program, arguments)) = self.kind.maker().split_first() {
            run(Command::new(tool(program)?).args(arguments).arg(image))?;
        }
        Ok(())
    }

    fn make_read_only(&self, image: &Path) -> BedResult<()> {
        let tree = tempfile::tempdir().doing(|| "making a directory".into())?;
        std::fs::write(tree.path().join("file"), "read me\n").doing(|| "writing a file".into())?;
        let mut command = match self.kind {
            FsKind::Squashfs => {
                let mut command = Command::new(tool("mksquashfs")?);
                command.arg(tree.path()).arg(image).arg("-quiet");
                command
            }
            _ => {
                let mut command = Command::new(tool("xorriso")?);
                command.args(["-as", "mkisofs", "-quiet", "-o"]);
                command.arg(image).arg(tree.path());
                command
            }
        };
        run(&mut command)?;
        // A whole number of pages, as O_DIRECT wants it.
        let file = File::options().write(true).open(image);
        file.and_then(|file| {
            let len = file.metadata()?.len();
            file.set_len(len.next_multiple_of(4096))
        })
        .doing(|| format!("rounding {}", image.display()))
    }
}

fn tool(program: &str) -> BedResult<PathBuf> {
    find(program).ok_or_else(|| {
        BedError::Setup(format!(
            "this machine lacks {program}: tests/run as root installs it"
        ))
    })
}
