//! A report for a person's eyes.

use std::fmt::{self, Write as _};

use super::{Outcome, Report, Severity};

/// Columns to which a sentence is broken.
const WIDTH: usize = 96;

impl Outcome {
    /// One sentence for an operator.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::ApplicationConsistent => {
                "The host gets a production checkpoint, application-consistent: hooks bring applications to rest."
            }
            Self::FileSystemConsistent => {
                "The host gets a production checkpoint, file-system-consistent."
            }
            Self::FlushedOnly => {
                "The host gets a production checkpoint in which everything is flushed and nothing frozen: crash-consistent."
            }
            Self::OtherAgent => "Another agent serves the host: it gets what that one gives.",
            Self::Fallback => {
                "The host gets no production checkpoint: it takes a standard one where its setting allows that, and fails where it does not."
            }
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl Report {
    /// For a terminal: the outcome, then each finding with its remedy beneath.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        paragraph(&mut out, "", "", self.explanation);
        for finding in &self.findings {
            let label = format!("  {:<9}", finding.severity);
            let indent = " ".repeat(label.len());
            let _ = writeln!(out);
            let told = format!("{} [{}]", finding.finding, finding.code.code());
            paragraph(&mut out, &label, &indent, &told);
            if !finding.remedy.is_empty() {
                paragraph(
                    &mut out,
                    &format!("{indent}→ "),
                    &format!("{indent}  "),
                    &finding.remedy,
                );
            }
        }
        out
    }
}

fn paragraph(out: &mut String, first: &str, indent: &str, text: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = indent.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
