//! Why the file systems of a machine cannot be listed.

use std::io;
use std::path::PathBuf;

use super::mountinfo;

/// Why the system could not be read; nothing may then be frozen.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A file of /proc is not readable.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the mount table is not as the kernel writes it.
    #[error("{}: {source}", path.display())]
    Mountinfo {
        /// The table.
        path: PathBuf,
        /// The line.
        source: mountinfo::ParseError,
    },
    /// The mount table is empty, which it is for no living process.
    #[error("{} names no mount at all; nothing is frozen, because every file system would be missed", path.display())]
    NoMounts {
        /// The table.
        path: PathBuf,
    },
}
