//! The configuration, `/etc/hv-vssd/config.toml` with its drop-ins: all of it is optional.

mod files;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

pub use self::files::{ConfigError, DEFAULT_PATH};

/// Everything that can be configured. Docs: `docs/configuration.md`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What makes a checkpoint fail, and what is done for it.
    pub strictness: Strictness,
    /// How long each part of a checkpoint may last.
    pub limits: Limits,
    /// What is frozen, and what is left alone.
    pub filesystems: Filesystems,
    /// What to do about a file system that someone else has frozen.
    pub foreign_freeze: ForeignFreeze,
    /// Shorten RCU grace periods from the first freeze to the last, which makes the freeze some ten times shorter.
    pub expedite: bool,
    /// Write data back before the first journal commit, so that writers do not wait for it.
    pub write_back: bool,
    /// What is run before the freeze and after the thaw.
    pub hooks: Hooks,
    /// What is left for a monitoring system to read.
    pub metrics: Metrics,
}

/// What makes a checkpoint fail, and what is done for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strictness {
    /// A writable local file system that cannot be frozen makes it fail.
    Strict,
    /// What cannot be frozen is flushed, and listed.
    #[default]
    Normal,
    /// Nothing is frozen: everything is flushed, and the image is as after a power cut.
    FlushOnly,
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

/// File systems that are neither flushed nor frozen: those excluded and, where any list of what to include has an
/// element, those that match none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filesystems {
    /// By mount point.
    pub exclude_mount_points: Vec<PathBuf>,
    /// By type, such as `ext4`.
    pub exclude_types: Vec<String>,
    /// By device: its node, the kernel's name of it, or its number, such as `8:17`.
    pub exclude_devices: Vec<String>,
    /// By mount point.
    pub include_mount_points: Vec<PathBuf>,
    /// By type.
    pub include_types: Vec<String>,
    /// By device.
    pub include_devices: Vec<String>,
}

/// Executables that are run before the freeze and after the thaw.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Whether any is run.
    pub enabled: bool,
    /// What a hook's failure to prepare the freeze means.
    pub on_failure: OnFailure,
    /// How long one hook may take, in seconds.
    pub limit: u64,
    /// How long all of them may take before a freeze, in seconds.
    pub total: u64,
    /// What is different for a hook, by its file name.
    pub by_name: BTreeMap<String, HookOverride>,
}

/// What a hook's failure to prepare the freeze means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// FREEZE is answered with failure, and nothing is frozen.
    #[default]
    Abort,
    /// It is reported, and the checkpoint goes on.
    Continue,
}

/// What is different for one hook; `None` is as for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HookOverride {
    /// As [`Hooks::on_failure`].
    pub on_failure: Option<OnFailure>,
    /// As [`Hooks::limit`].
    pub limit: Option<u64>,
}

/// What is left for a monitoring system to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// A file that the textfile collector of Prometheus' node_exporter reads, written after each checkpoint.
    pub textfile: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            strictness: Strictness::default(),
            limits: Limits::default(),
            filesystems: Filesystems::default(),
            foreign_freeze: ForeignFreeze::default(),
            expedite: true,
            write_back: true,
            hooks: Hooks::default(),
            metrics: Metrics::default(),
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

impl Default for Hooks {
    fn default() -> Self {
        Self {
            enabled: true,
            on_failure: OnFailure::default(),
            limit: 30,
            total: 120,
            by_name: BTreeMap::new(),
        }
    }
}

impl Hooks {
    /// What the failure of the hook of this file name means.
    #[must_use]
    pub fn on_failure_of(&self, name: &str) -> OnFailure {
        let own = self.by_name.get(name).and_then(|hook| hook.on_failure);
        own.unwrap_or(self.on_failure)
    }

    /// How long the hook of this file name may take, in seconds.
    #[must_use]
    pub fn limit_of(&self, name: &str) -> u64 {
        let own = self.by_name.get(name).and_then(|hook| hook.limit);
        own.unwrap_or(self.limit)
    }
}
