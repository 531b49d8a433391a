//! The effective configuration, as TOML with a comment behind each key, and as data for a program.

use std::fmt::Write as _;

use serde::Serialize;

use super::keys::{BY_NAME, KEYS, Key, by_name};
use super::load::{Loaded, Origin};
use super::{Config, Value};

/// A key with its value.
#[derive(Debug, Serialize)]
pub struct Setting<'a> {
    /// The key with its section, such as `limits.hold`.
    pub key: String,
    /// What it is set to; `None` when it is not.
    pub value: Option<Value>,
    /// What it is unless it is set; `None` when that is nothing, or what stands elsewhere.
    pub default: Option<Value>,
    /// Where it is set; `None` where it is not.
    pub origin: Option<&'a Origin>,
    #[serde(skip)]
    section: String,
    #[serde(skip)]
    name: &'static str,
}

impl Loaded {
    /// Every key, in the order of the reference; those for a single hook only where they are set.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting<'_>> {
        let default = Config::default();
        let setting = |key: &Key, hook: &str| {
            let path = key.path(hook);
            Setting {
                value: key.get(&self.config, hook),
                default: key.get(&default, hook),
                origin: self.origins.get(&path),
                key: path,
                section: match key.section {
                    BY_NAME => by_name(hook),
                    section => section.to_owned(),
                },
                name: key.name,
            }
        };
        let mut settings = Vec::new();
        let mut hooks_done = false;
        for key in KEYS {
            if key.section != BY_NAME {
                settings.push(setting(key, ""));
            } else if !std::mem::replace(&mut hooks_done, true) {
                for hook in self.config.hooks.by_name.keys() {
                    let own = KEYS.iter().filter(|key| key.section == BY_NAME);
                    let set = own
                        .map(|key| setting(key, hook))
                        .filter(|setting| setting.value.is_some());
                    settings.extend(set);
                }
            }
        }
        settings
    }

    /// The effective configuration in TOML: a comment behind each key tells where it comes from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = String::new();
        for setting in self.settings() {
            if setting.section != section {
                section.clone_from(&setting.section);
                let _ = writeln!(out, "\n[{section}]");
            }
            let origin = setting.origin.map_or("default".to_owned(), |origin| {
                let file = origin.file.display().to_string();
                format!("{}:{}", file.escape_debug(), origin.line)
            });
            let _ = match setting.value {
                Some(value) => writeln!(out, "{} = {value}  # {origin}", setting.name),
                None => writeln!(out, "#{} =  # {origin}", setting.name),
            };
        }
        out
    }
}
