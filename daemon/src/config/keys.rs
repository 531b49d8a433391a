//! Every key of the configuration: where it is kept, which values it takes, what it means. The loader, `hv-vssd config --show`, the reference and the
//! shipped file are made of this one table.

use super::value::{Field, Kind, Value};
use super::{Config, ForeignFreeze, OnFailure, Strictness};

/// A key.
#[derive(Debug)]
pub struct Key {
    /// The table it stands in, such as `limits`; empty above the first. `*` stands for a name that the operator chooses.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// What it does, in short. Markdown.
    pub summary: &'static str,
    /// What else there is to know. Markdown; may be empty.
    pub detail: &'static str,
    get: fn(&Config, &str) -> Option<Value>,
    set: fn(&mut Config, &str, Value),
}

impl Key {
    /// The value in `config`; `None` when it is not set. `name` is what stands for `*`.
    #[must_use]
    pub fn get(&self, config: &Config, name: &str) -> Option<Value> {
        (self.get)(config, name)
    }

    /// Puts a value that [`Key::kind`] has taken into `config`.
    pub(super) fn set(&self, config: &mut Config, name: &str, value: Value) {
        (self.set)(config, name, value);
    }

    /// The key with its section; `name` is what stands for `*`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        match self.section {
            "" => self.name.to_owned(),
            BY_NAME => format!("{}.{}", by_name(name), self.name),
            section => format!("{section}.{}", self.name),
        }
    }
}

/// The table for one hook, as TOML writes it.
pub(super) fn by_name(name: &str) -> String {
    let mut path = "hooks.by_name.".to_owned();
    // Writing to a string does not fail.
    let _ = super::value::quote(name, &mut path);
    path
}

/// The section whose `*` is a hook's file name.
pub const BY_NAME: &str = "hooks.by_name.*";

/// A section, and what is said above its keys.
#[derive(Debug)]
pub struct Section {
    /// As [`Key::section`].
    pub name: &'static str,
    /// What it is about, in short. Markdown.
    pub intro: &'static str,
    /// What else there is to know. Markdown; may be empty.
    pub detail: &'static str,
}

/// All sections, in the order in which they are shown.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "",
        intro: "",
        detail: "",
    },
    Section {
        name: "limits",
        intro: "How long each part of a checkpoint may last, in whole seconds.",
        detail: "`flush`, `freeze` and, with hooks enabled, `hooks.total` must not be more than 810 together: with one minute for all else, and some time for \
                 the answer, they stay below the 15 minutes after which the driver itself tells the host failure.",
    },
    Section {
        name: "filesystems",
        intro: "What is left alone: neither flushed nor frozen, and so in the image as after a power cut.",
        detail: "The host is still told success. `hv-vssd plan` shows such file systems with that reason. Naming one that does not exist is no error: the \
                 same configuration serves many guests. File systems that are not frozen anyway because they are on no disk, on a network or served by a \
                 process keep that reason.",
    },
    Section {
        name: "hooks",
        intro: "Executables in /etc/hv-vssd/hooks.d and /usr/lib/hv-vssd/hooks.d, called before the freeze and after the thaw.",
        detail: "",
    },
    Section {
        name: BY_NAME,
        intro: "What is different for one hook, by its file name, such as `[hooks.by_name.\"10-postgresql\"]`.",
        detail: "",
    },
    Section {
        name: "metrics",
        intro: "What is left for a monitoring system to read.",
        detail: "",
    },
];

macro_rules! key {
    ($section:literal, $name:literal, $($field:ident).+, $kind:expr, $summary:expr, $detail:expr) => {
        Key {
            section: $section,
            name: $name,
            kind: $kind,
            summary: $summary,
            detail: $detail,
            get: |config, _| config.$($field).+.to_value(),
            set: |config, _, value| {
                if let Some(value) = Field::from_value(value) {
                    config.$($field).+ = value;
                }
            },
        }
    };
    (of each hook, $name:literal, $field:ident, $kind:expr, $summary:expr, $detail:expr) => {
        Key {
            section: BY_NAME,
            name: $name,
            kind: $kind,
            summary: $summary,
            detail: $detail,
            get: |config, hook| config.hooks.by_name.get(hook)?.$field.to_value(),
            set: |config, hook, value| {
                if let Some(value) = Field::from_value(value) {
                    config.hooks.by_name.entry(hook.to_owned()).or_default().$field = value;
                }
            },
        }
    };
}

/// All keys, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    key!(
        "",
        "strictness",
        strictness,
        Kind::Choice(Strictness::WORDS),
        "What makes a checkpoint fail, and what is done for it.",
        "`\"normal\"`: a writable local file system that cannot be frozen (vfat, exfat, …) is flushed and listed. `\"strict\"`: it makes HOT_BACKUP and FREEZE \
         fail, named in the log; what is excluded below is the operator's own choice, and does not. `\"flush-only\"`: nothing is frozen, everything \
         is flushed; FREEZE succeeds, writers go on, and the image is as after a power cut, with all written before the flush."
    ),
    key!(
        "",
        "foreign_freeze",
        foreign_freeze,
        Kind::Choice(ForeignFreeze::WORDS),
        "What to do about a file system that someone else has frozen, an administrator or a snapshot, and that is still frozen 2 s later.",
        "`\"fail\"`: the freeze fails. `\"accept\"`: it counts as frozen, and is left to whoever froze it; should they thaw it before the host's THAW, nobody \
         notices. hv-vssd thaws it in neither case."
    ),
    key!(
        "",
        "expedite",
        expedite,
        Kind::Flag,
        "Let the kernel hurry (`/sys/kernel/rcu_expedited`) from the first file system frozen to the last, so that writers wait less.",
        "The freeze waits for several of its RCU grace periods, some 10 ms each, while writers wait for it. The price: every processor is interrupted. The switch \
         is put back afterwards; one that was on before, or that the kernel does not have, is left alone."
    ),
    key!(
        "",
        "write_back",
        write_back,
        Kind::Flag,
        "Let the kernel's own flushers write data back first, so that no writer waits for a journal commit on a slow disk.",
        "They are woken by changing `vm.dirty_writeback_centisecs` by one and back, and waited for as long as they get on. It ends when every disk is idle \
         and what has become dirty meanwhile takes them less than 20 ms, or when writers dirty about as fast as the disks write. With 64 pages or fewer to write it is left out."
    ),
    key!(
        "",
        "interrupt_writers",
        interrupt_writers,
        Kind::Flag,
        "Interrupt programs that sleep in a write to a file system while its freeze waits for them, such as `pv` on a silent pipe.",
        "Their system call returns and begins again, with no signal that they see; then they wait for the thaw like all others. Without it such a freeze ends \
         in failure after `limits.freeze`, and all writers of that file system wait until the program goes on. `hv-vssd check` names them ahead."
    ),
    key!(
        "",
        "exclude_processes",
        exclude_processes,
        Kind::Processes,
        "Processes that are never interrupted, by name (`\"pv\"`, as `/proc/PID/comm` has it) or by the absolute path of their executable.",
        "They are still named when a freeze waits for them. Of a name the first 15 characters count, which are all that the kernel keeps."
    ),
    key!(
        "limits",
        "flush",
        limits.flush,
        Kind::Seconds(1..=600),
        "How long file systems may write back before the freeze, all of it together, while applications go on.",
        "When it has passed, nothing was frozen, and FREEZE is answered with failure."
    ),
    key!(
        "limits",
        "freeze",
        limits.freeze,
        Kind::Seconds(1..=180),
        "From the first file system frozen to the last; writers wait meanwhile.",
        "When it has passed, everything is thawed, and FREEZE is answered with failure."
    ),
    key!(
        "limits",
        "hold",
        limits.hold,
        Kind::Seconds(1..=600),
        "How long the host may hold the guest before it is thawed without the host's word.",
        "The THAW that comes later is answered with failure. Above 180, systemd's journal may be ended by its watchdog, because its own writes wait."
    ),
    key!(
        "limits",
        "ignore_hung_task_panic",
        limits.ignore_hung_task_panic,
        Kind::Flag,
        "Keep these limits on a kernel that panics when a program waits long (`kernel.hung_task_panic`).",
        "Whoever writes in a hold waits. So without it all is thawed 20 s before `kernel.hung_task_timeout_secs` has passed since the first file system was \
         frozen, or when half of that has passed if it is less than 40; `limits.freeze` is at most half of that time. The switches are read at each checkpoint."
    ),
    key!(
        "filesystems",
        "exclude_mount_points",
        filesystems.exclude_mount_points,
        Kind::MountPoints,
        "The file systems mounted exactly here, with all their other mounts.",
        "What is mounted below is another file system, and not excluded. Mount points inside containers are not meant: name the type or the device."
    ),
    key!(
        "filesystems",
        "exclude_types",
        filesystems.exclude_types,
        Kind::Types,
        "All file systems of these types, as `/proc/self/mountinfo` names them, such as `\"ext4\"`.",
        ""
    ),
    key!(
        "filesystems",
        "exclude_devices",
        filesystems.exclude_devices,
        Kind::Devices,
        "By device: the mounted source (`\"/dev/mapper/vg-scratch\"`), the kernel's name (`\"sdb1\"`) or the number (`\"8:17\"`).",
        "A disk does not stand for its partitions. For a btrfs of several devices, naming one is enough."
    ),
    key!(
        "filesystems",
        "include_mount_points",
        filesystems.include_mount_points,
        Kind::MountPoints,
        "Where this list or one of the next two has an element, only what matches one of the three is frozen, and of that not what is excluded.",
        "A mount point is meant as in `exclude_mount_points`. What carries an included file system, such as the one with its image, is not included by that."
    ),
    key!(
        "filesystems",
        "include_types",
        filesystems.include_types,
        Kind::Types,
        "The same by type.",
        ""
    ),
    key!(
        "filesystems",
        "include_devices",
        filesystems.include_devices,
        Kind::Devices,
        "The same by device.",
        ""
    ),
    key!(
        "hooks",
        "enabled",
        hooks.enabled,
        Kind::Flag,
        "Whether any hook is called.",
        ""
    ),
    key!(
        "hooks",
        "on_failure",
        hooks.on_failure,
        Kind::Choice(OnFailure::WORDS),
        "When a hook fails or is late before the freeze: `\"abort\"` the checkpoint, or `\"continue\"` without it.",
        "A hook that fails after the thaw is reported; nothing else follows from it."
    ),
    key!(
        "hooks",
        "limit",
        hooks.limit,
        Kind::Seconds(1..=600),
        "How long one hook may take; then it is ended.",
        ""
    ),
    key!(
        "hooks",
        "total",
        hooks.total,
        Kind::Seconds(1..=600),
        "How long all of them together may take before the freeze.",
        "It cuts the time of a single hook short, too."
    ),
    key!(of each hook, "on_failure", on_failure, Kind::Choice(OnFailure::WORDS),
        "As in `[hooks]`, for this hook.", ""),
    key!(of each hook, "limit", limit, Kind::Seconds(1..=600),
        "As in `[hooks]`, for this hook.", ""),
    key!(
        "metrics",
        "textfile",
        metrics.textfile,
        Kind::Path(".prom"),
        "A file for the textfile collector of Prometheus' node_exporter, written after each checkpoint, such as \
         `\"/var/lib/node_exporter/textfile_collector/hv-vssd.prom\"`.",
        "None is written unless one is named. Its directory must exist."
    ),
];
