//! All that was measured, and its tables.

use std::fmt::Write;
use std::time::Duration;

use crate::case::Case;
use crate::contender::Contender;
use crate::idle::Idle;
use crate::measure::Sample;
use crate::stats::{Summary, text};

/// A case with one agent.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) case: Case,
    pub(crate) agent: Contender,
    pub(crate) samples: Vec<Sample>,
    /// Why there are no more.
    pub(crate) failure: Option<String>,
}

/// A run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) about: String,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) starts: Vec<(Contender, Duration)>,
    pub(crate) idle: Vec<(Contender, Idle)>,
}

/// What is shown of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Stall,
    Freeze,
    Thaw,
    Cpu,
}

impl Figure {
    const ALL: [Self; 4] = [Self::Stall, Self::Freeze, Self::Thaw, Self::Cpu];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Stall => "worst write stall",
            Self::Freeze => "FREEZE answered after",
            Self::Thaw => "THAW answered after",
            Self::Cpu => "processor time of the agent",
        }
    }

    fn of(self, sample: &Sample) -> Duration {
        match self {
            Self::Stall => sample.worst_stall(),
            Self::Freeze => sample.freeze,
            Self::Thaw => sample.thaw,
            Self::Cpu => sample.cpu,
        }
    }
}

impl Outcome {
    pub(crate) fn summary(&self, figure: Figure) -> Option<Summary> {
        // Without an agent nothing is asked, and there is nothing to time but writes.
        let is_meant = self.agent != Contender::Nobody || figure == Figure::Stall;
        Summary::of(
            self.samples
                .iter()
                .filter(|_| is_meant)
                .map(|sample| figure.of(sample)),
        )
    }

    /// Medians of the stalls, disk by disk.
    fn per_disk(&self) -> String {
        let median = |disk: usize| {
            let stalls = self
                .samples
                .iter()
                .filter_map(|sample| sample.stalls.get(disk));
            Summary::of(stalls.map(|stall| stall.length)).map(|summary| text(summary.median))
        };
        let medians: Vec<String> = (0..self.case.disks.len()).filter_map(median).collect();
        medians.join(", ")
    }
}

impl Results {
    /// The cases in their order, with their outcomes.
    pub(crate) fn by_case(&self) -> Vec<(Case, Vec<&Outcome>)> {
        let mut cases: Vec<(Case, Vec<&Outcome>)> = Vec::new();
        for outcome in &self.outcomes {
            match cases
                .iter_mut()
                .find(|(case, _)| case.letter == outcome.case.letter)
            {
                Some((_, outcomes)) => outcomes.push(outcome),
                None => cases.push((outcome.case, vec![outcome])),
            }
        }
        cases
    }

    /// All of it as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("{}\n", self.about);
        for (case, outcomes) in self.by_case() {
            let _ = write!(out, "\n### {}: {}\n\n", case.letter, case.title);
            if case.dirty > 0 {
                let least = text(case.least());
                let _ = writeln!(out, "The disks need {least} for what is dirty at FREEZE.\n");
            }
            table(&mut out, &outcomes);
        }
        self.idle_table(&mut out);
        out
    }

    fn idle_table(&self, out: &mut String) {
        if self.idle.is_empty() {
            return;
        }
        let seconds = self.idle.first().map_or(0, |(_, idle)| idle.seconds);
        let _ = write!(
            out,
            "\n### Idle\n\n| agent | processes | threads | memory (PSS of all) | wake-ups in {seconds} s | program | start to ready |\n|---|---|---|---|---|---|---|\n"
        );
        for (agent, idle) in &self.idle {
            let starts = self.starts.iter().filter(|(who, _)| who == agent);
            let start = Summary::of(starts.map(|(_, took)| *took));
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.1} MiB | {} | {:.2} MiB | {} |",
                agent.name(),
                idle.processes,
                idle.threads,
                idle.pss_kib as f64 / 1024.0,
                idle.wake_ups,
                idle.binary as f64 / f64::from(1 << 20),
                start.map_or_else(String::new, |start| start.to_string()),
            );
        }
    }
}

fn table(out: &mut String, outcomes: &[&Outcome]) {
    let names: Vec<&str> = outcomes
        .iter()
        .map(|outcome| outcome.agent.name())
        .collect();
    let _ = writeln!(out, "| | {} |", names.join(" | "));
    let _ = writeln!(out, "|---|{}", "---|".repeat(names.len()));
    for figure in Figure::ALL {
        let cells = outcomes
            .iter()
            .map(|outcome| match outcome.summary(figure) {
                Some(summary) => summary.to_string(),
                None => outcome.failure.clone().unwrap_or_default(),
            });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(out, "| {} | {} |", figure.title(), cells.join(" | "));
        if figure == Figure::Stall {
            let cells: Vec<String> = outcomes.iter().map(|outcome| outcome.per_disk()).collect();
            let _ = writeln!(out, "| – by disk | {} |", cells.join(" | "));
        }
    }
}
