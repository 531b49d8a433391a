//! The list of [`KEYS`] as text: the tables of `docs/configuration.md`, and `packaging/config.toml`. Nothing of it is called by the program itself.

use std::fmt::Write as _;

use super::keys::{BY_NAME, KEYS, Key, SECTIONS, Section};
use super::{Config, Kind};

/// Where a line of a comment ends at the latest.
const WIDTH: usize = 118;

/// The tables of `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::new();
    for section in SECTIONS {
        let _ = match section.name {
            "" => writeln!(out, "## Above the first section\n"),
            BY_NAME => writeln!(out, "## [hooks.by_name.\"NAME\"]\n"),
            name => writeln!(out, "## [{name}]\n"),
        };
        if !section.intro.is_empty() {
            let _ = writeln!(out, "{}\n", sentence(section.intro, section.detail));
        }
        out.push_str("| key | default | values | meaning |\n|---|---|---|---|\n");
        for key in keys_of(section) {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} |",
                key.name,
                default(key).map_or("none".to_owned(), |value| format!("`{value}`")),
                values(&key.kind),
                sentence(key.summary, key.detail)
            );
        }
        out.push('\n');
    }
    out
}

/// `packaging/config.toml`: every key as a comment, with its default.
#[must_use]
pub fn shipped_file() -> String {
    let mut out = String::new();
    comment(
        &mut out,
        "/etc/hv-vssd/config.toml: everything here is optional, and shown with its default. Files /etc/hv-vssd/config.toml.d/*.toml are read after it, in \
         the order of their names; the last that sets a key wins. After a change: \"hv-vssd config --check\", then \"systemctl reload hv-vssd\". \
         Reference: docs/configuration.md.",
    );
    for section in SECTIONS {
        match section.name {
            "" => {}
            BY_NAME => {
                out.push('\n');
                comment(&mut out, &plain(section.intro));
                out.push_str("# [hooks.by_name.\"10-postgresql\"]\n");
            }
            name => {
                out.push('\n');
                comment(&mut out, &plain(section.intro));
                let _ = writeln!(out, "[{name}]");
            }
        }
        for (index, key) in keys_of(section).enumerate() {
            if section.name != BY_NAME {
                let seconds = match &key.kind {
                    Kind::Seconds(bounds) => {
                        format!(" Seconds, {} to {}.", bounds.start(), bounds.end())
                    }
                    _ => String::new(),
                };
                let words = match &key.kind {
                    Kind::Choice(words) if !words.iter().all(|word| key.summary.contains(word)) => {
                        format!(" {}.", key.kind)
                    }
                    _ => String::new(),
                };
                if index > 0 || section.name.is_empty() {
                    out.push('\n');
                }
                comment(&mut out, &format!("{}{seconds}{words}", plain(key.summary)));
            }
            // A setting has no blank behind the sign, and all other comments have one.
            let _ = match default(key) {
                Some(value) => writeln!(out, "#{} = {value}", key.name),
                None => writeln!(out, "# {} = {}", key.name, example(key)),
            };
        }
    }
    out
}

fn keys_of(section: &Section) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.section == section.name)
}

fn default(key: &Key) -> Option<super::Value> {
    key.get(&Config::default(), "")
}

/// For a key that has no default.
fn example(key: &Key) -> String {
    match &key.kind {
        Kind::Choice(words) => format!("{:?}", words.last().unwrap_or(&"")),
        Kind::Seconds(_) => "60".to_owned(),
        _ => "\"/var/lib/node_exporter/textfile_collector/hv-vssd.prom\"".to_owned(),
    }
}

fn values(kind: &Kind) -> String {
    match kind {
        Kind::Flag => "`true`, `false`".to_owned(),
        Kind::Seconds(bounds) => format!("{} to {} s", bounds.start(), bounds.end()),
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(", ")
        }
        Kind::Path(_) => "absolute path, `*.prom`".to_owned(),
        Kind::MountPoints => "list of absolute paths".to_owned(),
        Kind::Types => "list of types".to_owned(),
        Kind::Devices => "list of devices".to_owned(),
        Kind::Processes => "list of names and absolute paths".to_owned(),
    }
}

fn sentence(first: &str, second: &str) -> String {
    format!("{first} {second}").trim_end().to_owned()
}

/// Markdown without its marks for code.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn comment(out: &mut String, text: &str) {
    let mut line = "#".to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            "#".clone_into(&mut line);
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(out, "{line}");
}
