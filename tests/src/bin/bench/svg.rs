//! The figures as a picture: bars on a logarithmic scale, for light and dark pages.

use std::fmt::Write;
use std::time::Duration;

use crate::contender::Contender;
use crate::results::{Figure, Outcome, Results};
use crate::stats::text;

const WIDTH: f64 = 860.0;
/// Where bars begin, and the room behind the longest.
const LEFT: f64 = 130.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 15.0;
/// The ends of the scale, as powers of ten of a millisecond.
const LOW: f64 = 0.0;
const HIGH: f64 = 5.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1f2328}.head{font-size:15px;font-weight:600}.case{font-weight:600}\
.small{font-size:11px;fill:#656d76}.grid{stroke:#d0d7de;stroke-width:1}.back{fill:#ffffff}\
.hv-vssd{fill:#1a7f37}.hv_vss_daemon{fill:#cf222e}.qemu-ga{fill:#9a6700}.range{stroke:#1f2328;stroke-width:1}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#8d96a0}.grid{stroke:#30363d}.back{fill:#0d1117}\
.hv-vssd{fill:#3fb950}.hv_vss_daemon{fill:#f85149}.qemu-ga{fill:#d29922}.range{stroke:#e6edf3}}";

/// Draws worst stalls, then FREEZE.
pub(crate) fn draw(results: &Results) -> String {
    let mut body = String::new();
    let mut y = 12.0;
    for (figure, what) in [
        (
            Figure::Stall,
            "Worst write stall because of a checkpoint (hold time taken off)",
        ),
        (Figure::Freeze, "FREEZE answered after"),
    ] {
        y += 18.0;
        line_of_text(&mut body, 12.0, y, "head", what);
        y += 12.0;
        let top = y;
        let mut bars = String::new();
        for (case, measured) in &results.cases {
            let title = format!("{}: {}", case.letter, case.title);
            y += 16.0;
            line_of_text(&mut bars, 12.0, y, "case", &title);
            y += 6.0;
            for outcome in Contender::AGENTS
                .into_iter()
                .filter_map(|agent| measured.of(agent))
            {
                bar(&mut bars, y, outcome, figure);
                y += BAR + 3.0;
            }
            y += 4.0;
        }
        scale(&mut body, top, y);
        body.push_str(&bars);
        y += 22.0;
    }
    let note = "logarithmic scale; bar: median; line: range; shorter is better";
    line_of_text(&mut body, 12.0, y + 10.0, "small", note);
    let height = y + 22.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

/// Where a time is on the scale.
fn x(time: Duration) -> f64 {
    let power = (time.as_secs_f64() * 1e3).max(1e-9).log10();
    let share = (power.clamp(LOW, HIGH) - LOW) / (HIGH - LOW);
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn bar(out: &mut String, y: f64, outcome: &Outcome, figure: Figure) {
    let name = outcome.agent.name();
    line_of_text(out, 24.0, y + 12.0, "", name);
    let Some(summary) = outcome.summary(figure) else {
        line_of_text(out, LEFT + 4.0, y + 12.0, "small", "failed");
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
    let behind = most.max(LEFT + width) + 6.0;
    line_of_text(out, behind, y + 12.0, "", &text(summary.median));
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
