//! Reading the configuration file, and what makes it invalid.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::{Config, Hooks, Limits};

/// Where the configuration is read from unless a command is told otherwise.
pub const DEFAULT_PATH: &str = "/etc/hv-vssd/config.toml";

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
        .find_map(|(key, value, bounds)| outside(&format!("limits.{key}"), value, &bounds))
    }
}

impl Hooks {
    /// Within the driver's 15 minutes for FREEZE.
    const LIMIT: RangeInclusive<u64> = 1..=600;

    fn out_of_bounds(&self) -> Option<String> {
        outside("hooks.limit", self.limit, &Self::LIMIT)
            .or_else(|| outside("hooks.total", self.total, &Self::LIMIT))
            .or_else(|| {
                self.by_name.iter().find_map(|(name, hook)| {
                    outside(
                        &format!("hooks.by_name.{name:?}.limit"),
                        hook.limit?,
                        &Self::LIMIT,
                    )
                })
            })
    }
}

fn outside(key: &str, value: u64, bounds: &RangeInclusive<u64>) -> Option<String> {
    (!bounds.contains(&value)).then(|| {
        format!(
            "{key} is {value}, and must be from {} to {} seconds",
            bounds.start(),
            bounds.end()
        )
    })
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
        let bounds = config.limits.out_of_bounds();
        if let Some(message) = bounds.or_else(|| config.hooks.out_of_bounds()) {
            return Err(invalid(String::new(), message));
        }
        let paths = |key, paths: &[PathBuf]| {
            let path = paths.iter().find(|path| !path.is_absolute())?;
            let path = path.display().to_string();
            Some(format!("{key}: {path:?} is not an absolute path"))
        };
        let lists = &config.filesystems;
        let message = paths(
            "filesystems.exclude_mount_points",
            &lists.exclude_mount_points,
        )
        .or_else(|| {
            paths(
                "filesystems.include_mount_points",
                &lists.include_mount_points,
            )
        })
        .or_else(|| {
            let file = config.metrics.textfile.as_ref();
            paths("metrics.textfile", file.map_or(&[], std::slice::from_ref))
        });
        if let Some(message) = message {
            return Err(invalid(String::new(), message));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ForeignFreeze, OnFailure, Strictness};
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
    fn a_hook_may_differ_from_the_others() {
        let hooks = |text: &str| parse(text).map(|config| config.hooks);
        let text = "[hooks]\non_failure = \"continue\"\nlimit = 40\n\
             [hooks.by_name.\"10-postgresql\"]\non_failure = \"abort\"\nlimit = 90\n";
        let given = hooks(text).unwrap();
        assert_eq!(given.on_failure_of("10-postgresql"), OnFailure::Abort);
        assert_eq!(given.limit_of("10-postgresql"), 90);
        assert_eq!(given.on_failure_of("20-redis"), OnFailure::Continue);
        assert_eq!(given.limit_of("20-redis"), 40);
        let error = hooks("[hooks.by_name.\"10-postgresql\"]\nlimit = 0\n").unwrap_err();
        assert!(error.contains("10-postgresql"), "{error}");
        assert!(hooks("[hooks]\ntotal = 601").is_err());
    }

    #[test]
    fn strictness_has_three_values() {
        let rule = |text| parse(text).map(|config| config.strictness);
        assert_eq!(rule(""), Ok(Strictness::Normal));
        assert_eq!(
            rule("strictness = \"flush-only\""),
            Ok(Strictness::FlushOnly)
        );
        assert_eq!(rule("strictness = \"strict\""), Ok(Strictness::Strict));
        assert!(rule("strictness = \"lax\"").is_err());
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
