//! What a checkpoint did and how long it took, written to the log after the thaw.

use std::fmt;
use std::time::Duration;

use super::slot::Times;

/// One file system's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystemReport {
    /// Which: mount point, type and device.
    pub name: String,
    /// How long its calls took.
    pub times: Times,
    /// It was only flushed, because its type cannot be frozen.
    pub flushed_only: bool,
}

/// One checkpoint, from the request FREEZE to the last thaw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// From the request to all handles open.
    pub prepare: Duration,
    /// Data written back before the first commit.
    pub write_back: Duration,
    /// All of the flush: write-back and passes.
    pub flush: Duration,
    /// Number of flush passes.
    pub passes: u32,
    /// From the first `FIFREEZE` to the last one's return.
    pub freeze: Duration,
    /// From the last freeze to the first thaw.
    pub hold: Duration,
    /// From the first thaw to the last one's return.
    pub thaw: Duration,
    /// The file systems, in freeze order.
    pub file_systems: Vec<FileSystemReport>,
    /// File systems that someone else had frozen, and that were left to them.
    pub foreign: Vec<String>,
    /// What went wrong in the thaw, one sentence each.
    pub failures: Vec<String>,
}

impl Report {
    /// Everything was frozen by us to the end, and is thawed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frozen = self
            .file_systems
            .iter()
            .filter(|fs| !fs.flushed_only)
            .count();
        let flushed = self.file_systems.len() - frozen;
        write!(
            f,
            "{} held for {}",
            count(frozen, "file system"),
            ms(self.hold)
        )?;
        if flushed > 0 {
            write!(f, ", {flushed} only flushed")?;
        }
        write!(
            f,
            " (prepare {}, flush {} of which write-back {}, {}, freeze {}, thaw {})",
            ms(self.prepare),
            ms(self.flush),
            ms(self.write_back),
            count(self.passes as usize, "pass"),
            ms(self.freeze),
            ms(self.thaw)
        )
    }
}

impl fmt::Display for FileSystemReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: flush {}", self.name, ms(self.times.flush))?;
        if self.flushed_only {
            return f.write_str(", cannot be frozen");
        }
        write!(
            f,
            ", freeze {}, thaw {}",
            ms(self.times.freeze),
            ms(self.times.thaw)
        )
    }
}

/// A number and its noun.
pub(in crate::quiesce) fn count(number: usize, noun: &str) -> String {
    match (number, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "pass" | "process") => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
