//! The figures as a picture: bars on a logarithmic scale, for light and dark pages.

use std::fmt::Write;
use std::time::Duration;

use crate::case::Case;
use crate::contender::Contender;
use crate::results::{Figure, Measured, Outcome, Results};
use crate::stats::text;

const WIDTH: f64 = 860.0;
/// Where bars begin, and the room behind the longest.
const LEFT: f64 = 130.0;
const RIGHT: f64 = 150.0;
const BAR: f64 = 15.0;
/// The ends of the scale, as powers of ten of a millisecond.
const LOW: f64 = 0.0;
const HIGH: f64 = 5.0;

/// The colours stay apart for the colour-blind, too.
const STYLE: &str = "\
text{paint-order:stroke;stroke:#ffffff;stroke-width:3px;font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}.head{font-size:15px;font-weight:600}\
.case{font-weight:600}.small{font-size:11px;fill:#59636e}.grid{stroke:#d0d7de;stroke-width:1}.back{fill:#ffffff}\
.hv-vssd{fill:#0969da}.hv_vss_daemon{fill:#d4600a}.qemu-ga{fill:#9a9fa5}\
.range{stroke:#1f2328;stroke-width:1;fill:none}.limit{stroke:#1f2328;stroke-width:1.5;stroke-dasharray:3 3}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3;stroke:#0d1117}.small{fill:#9198a1}.grid{stroke:#30363d}.back{fill:#0d1117}\
.hv-vssd{fill:#2f81f7}.hv_vss_daemon{fill:#e8782a}.qemu-ga{fill:#7d848c}.range{stroke:#e6edf3}.limit{stroke:#e6edf3}}";

const SCALE: &str = "Logarithmic scale, shorter is better. Bar: median; fine line: range; in brackets: how many times the median of hv-vssd.";

/// The pictures: names of their files, and what they show.
pub(crate) const PICTURES: [(&str, Figure); 2] = [
    ("performance.svg", Figure::Stall),
    ("performance-freeze.svg", Figure::Freeze),
];

/// A heading, and what the broken line is.
fn words(figure: Figure) -> (&'static str, &'static str) {
    match figure {
        Figure::Stall => (
            "Worst stall of a write (g: of a transaction) because of a checkpoint, hold time taken off",
            "Broken line: what the machine makes a write wait in two seconds without a checkpoint.",
        ),
        _ => (
            "FREEZE answered after",
            "Broken line: what the disks need for the dirty data, all writing at once.",
        ),
    }
}

/// Draws a figure of all cases and agents.
pub(crate) fn draw(results: &Results, figure: Figure) -> String {
    let (heading, line) = words(figure);
    let mut body = String::new();
    line_of_text(&mut body, 12.0, 26.0, "head", heading);
    let top = 40.0;
    let mut y = top;
    let mut bars = String::new();
    for (case, measured) in &results.cases {
        y = one_case(&mut bars, y, case, measured, figure);
    }
    scale(&mut body, top, y);
    body.push_str(&bars);
    y += 22.0;
    for note in [SCALE, line] {
        y += 16.0;
        line_of_text(&mut body, 12.0, y, "small", note);
    }
    let height = y + 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n<title>{heading}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

/// Draws the bars of a case from `y` on and returns where they end.
fn one_case(out: &mut String, mut y: f64, case: &Case, measured: &Measured, figure: Figure) -> f64 {
    let title = format!("{}: {}", case.letter, case.title);
    y += 16.0;
    line_of_text(out, 12.0, y, "case", &title);
    y += 6.0;
    let top = y;
    // Labels over the line, and that over the bars.
    let mut labels = String::new();
    for agent in Contender::AGENTS {
        if let Some(outcome) = measured.of(agent) {
            bar(out, &mut labels, y, measured, outcome, figure);
            y += BAR + 3.0;
        }
    }
    let limit = match figure {
        Figure::Freeze => measured.least(case),
        _ => measured
            .of(Contender::Nobody)
            .and_then(|nobody| Some(nobody.summary(figure)?.median)),
    };
    if let Some(limit) = limit.filter(|limit| x(*limit) > LEFT) {
        let (at, top) = (x(limit), top - 3.0);
        let _ = writeln!(
            out,
            "<path class=\"limit\" d=\"M{at:.1} {top:.1}V{y:.1}\"/>"
        );
    }
    out.push_str(&labels);
    y + 4.0
}

/// Where a time is on the scale.
fn x(time: Duration) -> f64 {
    let power = (time.as_secs_f64() * 1e3).max(1e-9).log10();
    let share = (power.clamp(LOW, HIGH) - LOW) / (HIGH - LOW);
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn bar(
    out: &mut String,
    labels: &mut String,
    y: f64,
    measured: &Measured,
    outcome: &Outcome,
    figure: Figure,
) {
    let name = outcome.agent.name();
    line_of_text(labels, 24.0, y + 12.0, "", name);
    let Some(summary) = outcome.summary(figure) else {
        line_of_text(labels, LEFT + 4.0, y + 12.0, "small", "failed");
        return;
    };
    // Below the scale's beginning a sliver still shows that it was measured.
    let width = (x(summary.median) - LEFT).max(2.0);
    let _ = writeln!(
        out,
        "<rect class=\"{name}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>"
    );
    let (least, most, middle) = (x(summary.least), x(summary.most), y + BAR / 2.0);
    let _ = writeln!(
        out,
        "<path class=\"range\" d=\"M{least:.1} {middle:.1}H{most:.1}M{least:.1} {:.1}v6M{most:.1} {:.1}v6\"/>",
        middle - 3.0,
        middle - 3.0
    );
    let behind = most.max(LEFT + width) + 8.0;
    let ratio = measured.times_ours(outcome, figure);
    let ratio = ratio.map_or_else(String::new, |ratio| format!(" ({} ×)", ratio.median()));
    let said = format!("{}{ratio}", text(summary.median));
    line_of_text(labels, behind, y + 12.0, "", &said);
}

fn scale(out: &mut String, top: f64, bottom: f64) {
    for (ms, label) in [
        (1, "1 ms"),
        (10, "10 ms"),
        (100, "100 ms"),
        (1_000, "1 s"),
        (10_000, "10 s"),
        (100_000, "100 s"),
    ] {
        let at = x(Duration::from_millis(ms));
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{at:.1} {top:.1}V{bottom:.1}\"/>"
        );
        line_of_text(out, at - 14.0, bottom + 13.0, "small", label);
    }
}

fn line_of_text(out: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CASES;
    use crate::results::examples::measured;

    #[test]
    fn every_agent_has_its_bar_or_is_said_to_have_failed() {
        let of_a = [
            (Contender::Nobody, &[10][..]),
            (Contender::HvVssd, &[50]),
            (Contender::CDaemon, &[8000]),
            (Contender::GuestAgent, &[]),
        ];
        let results = Results {
            cases: vec![(CASES[0], measured("build", &of_a))],
            idle: None,
        };
        for (_, figure) in PICTURES {
            let picture = draw(&results, figure);
            for part in [
                "<rect class=\"hv-vssd\"",
                "8.00 s (160 ×)",
                "failed",
                "class=\"limit\"",
            ] {
                assert_eq!(picture.matches(part).count(), 1, "{part} in {picture}");
            }
        }
    }
}
