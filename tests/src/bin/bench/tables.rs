//! The results as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::iter::once;
use std::time::Duration;

use crate::case::{Case, Load};
use crate::contender::Contender;
use crate::results::{About, Figure, Measured, MeasuredIdle, Outcome, Results};
use crate::stats::{Summary, text};

/// All tables.
pub(crate) fn markdown(results: &Results) -> String {
    let mut out = about(results);
    overview(&mut out, results);
    for (case, measured) in &results.cases {
        let _ = write!(out, "\n### {}: {}\n\n", case.letter, case.title);
        one_case(&mut out, case, measured);
        let smaller = |(other, _): &&(Case, Measured)| {
            other.bind_mounts > 0 && other.bind_mounts < case.bind_mounts
        };
        if let Some((fewer, of_fewer)) = results.cases.iter().find(smaller) {
            growth(&mut out, (fewer, of_fewer), (case, measured));
        }
    }
    if let Some(idle) = &results.idle {
        idle_table(&mut out, idle);
    }
    out
}

/// With what it was measured; what differs between the parts is said.
fn about(results: &Results) -> String {
    let mut all: Vec<(String, &About)> = Vec::new();
    for (case, measured) in &results.cases {
        all.push((case.letter.to_string(), &measured.about));
    }
    if let Some(idle) = &results.idle {
        all.push(("idle".into(), &idle.about));
    }
    let said = |of: fn(&About) -> &String| {
        let mut by_text: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
        for (name, about) in &all {
            by_text.entry(of(about)).or_default().push(name);
        }
        let several = by_text.len() > 1;
        let parts = by_text.iter().map(|(text, names)| {
            if several {
                format!("{text} ({})", names.join(", "))
            } else {
                (*text).clone()
            }
        });
        parts.collect::<Vec<_>>().join(" and ")
    };
    format!(
        "Linux {}, two emulated processors; {}; {}. Each figure: median (range).\n",
        said(|about| &about.kernel),
        said(|about| &about.hv_vssd),
        said(|about| &about.others)
    )
}

/// Medians of stall and FREEZE of all cases on one page.
fn overview(out: &mut String, results: &Results) {
    let figures = [Figure::Stall, Figure::Freeze];
    let agents = Contender::AGENTS;
    out.push_str("\n| case |");
    for title in ["worst stall", "FREEZE"] {
        for agent in agents {
            let _ = write!(out, " {title}: {} |", agent.name());
        }
    }
    let _ = writeln!(
        out,
        "\n|---|{}",
        "---|".repeat(agents.len() * figures.len())
    );
    for (case, measured) in &results.cases {
        let _ = write!(out, "| {}: {} |", case.letter, case.title);
        for figure in figures {
            for agent in agents {
                let outcome = measured.of(agent);
                let summary = outcome.and_then(|outcome| outcome.summary(figure));
                let ratio = outcome.and_then(|outcome| measured.times_ours(outcome, figure));
                let ratio = ratio.map(|ratio| format!(" ({} ×)", ratio.median()));
                let shown = summary.map_or_else(|| "failed".into(), |found| text(found.median));
                let _ = write!(out, " {shown}{} |", ratio.unwrap_or_default());
            }
        }
        out.push('\n');
    }
    out.push_str("\nIn brackets: how many times hv-vssd's.\n");
}

fn title(figure: Figure, case: &Case) -> &'static str {
    match figure {
        Figure::Stall if case.load == Load::Commits => "longest transaction",
        Figure::Stall => "worst write stall",
        Figure::HotBackup => "HOT_BACKUP answered after",
        Figure::Freeze => "FREEZE answered after",
        Figure::Writing => "– the disks needed for what it wrote",
        Figure::Thaw => "THAW answered after",
        Figure::Cpu => "processor time of the agent",
    }
}

fn row(out: &mut String, title: &str, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    let _ = writeln!(out, "| {title} | {} |", cells.join(" | "));
}

fn one_case(out: &mut String, case: &Case, measured: &Measured) {
    let agents = measured.agents();
    let most = agents.iter().map(|outcome| outcome.samples.len()).max();
    let most = match most.unwrap_or(0) {
        1 => "One checkpoint".to_owned(),
        number => format!("{number} checkpoints"),
    };
    let seconds = measured.took.as_secs();
    let _ = writeln!(
        out,
        "{most} with each agent; measured in {} min {} s.\n",
        seconds / 60,
        seconds % 60
    );
    let names: Vec<&str> = agents.iter().map(|outcome| outcome.agent.name()).collect();
    let _ = writeln!(out, "| | no checkpoint; limit | {} |", names.join(" | "));
    let _ = writeln!(out, "|---|{}", "---|".repeat(names.len() + 1));
    let nobody = measured.of(Contender::Nobody);
    let least = measured.least(case);
    for figure in Figure::ALL {
        let beside = match figure {
            Figure::Stall => nobody.and_then(|it| Some(it.summary(figure)?.to_string())),
            Figure::Freeze => least.map(text),
            _ => None,
        };
        let cells = agents.iter().map(|outcome| cell(outcome, figure));
        let beside = [beside.unwrap_or_default()];
        row(out, title(figure, case), beside.into_iter().chain(cells));
        if matches!(figure, Figure::Stall | Figure::Freeze) {
            let ratio = |outcome: &&Outcome| {
                let ratio = measured.times_ours(outcome, figure);
                ratio.map_or_else(String::new, |ratio| ratio.to_string())
            };
            let cells = agents.iter().map(ratio);
            row(out, "– times hv-vssd's", once(String::new()).chain(cells));
        }
        if let (Figure::Freeze, Some(least)) = (figure, least) {
            let cells = agents.iter().map(|outcome| times_the_limit(outcome, least));
            row(out, "– times the limit", once(String::new()).chain(cells));
        }
        if figure == Figure::Stall {
            let title = if case.load == Load::Commits {
                "small writes, by disk"
            } else {
                "– by disk"
            };
            let by_disk = |outcome: &Outcome| per_disk(outcome, case);
            let limit_cell = [nobody.map_or_else(String::new, by_disk)];
            let cells = agents.iter().map(|outcome| by_disk(outcome));
            row(out, title, limit_cell.into_iter().chain(cells));
        }
    }
    for outcome in &measured.outcomes {
        if let Some(failure) = &outcome.failure {
            let _ = writeln!(out, "\n{} did not go on: {failure}", outcome.agent.name());
        }
    }
}

fn times_the_limit(outcome: &Outcome, least: Duration) -> String {
    let times = |time: Duration| format!("{:.2}", time.as_secs_f64() / least.as_secs_f64());
    let Some(found) = outcome.summary(Figure::Freeze) else {
        return String::new();
    };
    let range = format!("{} – {}", times(found.least), times(found.most));
    format!("{} ({range})", times(found.median))
}

fn cell(outcome: &Outcome, figure: Figure) -> String {
    let summary = outcome.summary(figure);
    summary.map_or_else(String::new, |summary| summary.to_string())
}

/// Medians of the stalls of small writes, disk by disk.
fn per_disk(outcome: &Outcome, case: &Case) -> String {
    let median = |disk: usize| Some(text(outcome.stall_of_disk(disk)?.median));
    let medians: Vec<String> = (0..case.disks.len()).filter_map(median).collect();
    medians.join(", ")
}

/// What a mount costs with few and with many of them.
fn growth(out: &mut String, fewer: (&Case, &Measured), more: (&Case, &Measured)) {
    let times = f64::from(more.0.bind_mounts) / f64::from(fewer.0.bind_mounts);
    let _ = write!(
        out,
        "\n{} and {} beside each other, medians: what a mount costs. There are {times:.1} times as many; linear growth leaves the cost of one as it is.\n\n",
        fewer.0.letter, more.0.letter
    );
    let agents = Contender::AGENTS.map(Contender::name);
    let _ = writeln!(
        out,
        "| | {} |\n|---|{}",
        agents.join(" | "),
        "---|".repeat(3)
    );
    for figure in [Figure::HotBackup, Figure::Freeze, Figure::Thaw, Figure::Cpu] {
        let a_mount = |(case, measured): (&Case, &Measured), agent: Contender| {
            let median = measured.of(agent)?.summary(figure)?.median;
            Some(median.as_secs_f64() * 1e6 / f64::from(case.bind_mounts))
        };
        let cells = Contender::AGENTS.map(|agent| {
            let (few, many) = (a_mount(fewer, agent), a_mount(more, agent));
            few.zip(many).map_or_else(String::new, |(few, many)| {
                format!("{few:.1} µs → {many:.1} µs")
            })
        });
        row(out, title(figure, more.0), cells);
    }
}

fn idle_table(out: &mut String, idle: &MeasuredIdle) {
    let seconds = idle.agents.first().map_or(0, |(_, idle)| idle.seconds);
    let _ = write!(
        out,
        "\n### Idle\n\n| agent | processes | threads | memory (PSS of all) | wake-ups in {seconds} s | program | start to ready |\n|---|---|---|---|---|---|---|\n"
    );
    for (agent, idle) in &idle.agents {
        let start = Summary::of(idle.starts.iter().copied());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CASES;
    use crate::results::examples::measured;

    fn case(letter: char) -> Case {
        CASES.into_iter().find(|it| it.letter == letter).unwrap()
    }

    #[test]
    fn limits_and_ratios_stand_beside_the_figures() {
        let of_a = [
            (Contender::Nobody, &[10][..]),
            (Contender::HvVssd, &[2000, 2100]),
            (Contender::CDaemon, &[8400, 8200]),
            (Contender::GuestAgent, &[]),
        ];
        let results = Results {
            cases: vec![(case('a'), measured("build", &of_a))],
            idle: None,
        };
        let text = markdown(&results);
        for row in [
            "| a: 4 disks of 20 MB/s, 40 MB dirty on each | 2.05 s | 8.30 s (4.05 ×) | failed |",
            "| – times hv-vssd's |  |  | **4.05** (≥ 3.90) |  |",
            "| – times the limit |  | 1.02 (1.00 – 1.05) | 4.15 (4.10 – 4.20) |  |",
            "qemu-ga did not go on: no answer",
            "measured in 1 min 1 s",
        ] {
            assert!(text.contains(row), "{row} in\n{text}");
        }
    }

    #[test]
    fn parts_of_different_builds_are_told_apart() {
        let of = |build| measured(build, &[]);
        let mut results = Results {
            cases: vec![(case('a'), of("one")), (case('d'), of("one"))],
            idle: None,
        };
        assert!(about(&results).contains("; one; others."));
        results.cases.push((case('f'), of("two")));
        assert!(about(&results).contains("; one (a, d) and two (f); others."));
    }

    #[test]
    fn growth_is_shown_as_the_cost_of_one_mount() {
        let of = |ms: &[u64]| measured("build", &[(Contender::HvVssd, ms)]);
        let results = Results {
            cases: vec![(case('e'), of(&[8])), (case('E'), of(&[20]))],
            idle: None,
        };
        let text = markdown(&results);
        assert!(text.contains("2.5 times as many"), "{text}");
        assert!(
            text.contains("| FREEZE answered after | 2.0 µs → 2.0 µs |"),
            "{text}"
        );
    }
}
