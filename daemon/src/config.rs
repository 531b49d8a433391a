//! The configuration file, `/etc/hv-vssd/config.toml`: all of it is optional.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

/// Where the configuration is read from unless a command is told otherwise.
pub const DEFAULT_PATH: &str = "/etc/hv-vssd/config.toml";

/// Everything that can be configured. Docs: `docs/configuration.md`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long each part of a checkpoint may last.
    pub limits: Limits,
    /// What is left alone.
    pub filesystems: Filesystems,
    /// What to do about a file system that someone else has frozen.
    pub foreign_freeze: ForeignFreeze,
    /// Shorten RCU grace periods from the first freeze to the last, which makes the freeze some ten times shorter.
    pub expedite: bool,
    /// Write data back before the first journal commit, so that writers do not wait for it.
    pub write_back: bool,
}

/// What to do about a file system that an administrator or a snapshot has frozen for longer than a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForeignFreeze {
    /// The freeze fails: nobody knows how long theirs lasts.
    #[default]
    Fail,
    /// It counts as frozen, and is left to whoever froze it.
    Accept,
}

/// Limits, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Writing back before the freeze, while applications go on.
    pub flush: u64,
    /// From the first file system frozen to the last.
    pub freeze: u64,
    /// From the answer to FREEZE to the host's THAW.
    pub hold: u64,
}

/// File systems that are neither flushed nor frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filesystems {
    /// By mount point.
    pub exclude_mount_points: Vec<PathBuf>,
    /// By type, such as `ext4`.
    pub exclude_types: Vec<String>,
    /// By device: its node, the kernel's name of it, or its number, such as `8:17`.
    pub exclude_devices: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            filesystems: Filesystems::default(),
            foreign_freeze: ForeignFreeze::default(),
            expedite: true,
            write_back: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flush: 300,
            freeze: 60,
            hold: 120,
        }
    }
}

impl Limits {
    /// Together with [`Self::FREEZE`] within the driver's 15 minutes for FREEZE.
    const FLUSH: RangeInclusive<u64> = 1..=600;
    const FREEZE: RangeInclusive<u64> = 1..=180;
    /// journald's watchdog ends it after 180 s of a blocked write; beyond that is an operator's own choice.
    const HOLD: RangeInclusive<u64> = 1..=600;

    fn out_of_bounds(&self) -> Option<String> {
        [
            ("flush", self.flush, Self::FLUSH),
            ("freeze", self.freeze, Self::FREEZE),
            ("hold", self.hold, Self::HOLD),
        ]
        .into_iter()
        .find(|(_, value, bounds)| !bounds.contains(value))
        .map(|(key, value, bounds)| {
            format!(
                "limits.{key} is {value}, and must be from {} to {} seconds",
                bounds.start(),
                bounds.end()
            )
        })
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The file is no valid configuration.
    #[error("{path}{place}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// `, line 3`, where it is known.
        place: String,
        /// What is wrong, on one line.
        message: String,
    },
}

impl Config {
    /// Reads `path`; without one, [`DEFAULT_PATH`], which need not exist.
    ///
    /// # Errors
    /// [`ConfigError`], with the file, the line and what is wrong there.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read {
                path: file.to_owned(),
                source,
            }),
        }
    }

    /// Parses the text of `path`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let invalid = |place, message| ConfigError::Invalid {
            path: path.to_owned(),
            place,
            message,
        };
        let config: Self = toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| {
                let before = text.get(..span.start).unwrap_or(text);
                format!(", line {}", before.matches('\n').count() + 1)
            });
            invalid(
                place.unwrap_or_default(),
                error.message().replace('\n', " "),
            )
        })?;
        if let Some(message) = config.limits.out_of_bounds() {
            return Err(invalid(String::new(), message));
        }
        if let Some(path) = config
            .filesystems
            .exclude_mount_points
            .iter()
            .find(|path| !path.is_absolute())
        {
            let message = format!(
                "filesystems.exclude_mount_points: {:?} is not an absolute path",
                path.display().to_string()
            );
            return Err(invalid(String::new(), message));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/hv-vssd/config.toml"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(
            parse("[limits]\nhold = 30").unwrap().limits,
            Limits {
                hold: 30,
                ..Limits::default()
            }
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = parse("[limits]\nfreeze = 10\nhodl = 5\n").unwrap_err();
        assert!(
            error.starts_with("/etc/hv-vssd/config.toml, line 3: unknown field `hodl`, expected"),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }

    #[test]
    fn a_malformed_file_is_refused_with_its_line() {
        let error = parse("[limits]\n\nhold = = 5\n").unwrap_err();
        assert!(error.contains("line 3"), "{error}");
        let error = parse("[limits]\nhold = \"long\"\n").unwrap_err();
        assert!(
            error.contains("line 2") && error.contains("expected u64"),
            "{error}"
        );
    }

    #[test]
    fn limits_have_bounds() {
        let error = parse("[limits]\nhold = 0").unwrap_err();
        assert!(
            error.ends_with("limits.hold is 0, and must be from 1 to 600 seconds"),
            "{error}"
        );
        assert!(parse("[limits]\nflush = 601").is_err());
        assert!(parse("[limits]\nfreeze = 181").is_err());
    }

    #[test]
    fn a_foreign_freeze_fails_or_is_accepted() {
        let rule = |text| parse(text).map(|config| config.foreign_freeze);
        assert_eq!(rule(""), Ok(ForeignFreeze::Fail));
        assert_eq!(
            rule("foreign_freeze = \"accept\""),
            Ok(ForeignFreeze::Accept)
        );
        let error = rule("foreign_freeze = \"thaw\"").unwrap_err();
        assert!(
            error.contains("line 1") && error.contains("`fail`"),
            "{error}"
        );
    }

    #[test]
    fn a_relative_mount_point_is_refused() {
        let error = parse("[filesystems]\nexclude_mount_points = [\"srv\"]").unwrap_err();
        assert!(error.contains("not an absolute path"), "{error}");
    }

    #[test]
    fn an_absent_default_file_is_no_error_but_a_named_one_is() {
        let error = Config::load(Some(Path::new("/nonexistent.toml"))).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }));
    }
}
