//! Which mount namespaces the processes of the machine are in, and the mount table of each.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fmt, fs, io};

use hvutil_sys::namespace;
use serde::Serialize;

use super::budget::{Grant, Owner};
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

/// A table is read in pieces of this size; the time is looked at in between.
const PIECE: usize = 64 * 1024;

/// The processes of each namespace but ours, lowest first. Namespaces that may be the system's come first.
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
    // What is root's in the eyes of /proc is asked first: nobody can make it wait behind thousands of his own.
    let is_users = |pids: &Vec<u32>| {
        let first = pids
            .first()
            .map(|pid| fs::metadata(proc.join(pid.to_string())));
        first.is_none_or(|first| first.is_ok_and(|process| process.uid() != 0))
    };
    namespaces.sort_by_cached_key(|pids| (is_users(pids), pids.first().copied()));
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

/// To whom the namespace of these processes belongs.
pub(crate) fn owner(proc: &Path, pids: &[u32], ours: Option<&File>) -> Owner {
    for pid in pids.iter().take(ROOTS_ASKED) {
        let known = File::open(file_of(proc, *pid, "ns/mnt"))
            .and_then(|mounts| namespace::owner(mounts, ours.ok_or(io::ErrorKind::NotFound)?));
        match known {
            Ok(None) => return Owner::System,
            Ok(Some(uid)) => return Owner::User(uid),
            // It is gone; or the kernel is older than 4.11; or a directory stands in for /proc.
            Err(_) => match fs::metadata(proc.join(pid.to_string())) {
                Ok(process) if process.uid() == 0 => return Owner::System,
                Ok(process) => return Owner::User(process.uid()),
                Err(_) => {}
            },
        }
    }
    Owner::System
}

/// A mount table that was read.
pub(crate) struct Table {
    /// The process it was read of.
    pub(crate) pid: u32,
    /// Open where the reading ended.
    pub(crate) file: File,
    /// Whole lines.
    pub(crate) text: Vec<u8>,
    /// It goes on.
    pub(crate) is_cut: bool,
}

/// The mount table of one namespace, by the first of its processes that still has it, as far as the grant goes.
pub(crate) fn table(
    proc: &Path,
    mut pids: Vec<u32>,
    grant: Grant,
    unread: &mut usize,
) -> Option<Table> {
    prefer_whole_view(proc, &mut pids);
    let mut refused = false;
    for pid in &pids {
        let read = || -> io::Result<_> {
            let file = File::open(file_of(proc, *pid, "mountinfo"))?;
            let (text, is_cut) = read_lines(&file, grant)?;
            Ok(Table {
                pid: *pid,
                file,
                text,
                is_cut,
            })
        };
        match read() {
            Ok(table) if table.is_cut || !table.text.is_empty() => return Some(table),
            Ok(_) => {}
            Err(error) => refused |= !is_gone(&error),
        }
        if Instant::now() >= grant.until {
            break;
        }
    }
    if refused {
        *unread += pids.len();
    }
    None
}

/// Reads a table to its end, or as far as the grant goes: then to the end of a line, and `true`.
pub(crate) fn read_lines(mut file: &File, grant: Grant) -> io::Result<(Vec<u8>, bool)> {
    let mut text = Vec::new();
    loop {
        let read = text.len();
        if read >= grant.bytes || Instant::now() >= grant.until {
            let line = text.iter().rposition(|byte| *byte == b'\n');
            text.truncate(line.map_or(0, |end| end + 1));
            return Ok((text, true));
        }
        text.resize(read + PIECE.min(grant.bytes - read), 0);
        let piece = text.get_mut(read..).unwrap_or_default();
        let more = match file.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Ok(0) => {
                text.truncate(read);
                text.shrink_to_fit();
                return Ok((text, false));
            }
            more => more?,
        };
        text.truncate(read + more);
    }
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
