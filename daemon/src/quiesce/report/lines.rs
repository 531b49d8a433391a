//! A report as lines of the log.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::{FileSystemReport, FileSystemResult, PhaseName, Report, Span, WorstStall};
use crate::filesystems::text::printable;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = |result| {
            let found = self.file_systems.iter().filter(|fs| fs.result == result);
            found.count()
        };
        let flushed = is(FileSystemResult::FlushedOnly);
        if self.flush_only {
            write!(
                f,
                "nothing was frozen, {} flushed only: the image is crash-consistent",
                count(flushed, "file system")
            )?;
        } else {
            write!(
                f,
                "{} held for {}",
                count(is(FileSystemResult::Frozen), "file system"),
                ms(self.total(PhaseName::Hold))
            )?;
        }
        if flushed > 0 && !self.flush_only {
            write!(f, ", {flushed} only flushed")?;
        }
        let left_out = is(FileSystemResult::LeftOut);
        if left_out > 0 {
            write!(f, ", {left_out} left out")?;
        }
        if let Some(worst) = &self.worst_stall {
            write!(f, ", worst stall {worst}")?;
        }
        let passes = self.phases.iter();
        let passes = passes.filter(|phase| phase.phase == PhaseName::Flush);
        write!(
            f,
            " (prepare {}, write-back {}, flush {} in {}, freeze {}, thaw {})",
            ms(self.total(PhaseName::Prepare)),
            ms(self.total(PhaseName::WriteBack)),
            ms(self.total(PhaseName::Flush)),
            count(passes.count(), "pass"),
            ms(self.total(PhaseName::Freeze)),
            ms(self.total(PhaseName::Thaw))
        )
    }
}

impl fmt::Display for WorstStall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at ", ms(self.stall))?;
        match self.mount_point.as_str() {
            "" => write!(f, "{}", self.dev),
            place => f.write_str(&printable(place)),
        }
    }
}

impl FileSystemReport {
    /// Mount point, type and device, safe on a terminal.
    #[must_use]
    pub fn name(&self) -> String {
        let place = if self.mount_point.is_empty() {
            &self.source
        } else {
            &self.mount_point
        };
        format!(
            "{} ({} on {})",
            printable(Path::new(place)),
            self.fstype,
            self.dev
        )
    }
}

impl fmt::Display for FileSystemReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.result == FileSystemResult::LeftOut {
            let reason = self.reason.as_deref().unwrap_or_default();
            return write!(f, "{}: left out: {reason}", self.name());
        }
        write!(f, "{}: flush {}", self.name(), span(self.flush))?;
        match self.result {
            FileSystemResult::FlushedOnly => return f.write_str(", flushed only"),
            FileSystemResult::Foreign => return f.write_str(", frozen by someone else"),
            _ => {}
        }
        write!(
            f,
            ", freeze {}, thaw {}",
            span(self.freeze),
            span(self.thaw)
        )?;
        if let Some(stall) = self.stall {
            write!(f, ", stall {}", ms(stall))?;
        }
        Ok(())
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

fn span(span: Option<Span>) -> String {
    span.map_or_else(|| "not reached".to_owned(), |span| ms(span.duration))
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
