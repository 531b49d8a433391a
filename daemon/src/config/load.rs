//! Files become one configuration: each key is checked, the later file wins, and where each value comes from is kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem};
use super::files::{self, Sources};
use super::keys::{BY_NAME, KEYS, Key, by_name};
use super::nearest;
use super::{Config, bounds};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// A valid configuration, and where it comes from.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// Where each key that is not at its default comes from, by its [path](Key::path).
    pub origins: BTreeMap<String, Origin>,
    /// The files that were read, in their order.
    pub files: Vec<PathBuf>,
    /// Files among the drop-ins that are none.
    pub ignored: Vec<PathBuf>,
}

impl Loaded {
    /// Reads all files of `sources`.
    ///
    /// # Errors
    /// [`ConfigError`], with everything that is wrong.
    pub fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let found = files::read(sources);
        let mut loader = Loader {
            problems: found.problems,
            ..Loader::default()
        };
        for text in &found.texts {
            loader.file(&text.path, &text.text);
        }
        let files = found.texts.into_iter().map(|text| text.path).collect();
        loader.finish(files, found.ignored)
    }

    /// Takes the text of one file, `path`.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut loader = Loader::default();
        loader.file(path, text);
        loader.finish(vec![path.to_owned()], Vec::new())
    }
}

#[derive(Default)]
struct Loader {
    config: Config,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Loader {
    fn file(&mut self, path: &Path, text: &str) {
        let mut file = File {
            path,
            lines: Lines::of(text),
            loader: self,
        };
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            file.table("", "", document.get_ref());
        }
        // What could be made out of a file with such errors says nothing more.
        for error in errors {
            let at = error.span().map(|span| span.start);
            let message = error.message().replace('\n', " ");
            file.problem(at, message.escape_debug().to_string().replace("\\'", "'"));
        }
    }

    fn finish(mut self, files: Vec<PathBuf>, ignored: Vec<PathBuf>) -> Result<Loaded, ConfigError> {
        if self.problems.is_empty() {
            self.problems
                .extend(bounds::check(&self.config, &self.origins));
        }
        if self.problems.is_empty() {
            Ok(Loaded {
                config: self.config,
                origins: self.origins,
                files,
                ignored,
            })
        } else {
            Err(ConfigError {
                problems: self.problems,
            })
        }
    }
}

/// A file at work.
struct File<'a> {
    path: &'a Path,
    lines: Lines,
    loader: &'a mut Loader,
}

impl File<'_> {
    /// A table: `section` as the list of keys calls it, `name` what stands for its `*`.
    fn table(&mut self, section: &str, name: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let word = key.get_ref().as_ref();
            let found = KEYS
                .iter()
                .find(|known| known.section == section && known.name == word);
            match found {
                Some(known) => self.key(known, name, key.span().start, value),
                None => self.inner(section, name, key, value),
            }
        }
    }

    fn key(&mut self, key: &Key, name: &str, at: usize, value: &Spanned<DeValue<'_>>) {
        let path = key.path(name);
        match key.kind.take(value) {
            Ok(value) => {
                key.set(&mut self.loader.config, name, value);
                let origin = Origin {
                    file: self.path.to_owned(),
                    line: self.lines.number(at),
                };
                self.loader.origins.insert(path, origin);
            }
            Err(all) => {
                for (place, what) in all {
                    let message = format!("{path} {what}; it must be {}", key.kind);
                    self.problem(Some(place.unwrap_or(value.span().start)), message);
                }
            }
        }
    }

    /// What is no key must be a table.
    fn inner(
        &mut self,
        section: &str,
        name: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let at = Some(key.span().start);
        let word = key.get_ref().as_ref();
        let (inner, path) = match section {
            "" => (word.to_owned(), word.to_owned()),
            "hooks.by_name" => (BY_NAME.to_owned(), by_name(word)),
            _ => (format!("{section}.{word}"), format!("{section}.{word}")),
        };
        if inner == "hooks.by_name" || KEYS.iter().any(|known| known.section == inner) {
            if inner == BY_NAME && !files::is_name(word) {
                self.problem(at, format!("{path}: {word:?} is not the name of a file"));
            }
            match value.get_ref() {
                DeValue::Table(table) => self.table(&inner, word, table),
                _ => self.problem(at, format!("{path} must be a table: [{path}]")),
            }
        } else {
            let path = match section {
                "" => word.escape_debug().to_string(),
                BY_NAME => format!("{}.{}", by_name(name), word.escape_debug()),
                _ => format!("{section}.{}", word.escape_debug()),
            };
            let advice = nearest::advice(section, word);
            self.problem(at, format!("unknown key {path}; {advice}"));
        }
    }

    fn problem(&mut self, at: Option<usize>, message: String) {
        self.loader.problems.push(Problem {
            file: self.path.to_owned(),
            line: at.map(|at| self.lines.number(at)),
            message,
        });
    }
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line, from 1, of what is `at` bytes into the text.
    fn number(&self, at: usize) -> usize {
        self.0.partition_point(|end| *end < at) + 1
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
