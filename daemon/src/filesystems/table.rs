//! A plan for a person's eyes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;

use super::plan::{Candidate, LeftOut, Plan, Superblock};
use super::reason::Reason;
use super::text::{capitalised, printable};

/// Longer paths lose their middle, unless everything is asked for; JSON has them whole.
const WIDEST: usize = 32;

/// How many types of pseudo file systems are named in their summary.
const TYPES_NAMED: usize = 4;

/// The plan as two tables, for a terminal of 80 to 100 columns: what is frozen and what is left out. Pseudo file systems are one line and long paths are
/// shortened, unless `all` is set. Control characters are escaped.
#[must_use]
pub fn render_table(plan: &Plan, all: bool) -> String {
    let mut out = String::new();
    let frozen: Vec<[String; 5]> = plan
        .stages
        .iter()
        .enumerate()
        .flat_map(|(index, stage)| {
            stage
                .iter()
                .enumerate()
                .map(move |(place, superblock)| (index, place, superblock))
        })
        .map(|(index, place, superblock)| {
            // A stage is one thing: its number stands once.
            let stage = if place == 0 {
                (index + 1).to_string()
            } else {
                String::new()
            };
            let [at, fstype, device] = names(
                at(&superblock.mounts),
                &superblock.fstype,
                &superblock.source,
                all,
            );
            [stage, at, fstype, device, note(plan, superblock, all)]
        })
        .collect();
    if frozen.is_empty() {
        out.push_str("Nothing is frozen: no writable local file system can be.\n");
    } else {
        out.push_str("Frozen stage by stage, thawed in reverse:\n\n");
        columns(
            &mut out,
            ["STAGE", "MOUNT POINT", "TYPE", "DEVICE", "NOTE"],
            &frozen,
        );
    }
    let (folded, shown): (Vec<&LeftOut>, Vec<&LeftOut>) = plan
        .left_out
        .iter()
        .partition(|left_out| !all && left_out.reason == Reason::Pseudo);
    let left_out: Vec<[String; 4]> = shown
        .into_iter()
        .map(|left_out| {
            let [at, fstype, device] = names(
                at(&left_out.mounts),
                &left_out.fstype,
                &left_out.source,
                all,
            );
            let why = std::iter::once(left_out.reason.to_string());
            let why: Vec<String> = why.chain(namespace(&left_out.mounts)).collect();
            [at, fstype, device, why.join("; ")]
        })
        .collect();
    if !left_out.is_empty() {
        out.push_str("\nLeft out:\n\n");
        columns(
            &mut out,
            ["MOUNT POINT", "TYPE", "DEVICE", "WHY"],
            &left_out,
        );
    }
    summarise(&mut out, &folded);
    for unseen in plan.unseen() {
        let _ = write!(
            out,
            "\n{}: what is mounted only there is missing here.\n",
            capitalised(&unseen)
        );
    }
    out
}

fn names(mount_point: &OsStr, fstype: &str, source: &OsStr, all: bool) -> [String; 3] {
    let source = if source.is_empty() {
        "-".to_owned()
    } else {
        printable(source)
    };
    [
        shorten(printable(mount_point), all),
        printable(fstype),
        shorten(source, all),
    ]
}

fn at(mounts: &[Candidate]) -> &OsStr {
    mounts
        .first()
        .map_or(OsStr::new("-"), |best| best.mount_point.as_os_str())
}

/// What an operator may ask about a row: why it is so early, what it stands on, where else it is mounted, whether it is covered.
fn note(plan: &Plan, superblock: &Superblock, all: bool) -> String {
    let mut notes: Vec<String> = superblock
        .served_by
        .iter()
        .map(ToString::to_string)
        .collect();
    for dev in &superblock.stacked_on {
        let frozen = plan
            .superblocks()
            .find(|holder| holder.dev == *dev)
            .map(Superblock::mount_point);
        let left_out = || {
            plan.left_out
                .iter()
                .find(|holder| holder.dev == *dev)
                .map(LeftOut::mount_point)
        };
        if let Some(holder) = frozen.or_else(left_out) {
            notes.push(format!("image on {}", shorten(printable(holder), all)));
        }
    }
    if superblock.beneath_unknown {
        notes.push("what is beneath is unknown".to_owned());
    }
    notes.extend(namespace(&superblock.mounts));
    notes.extend(mounts(&superblock.mounts));
    notes.join("; ")
}

/// Whose mount namespace the best mount is in, if not in ours.
fn namespace(mounts: &[Candidate]) -> Option<String> {
    let process = mounts.first()?.via.as_ref()?;
    Some(format!("in the mount namespace of {process}"))
}

fn mounts(mounts: &[Candidate]) -> Option<String> {
    if mounts.is_empty() {
        return Some("mounted nowhere in sight".to_owned());
    }
    let all_hidden = mounts.iter().all(|mount| mount.hidden);
    let none_open = !mounts.iter().any(Candidate::is_open);
    match (all_hidden, none_open, mounts.len()) {
        (true, _, _) => Some("hidden under another mount".to_owned()),
        (false, true, _) => Some("its path leads over a server or an automount".to_owned()),
        (false, false, 0 | 1) => None,
        (false, false, 2) => Some("and 1 more mount".to_owned()),
        (false, false, count) => Some(format!("and {} more mounts", count - 1)),
    }
}

fn summarise(out: &mut String, folded: &[&LeftOut]) {
    if folded.is_empty() {
        return;
    }
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    for left_out in folded {
        *types.entry(printable(&left_out.fstype)).or_default() += 1;
    }
    let mut names: Vec<(String, usize)> = types.into_iter().collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = if names.len() > TYPES_NAMED {
        ", …"
    } else {
        ""
    };
    let named: Vec<String> = names
        .into_iter()
        .take(TYPES_NAMED)
        .map(|(name, _)| name)
        .collect();
    let plural = if folded.len() == 1 { "" } else { "s" };
    let _ = writeln!(
        out,
        "\nNot shown: {} pseudo file system{plural} ({}{more}), not on any disk.",
        folded.len(),
        named.join(", ")
    );
}

/// The first 12 characters and as many of the last as fit: the end of a path tells most.
pub(crate) fn shorten(text: String, all: bool) -> String {
    let length = text.chars().count();
    if all || length <= WIDEST {
        return text;
    }
    let head: String = text.chars().take(12).collect();
    let tail: String = text.chars().skip(length - (WIDEST - 13)).collect();
    format!("{head}…{tail}")
}

/// Rows under their titles, each column as wide as its widest cell; a last column that is empty throughout is not shown.
pub(crate) fn columns<const N: usize>(out: &mut String, titles: [&str; N], rows: &[[String; N]]) {
    let last_is_empty = rows
        .iter()
        .all(|row| row.last().is_none_or(String::is_empty));
    let shown = N - usize::from(last_is_empty);
    let mut widths = titles.map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let titles = titles.map(str::to_owned);
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths).take(shown) {
            let _ = write!(line, "  {cell:width$}");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
