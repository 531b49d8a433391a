//! Which mount namespaces the processes of the machine are in, and the mount table of each.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::Serialize;

use super::error::ScanError;
use super::text::printable;

/// How many processes of a namespace are asked for their root directory, to find one that sees all of it.
const ROOTS_ASKED: usize = 8;

/// A process in whose mount namespace something can be reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Process {
    /// Its number in our PID namespace.
    pub pid: u32,
    /// What it calls itself (`/proc/PID/comm`), safe to print; empty if it is gone.
    pub name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PID {}", self.pid)?;
        match self.name.as_str() {
            "" => Ok(()),
            name => write!(f, " ({name})"),
        }
    }
}

impl Process {
    /// Asks for its name.
    pub(crate) fn read(proc: &Path, pid: u32) -> Self {
        let name = fs::read(file_of(proc, pid, "comm")).unwrap_or_default();
        let name = printable(OsStr::from_bytes(name.trim_ascii_end()));
        Self { pid, name }
    }
}

/// The processes of each namespace but ours, lowest first.
pub(crate) struct Listed {
    pub(crate) namespaces: Vec<Vec<u32>>,
    /// Processes whose namespace could not be found out.
    pub(crate) unread: usize,
}

/// Reads the links of all processes below `proc`.
pub(crate) fn list(proc: &Path) -> Result<Listed, ScanError> {
    let failed = |source| ScanError::Read {
        path: proc.to_owned(),
        source,
    };
    let own = fs::read_link(proc.join("self/ns/mnt")).ok();
    let mut by_namespace: HashMap<PathBuf, Vec<u32>> = HashMap::new();
    let mut unread = 0;
    let mut path = proc.to_owned();
    for entry in fs::read_dir(proc).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        path.push(&name);
        path.push("ns/mnt");
        let namespace = fs::read_link(&path);
        path.pop();
        path.pop();
        match namespace {
            Ok(namespace) if Some(&namespace) == own.as_ref() => {}
            Ok(namespace) => by_namespace.entry(namespace).or_default().push(pid),
            Err(error) if is_gone(&error) => {}
            // A process that ends just now gives the same error as one that may not be looked into (proc_ns_readlink in fs/proc/namespaces.c).
            Err(_) if fs::symlink_metadata(&path).is_err() => {}
            Err(_) => unread += 1,
        }
        path.pop();
    }
    let mut namespaces: Vec<Vec<u32>> = by_namespace.into_values().collect();
    for pids in &mut namespaces {
        pids.sort_unstable();
    }
    namespaces.sort_unstable();
    Ok(Listed { namespaces, unread })
}

/// A process that changed its root directory sees only what is below that.
fn prefer_whole_view(proc: &Path, pids: &mut [u32]) {
    let sees_all = |pid: &u32| {
        fs::read_link(file_of(proc, *pid, "root")).is_ok_and(|root| root == Path::new("/"))
    };
    if let Some(index) = pids.iter().take(ROOTS_ASKED).position(sees_all) {
        pids.swap(0, index);
    }
}

/// The mount table of one namespace, by the first of its processes that still has it: with its bytes, and open at its end.
pub(crate) fn table(
    proc: &Path,
    mut pids: Vec<u32>,
    unread: &mut usize,
) -> Option<(u32, File, Vec<u8>)> {
    prefer_whole_view(proc, &mut pids);
    let mut refused = false;
    for pid in &pids {
        let read = || -> io::Result<_> {
            let mut file = File::open(file_of(proc, *pid, "mountinfo"))?;
            let mut table = Vec::new();
            file.read_to_end(&mut table)?;
            Ok((file, table))
        };
        match read() {
            Ok((file, table)) if !table.is_empty() => return Some((*pid, file, table)),
            Ok(_) => {}
            Err(error) => refused |= !is_gone(&error),
        }
    }
    if refused {
        *unread += pids.len();
    }
    None
}

/// What the kernel answers for a process that is no more, or has let go of its namespace (`mounts_open_common` in fs/proc_namespace.c: EINVAL).
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ESRCH | libc::EINVAL)
    )
}

/// `/proc/PID/FILE`.
pub(crate) fn file_of(proc: &Path, pid: u32, file: &str) -> PathBuf {
    proc.join(pid.to_string()).join(file)
}
