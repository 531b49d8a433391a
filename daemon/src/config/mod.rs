//! The configuration, `/etc/hv-vssd/config.toml` with its drop-ins: all of it is optional.

mod bounds;
mod error;
mod files;
pub mod keys;
mod load;
mod nearest;
pub mod reference;
mod show;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use self::error::{ConfigError, Problem};
pub use self::files::{DEFAULT_PATH, Sources};
pub use self::load::{Loaded, Origin};
pub use self::show::Setting;
pub use self::value::{Kind, Value};

/// Everything that can be configured. Docs: `docs/configuration.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Programs that sleep in a write, and would hold up a freeze, are interrupted.
    pub interrupt_writers: bool,
    /// Processes that are never interrupted: by their names, or the paths of their executables.
    pub exclude_processes: Vec<String>,
    /// What is run before the freeze and after the thaw.
    pub hooks: Hooks,
    /// What is left for a monitoring system to read.
    pub metrics: Metrics,
}

/// What makes a checkpoint fail, and what is done for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignFreeze {
    /// The freeze fails: nobody knows how long theirs lasts.
    #[default]
    Fail,
    /// It counts as frozen, and is left to whoever froze it.
    Accept,
}

/// Limits, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Writing back before the freeze, while applications go on.
    pub flush: u64,
    /// From the first file system frozen to the last.
    pub freeze: u64,
    /// From the answer to FREEZE to the host's THAW.
    pub hold: u64,
    /// They are kept even where the kernel panics before they have passed.
    pub ignore_hung_task_panic: bool,
}

/// File systems that are neither flushed nor frozen: those excluded and, where any list of what to include has an
/// element, those that match none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// FREEZE is answered with failure, and nothing is frozen.
    #[default]
    Abort,
    /// It is reported, and the checkpoint goes on.
    Continue,
}

/// What is different for one hook; `None` is as for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookOverride {
    /// As [`Hooks::on_failure`].
    pub on_failure: Option<OnFailure>,
    /// As [`Hooks::limit`].
    pub limit: Option<u64>,
}

/// What is left for a monitoring system to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
            interrupt_writers: true,
            exclude_processes: Vec::new(),
            hooks: Hooks::default(),
            metrics: Metrics::default(),
        }
    }
}

/// What FREEZE may take besides flush, freeze and hooks, in seconds: plan, open, thaw again.
const OTHER_WORK: u64 = 60;

/// The driver answers FREEZE itself after 15 minutes (VSS_FREEZE_TIMEOUT in the kernel's drivers/hv/hv_snapshot.c); this leaves half a minute for the way
/// there.
const DRIVER_LIMIT: u64 = 870;

impl Config {
    /// Reads `path`; without one [`DEFAULT_PATH`], which need not exist; and the drop-ins of the one or the other.
    ///
    /// # Errors
    /// [`ConfigError`], with everything that is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Loaded::read(&Sources::new(path)).map(|loaded| loaded.config)
    }

    /// Takes the text of one file, `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Loaded::parse(text, path).map(|loaded| loaded.config)
    }

    /// How long a FREEZE may take from the request to its answer, in seconds.
    #[must_use]
    pub fn freeze_request(&self) -> u64 {
        let hooks = if self.hooks.enabled {
            self.hooks.total
        } else {
            0
        };
        self.limits.flush + self.limits.freeze + hooks + OTHER_WORK
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flush: 300,
            freeze: 60,
            hold: 120,
            ignore_hung_task_panic: false,
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
