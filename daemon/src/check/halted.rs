//! Why an agent does not run although it lives: stopped by a signal, or in a control group that is frozen. Read from /proc and /sys/fs/cgroup alone.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::processes::{self, Stat};
use crate::filesystems::text::printable;

/// Who keeps the agent from running. Its guardian mostly shares its fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halted {
    /// SIGSTOP, or a debugger.
    Stopped {
        /// The agent's process.
        pid: u32,
    },
    /// `systemctl freeze`, or a container's manager.
    Frozen {
        /// The agent's process.
        pid: u32,
        /// The control group, of the agent or above its own.
        group: String,
        /// The command that thaws it.
        remedy: String,
    },
}

impl Halted {
    /// The agent of this machine, if it is there and halted.
    #[must_use]
    pub fn agent() -> Option<Self> {
        let root = Path::new("/");
        Self::of(root, processes::lock_holder(root)?)
    }

    /// `root` stands for `/`.
    pub(super) fn of(root: &Path, pid: u32) -> Option<Self> {
        if Stat::read(&root.join("proc").join(pid.to_string()))
            .is_some_and(|stat| stat.is_stopped())
        {
            return Some(Self::Stopped { pid });
        }
        let (group, remedy) = frozen_group(root, pid)?;
        Some(Self::Frozen { pid, group, remedy })
    }

    /// The command that lets it go on.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Stopped { pid } => format!("kill -CONT {pid}"),
            Self::Frozen { remedy, .. } => remedy.clone(),
        }
    }
}

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped { pid } => write!(f, "the agent, process {pid}, is stopped by a signal"),
            Self::Frozen { pid, group, .. } => write!(
                f,
                "the control group of hv-vssd is frozen (process {pid}, {group})"
            ),
        }
    }
}

/// Of both versions what tells of a freeze: its own switch, and the state that one further up gives it as well
/// (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/freezer-subsystem.rst).
struct Version {
    /// Where it is mounted, below /sys/fs/cgroup.
    mounts: &'static [&'static str],
    is_switched: fn(&Path) -> bool,
    is_frozen: fn(&Path) -> bool,
    off: &'static str,
}

const V2: Version = Version {
    mounts: &["", "unified"],
    is_switched: |group| text(group, "cgroup.freeze") == "1",
    is_frozen: |group| {
        text(group, "cgroup.events")
            .lines()
            .any(|line| line == "frozen 1")
    },
    off: "echo 0 >GROUP/cgroup.freeze",
};

const V1: Version = Version {
    mounts: &["freezer"],
    is_switched: |group| text(group, "freezer.self_freezing") == "1",
    is_frozen: |group| text(group, "freezer.state") == "FROZEN",
    off: "echo THAWED >GROUP/freezer.state",
};

fn text(group: &Path, file: &str) -> String {
    let text = fs::read_to_string(group.join(file)).unwrap_or_default();
    text.trim().to_owned()
}

/// The frozen control group that a process is in, and what thaws it.
fn frozen_group(root: &Path, pid: u32) -> Option<(String, String)> {
    let table = fs::read_to_string(root.join(format!("proc/{pid}/cgroup"))).ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = match controllers {
            "" => V2,
            some if some.split(',').any(|name| name == "freezer") => V1,
            _ => return None,
        };
        // From outside a control group namespace a path may climb above its root.
        let parts = Path::new(path).components();
        let path: PathBuf = parts
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        version.mounts.iter().find_map(|mount| {
            let mount = Path::new("sys/fs/cgroup").join(mount);
            version.frozen_above(root, &mount, &path)
        })
    })
}

impl Version {
    /// The one that was switched, or else, where that is out of sight, the lowest that is frozen.
    fn frozen_above(&self, root: &Path, mount: &Path, group: &Path) -> Option<(String, String)> {
        let find = |tells: fn(&Path) -> bool| {
            let mut all = group.ancestors();
            all.find(|group| tells(&root.join(mount).join(group)))
        };
        let found = find(self.is_switched).or_else(|| find(self.is_frozen))?;
        let name = found.file_name().unwrap_or_default().to_string_lossy();
        let is_unit = [".service", ".slice", ".scope"]
            .iter()
            .any(|kind| name.ends_with(kind));
        let place = printable(Path::new("/").join(mount).join(found));
        let remedy = match is_unit {
            true => format!("systemctl thaw {}", printable(Path::new(&*name))),
            false => self.off.replace("GROUP", place.trim_end_matches('/')),
        };
        Some((printable(Path::new("/").join(found)), remedy))
    }
}
