//! A report as a picture: a line for each file system, on one axis of time.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use super::scale::Scale;
use super::text::{label, operation, phases, remarks, stall, time, verdict};
use crate::cli::terminal::Look;
use crate::filesystems::text::printable;
use crate::quiesce::Report;
use crate::quiesce::report::{FileSystemReport, FileSystemResult, HookOperation, HookReport, Span};

/// Names are cut to this.
const MOST_NAME: usize = 24;

/// Below this the bars tell nothing, and columns beside them are left out instead.
const LEAST_BAR: usize = 32;

/// Room for a duration or a word, with the space before it.
const COLUMN: usize = 11;

/// What a file system or a hook was in at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Nothing,
    Hook,
    Flush,
    Freeze,
    Frozen,
    Thaw,
    Wrong,
}

/// In the order of the legend.
const SHOWN: [(Cell, &str); 6] = [
    (Cell::Hook, "hook"),
    (Cell::Flush, "flush"),
    (Cell::Freeze, "freeze"),
    (Cell::Frozen, "frozen"),
    (Cell::Thaw, "thaw"),
    (Cell::Wrong, "failed"),
];

impl Cell {
    const fn glyph(self, unicode: bool) -> char {
        match (self, unicode) {
            (Self::Nothing, _) => ' ',
            (Self::Hook, true) => '▚',
            (Self::Hook, false) => 'h',
            (Self::Flush, true) => '░',
            (Self::Flush, false) => '.',
            (Self::Freeze, true) => '▒',
            (Self::Freeze, false) => '=',
            (Self::Frozen, true) => '█',
            (Self::Frozen, false) => '#',
            (Self::Thaw, true) => '▓',
            (Self::Thaw, false) => '+',
            (Self::Wrong, true) => '✗',
            (Self::Wrong, false) => 'x',
        }
    }

    /// Of the terminal's own palette (ECMA-48, SGR).
    const fn colour(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Hook => "\x1b[35m",
            Self::Flush => "\x1b[34m",
            Self::Freeze => "\x1b[33m",
            Self::Frozen => "\x1b[36m",
            Self::Thaw => "\x1b[32m",
            Self::Wrong => "\x1b[31m",
        }
    }
}

/// One line of the picture.
struct Row {
    name: String,
    cells: Vec<Cell>,
    columns: Vec<String>,
}

/// The picture, with the verdict and the phases above it, and what went wrong below.
pub(super) fn render(report: &Report, look: Look) -> String {
    let mut text = format!("{}\n{}\n", verdict(report), stall(report));
    text.push_str(&wrap(&phases(report), look.width));
    text.push('\n');
    if !report.file_systems.is_empty() || !report.hooks.is_empty() {
        text.push_str(&picture(report, look));
    }
    let remarks = remarks(report);
    if !remarks.is_empty() {
        let _ = write!(text, "\n{remarks}");
    }
    text
}

fn picture(report: &Report, look: Look) -> String {
    let names = report.file_systems.iter().map(name);
    let names = names.chain(report.hooks.iter().map(hook_name));
    let longest = names.map(|name| name.chars().count()).max();
    let most = MOST_NAME.min(look.width / 4);
    let name_width = longest.unwrap_or(0).min(most);
    let room = look.width.saturating_sub(name_width + 1);
    let mut columns = vec!["flush", "freeze", "thaw", "stall"];
    while columns.len() > 1 && room < LEAST_BAR + columns.len() * COLUMN {
        columns.remove(0);
    }
    let width = room.saturating_sub(columns.len() * COLUMN).max(8);
    let spans = report.phases.iter().map(|phase| phase.span);
    let scale = Scale::new(
        spans.chain(report.hooks.iter().map(|hook| hook.span)),
        width,
    );

    let mut text = format!("\n{:name_width$} ", "");
    text.push_str(&axis(report, &scale, width));
    for column in &columns {
        let _ = write!(text, "{column:>COLUMN$}");
    }
    text.push('\n');
    let hooks = |operation| {
        let called = move |hook: &&HookReport| hook.operation == operation;
        report.hooks.iter().filter(called)
    };
    let bar = Bar { scale, width };
    let mut rows: Vec<Row> = hooks(HookOperation::Freeze)
        .map(|hook| bar.hook(hook, &columns))
        .collect();
    rows.extend(
        report
            .file_systems
            .iter()
            .map(|fs| bar.file_system(fs, &columns)),
    );
    rows.extend(hooks(HookOperation::Thaw).map(|hook| bar.hook(hook, &columns)));
    for row in &rows {
        let mut line = format!("{:name_width$} ", cut(&row.name, name_width));
        paint(&mut line, &row.cells, look);
        for column in &row.columns {
            let _ = write!(line, "{column:>COLUMN$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if report.file_systems_omitted > 0 {
        let _ = writeln!(text, "and {} more", report.file_systems_omitted);
    }
    let _ = writeln!(text, "\n{}", legend(&rows, look));
    text
}

/// The phases' names, each where it begins, as far as there is room.
fn axis(report: &Report, scale: &Scale, width: usize) -> String {
    let mut line = vec![' '; width];
    let mut begins: Vec<(usize, &str)> = Vec::new();
    for phase in &report.phases {
        let name = label(phase.phase);
        // The passes of the flush are one.
        if begins.last().is_none_or(|last| last.1 != name) {
            begins.push((scale.column(phase.span.start), name));
        }
    }
    for (index, (column, name)) in begins.iter().enumerate() {
        let end = begins.get(index + 1).map_or(width, |next| next.0);
        let text = std::iter::once('|').chain(name.chars());
        for (cell, c) in line.iter_mut().take(end).skip(*column).zip(text) {
            *cell = c;
        }
    }
    line.into_iter().collect()
}

struct Bar {
    scale: Scale,
    width: usize,
}

impl Bar {
    fn file_system(&self, fs: &FileSystemReport, columns: &[&str]) -> Row {
        let mut cells = vec![Cell::Nothing; self.width];
        let span = |span: Span| self.scale.columns(span.start, span.end());
        if let Some(freeze) = fs.freeze {
            let until = match fs.result {
                FileSystemResult::Frozen => fs.thaw.map(|thaw| thaw.start),
                FileSystemResult::StillFrozen | FileSystemResult::Stuck => Some(Duration::MAX),
                _ => None,
            };
            if let Some(until) = until {
                fill(
                    &mut cells,
                    self.scale.columns(freeze.end(), until),
                    Cell::Frozen,
                );
            }
        }
        let frozen = matches!(
            fs.result,
            FileSystemResult::Frozen | FileSystemResult::StillFrozen | FileSystemResult::Stuck
        );
        let calls = [
            (fs.flush, Cell::Flush),
            (fs.freeze, if frozen { Cell::Freeze } else { Cell::Wrong }),
            (
                fs.thaw,
                if fs.result == FileSystemResult::StillFrozen {
                    Cell::Wrong
                } else {
                    Cell::Thaw
                },
            ),
        ];
        for (call, cell) in calls {
            if let Some(call) = call {
                fill(&mut cells, span(call), cell);
            }
        }
        let duration =
            |call: Option<Span>| call.map_or_else(|| "-".to_owned(), |call| time(call.duration));
        let columns = columns.iter().map(|column| match *column {
            "flush" => duration(fs.flush),
            "freeze" => duration(fs.freeze),
            "thaw" => duration(fs.thaw),
            _ => ending(fs),
        });
        Row {
            name: name(fs),
            cells,
            columns: columns.collect(),
        }
    }

    fn hook(&self, hook: &HookReport, columns: &[&str]) -> Row {
        let mut cells = vec![Cell::Nothing; self.width];
        let cell = if hook.failure.is_some() {
            Cell::Wrong
        } else {
            Cell::Hook
        };
        fill(
            &mut cells,
            self.scale.columns(hook.span.start, hook.span.end()),
            cell,
        );
        Row {
            name: hook_name(hook),
            cells,
            // In the last column: the others are of file systems alone.
            columns: columns
                .iter()
                .map(|column| match *column {
                    "stall" => time(hook.span.duration),
                    _ => String::new(),
                })
                .collect(),
        }
    }
}

/// The stall, or why there is none.
fn ending(fs: &FileSystemReport) -> String {
    let word = match fs.result {
        FileSystemResult::Frozen => {
            return fs.stall.map_or_else(String::new, time);
        }
        FileSystemResult::FlushedOnly => "flushed",
        FileSystemResult::LeftOut => "left out",
        FileSystemResult::Foreign => "foreign",
        FileSystemResult::NotFrozen => "not frozen",
        FileSystemResult::Stuck => "STUCK",
        FileSystemResult::StillFrozen => "NOT THAWED",
    };
    word.to_owned()
}

fn name(fs: &FileSystemReport) -> String {
    if fs.mount_point.is_empty() {
        return printable(&fs.source);
    }
    printable(&fs.mount_point)
}

fn hook_name(hook: &HookReport) -> String {
    let operation = operation(hook.operation);
    format!("{} {operation}", printable(&hook.name))
}

fn fill(cells: &mut [Cell], range: Range<usize>, with: Cell) {
    for cell in cells.iter_mut().take(range.end).skip(range.start) {
        *cell = with;
    }
}

fn paint(text: &mut String, cells: &[Cell], look: Look) {
    let mut last = Cell::Nothing;
    for cell in cells {
        if look.colour && *cell != last {
            if last != Cell::Nothing {
                text.push_str("\x1b[0m");
            }
            text.push_str(cell.colour());
            last = *cell;
        }
        text.push(cell.glyph(look.unicode));
    }
    if last != Cell::Nothing {
        text.push_str("\x1b[0m");
    }
}

/// Only what is in the picture.
fn legend(rows: &[Row], look: Look) -> String {
    let mut text = "time is not to scale".to_owned();
    let mut column = text.len();
    for (cell, word) in SHOWN {
        if rows.iter().any(|row| row.cells.contains(&cell)) {
            // Two spaces, the sign, a space, the word.
            let length = word.len() + 4;
            column += length;
            if column > look.width {
                column = length;
                text.push('\n');
            } else {
                text.push_str("  ");
            }
            paint(&mut text, &[cell], look);
            let _ = write!(text, " {word}");
        }
    }
    text
}

/// The end tells mount points apart better than the beginning.
fn cut(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.to_owned();
    }
    let kept = name.chars().skip(length + 2 - width);
    std::iter::repeat_n('.', 2).chain(kept).collect()
}

/// Breaks at commas.
fn wrap(line: &str, width: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    for part in line.split_inclusive(", ") {
        let length = part.chars().count();
        if column > 0 && column + part.trim_end().chars().count() > width {
            text.truncate(text.trim_end().len());
            text.push('\n');
            column = 0;
        }
        text.push_str(part);
        column += length;
    }
    text
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
