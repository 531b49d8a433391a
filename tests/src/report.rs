//! What was seen, collected line by line and rendered as one table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::assets::Kernel;
use crate::error::{BedResult, Context};
use crate::paths;

/// How a scenario ended for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The promise was kept.
    Pass,
    /// It was not.
    Fail,
    /// The bed broke: nothing can be said.
    Error,
}

/// One scenario, one kernel, one agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The test's name: the promise.
    pub name: String,
    /// Row of the table of scenarios.
    pub row: String,
    /// What was done.
    pub title: String,
    /// Kernel series.
    pub kernel: String,
    /// Agent.
    pub agent: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen, in one sentence.
    pub seen: String,
    /// The declared gap of the C daemon.
    pub gap: Option<String>,
    /// It is about something that the C daemon does not have.
    #[serde(default)]
    pub alone: bool,
    /// Durations the scenario measured, in milliseconds.
    pub timings_ms: Vec<(String, f64)>,
    /// Duration of the whole scenario, in seconds.
    pub took_s: f64,
}

/// Adds a line: a file of its own, replaced when the scenario runs again.
pub(crate) fn add(line: &Line) {
    let file = paths::results().join(format!("{}.{}.{}.json", line.name, line.kernel, line.agent));
    let written = std::fs::create_dir_all(paths::results())
        .and_then(|()| std::fs::File::create(&file))
        .and_then(|mut out| {
            serde_json::to_writer_pretty(&mut out, line)?;
            out.write_all(b"\n")
        });
    if let Err(error) = written {
        println!("no report line in {}: {error}", file.display());
    }
}

/// Forgets the lines of earlier runs.
///
/// # Errors
/// The directory cannot be removed.
pub fn clear() -> BedResult<()> {
    match std::fs::remove_dir_all(paths::results()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| "removing earlier results".into())
        }
        _ => Ok(()),
    }
}

/// All lines collected so far.
///
/// # Errors
/// A line cannot be read.
pub fn lines() -> BedResult<Vec<Line>> {
    let Ok(entries) = std::fs::read_dir(paths::results()) else {
        return Ok(Vec::new());
    };
    let mut lines = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let text = std::fs::read(&path).doing(|| format!("reading {}", path.display()))?;
        let line: Line = serde_json::from_slice(&text)
            .map_err(std::io::Error::other)
            .doing(|| format!("reading {}", path.display()))?;
        lines.push(line);
    }
    Ok(lines)
}

/// The table of scenarios, in Markdown: a row a scenario, a column an agent.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    let mut rows: BTreeMap<(u32, &str), Vec<&Line>> = BTreeMap::new();
    for line in lines {
        let row = line.row.parse().unwrap_or(u32::MAX);
        rows.entry((row, line.name.as_str()))
            .or_default()
            .push(line);
    }
    let mut text =
        String::from("| row | scenario | hv-vssd | hv_vss_daemon |\n|---|---|---|---|\n");
    for ((_, name), lines) in rows {
        let Some(first) = lines.first() else { continue };
        let _ = writeln!(
            text,
            "| {} | **{}**: {} | {} | {} |",
            first.row,
            name.replace('_', " "),
            first.title,
            cell(&lines, "hv-vssd"),
            cell(&lines, "hv_vss_daemon"),
        );
    }
    text
}

/// What one agent showed: said once where the kernels agree, for each where they do not.
fn cell(lines: &[&Line], agent: &str) -> String {
    if lines.iter().any(|line| line.alone && line.agent != agent) {
        return "has no such thing".to_owned();
    }
    let of = |kernel: Kernel| {
        lines
            .iter()
            .find(|line| line.agent == agent && line.kernel == kernel.series())
    };
    let mut parts: Vec<(Vec<&str>, String)> = Vec::new();
    for kernel in Kernel::ALL {
        let said = of(kernel).map_or_else(|| "not run".to_owned(), |line| describe(line));
        match parts.iter_mut().find(|(_, other)| *other == said) {
            Some((kernels, _)) => kernels.push(kernel.series()),
            None => parts.push((vec![kernel.series()], said)),
        }
    }
    let whole = parts.len() == 1;
    let texts: Vec<String> = parts
        .into_iter()
        .map(|(kernels, said)| {
            if whole {
                said
            } else {
                format!("{}: {said}", kernels.join(", "))
            }
        })
        .collect();
    texts.join("<br>")
}

fn describe(line: &Line) -> String {
    let verdict = match line.verdict {
        Verdict::Pass => "yes",
        Verdict::Fail => "**no**",
        Verdict::Error => "*not judged*",
    };
    let seen = line.seen.replace('|', "\\|").replace('\n', " ");
    match &line.gap {
        Some(gap) if line.verdict == Verdict::Fail => format!("{verdict}: {seen} ({gap})"),
        _ => format!("{verdict}: {seen}"),
    }
}

/// How many lines passed, failed as declared, and failed otherwise, for an agent.
#[must_use]
pub fn counts(lines: &[Line], agent: &str) -> (usize, usize, usize) {
    let of: Vec<&Line> = lines.iter().filter(|line| line.agent == agent).collect();
    let passed = of.iter().filter(|l| l.verdict == Verdict::Pass).count();
    let declared = of
        .iter()
        .filter(|l| l.verdict == Verdict::Fail && l.gap.is_some())
        .count();
    (passed, declared, of.len() - passed - declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kernel: &str, agent: &str, seen: &str) -> Line {
        Line {
            name: "it_thaws".into(),
            row: "1".into(),
            title: "a hold".into(),
            kernel: kernel.into(),
            agent: agent.into(),
            verdict: Verdict::Pass,
            seen: seen.into(),
            gap: None,
            alone: false,
            timings_ms: vec![],
            took_s: 1.0,
        }
    }

    #[test]
    fn kernels_that_agree_are_said_once() {
        let lines = [
            line("6.1", "hv-vssd", "all thawed"),
            line("6.12", "hv-vssd", "all thawed"),
            line("6.1", "hv_vss_daemon", "thawed in 3 ms"),
        ];
        let table = table(&lines);
        let expected = "| 1 | **it thaws**: a hold | yes: all thawed | \
                        6.1: yes: thawed in 3 ms<br>6.12: not run |";
        assert_eq!(table.lines().last(), Some(expected));
        assert_eq!(counts(&lines, "hv-vssd"), (2, 0, 0));
    }

    #[test]
    fn what_the_c_daemon_does_not_have_is_said_so() {
        let ours = Line {
            alone: true,
            ..line("6.1", "hv-vssd", "thawed")
        };
        let table = table(&[ours]);
        assert!(table.ends_with("| 6.1: yes: thawed<br>6.12: not run | has no such thing |\n"));
    }
}
