//! What standard output can show: how wide, which characters, colours or none.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};

/// Where nobody tells how wide it is.
const USUAL_WIDTH: usize = 100;

/// Narrower than this nothing can be laid out.
const LEAST_WIDTH: usize = 40;

/// How something is to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Characters in a line.
    pub(super) width: usize,
    /// More than ASCII can be shown.
    pub(super) unicode: bool,
    /// Escape sequences for colours are understood.
    pub(super) colour: bool,
}

impl Look {
    /// That of standard output. `COLUMNS` comes before what the terminal says; `NO_COLOR` (no-color.org) and a locale that is not UTF-8 are heeded.
    pub(super) fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let wished = env::var("COLUMNS").ok();
        let told = || terminal_size::terminal_size_of(io::stdout());
        let width = wished
            .and_then(|columns| columns.parse().ok())
            .or_else(|| told().map(|(width, _)| usize::from(width.0)))
            .unwrap_or(USUAL_WIDTH);
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: width.max(LEAST_WIDTH),
            unicode: is_utf8(|name| env::var_os(name)),
            colour: terminal && !dumb && !is_set("NO_COLOR"),
        }
    }
}

/// The first of these that is set decides (man 7 locale).
fn is_utf8<T: AsRef<OsStr>>(variable: impl Fn(&str) -> Option<T>) -> bool {
    let mut set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable);
    let locale = set.find(|value| !value.as_ref().is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.as_ref().to_string_lossy().to_ascii_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_decides_on_characters() {
        let of = |set: &'static [(&str, &'static str)]| {
            is_utf8(move |name| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| *value)
            })
        };
        assert!(of(&[("LANG", "de_DE.UTF-8")]));
        assert!(of(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!of(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(!of(&[]));
    }
}
