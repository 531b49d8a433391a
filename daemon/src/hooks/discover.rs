//! Which hooks there are: two directories, overrides and masks, and what may not be run, each with the remedy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::walk::{Exposed, Exposure, Walked, walk};

/// Where packages put hooks.
pub const PACKAGED: &str = "/usr/lib/hv-vssd/hooks.d";

/// Where the administrator does; what is here stands in for a packaged one of the same name.
pub const LOCAL: &str = "/etc/hv-vssd/hooks.d";

/// Names become part of a unit's name.
const LONGEST_NAME: usize = 100;

/// What editors and package managers leave behind, as `qemu-guest-agent`'s hook script leaves it alone.
const LEFT_BEHIND: [&str; 14] = [
    "~",
    ".bak",
    ".orig",
    ".sample",
    ".rpmnew",
    ".rpmorig",
    ".rpmsave",
    ".dpkg-old",
    ".dpkg-new",
    ".dpkg-tmp",
    ".dpkg-dist",
    ".dpkg-bak",
    ".dpkg-backup",
    ".dpkg-remove",
];

/// Where hooks are looked for, and whom they must belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// A file in a later one stands in for a file of the same name in an earlier one.
    pub directories: Vec<PathBuf>,
    /// The only user whose files are run; root but for tests.
    pub owner: u32,
    /// What lies above it is not looked at; `/` but for tests.
    pub top: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            directories: vec![PACKAGED.into(), LOCAL.into()],
            owner: Uid::from_raw(0).as_raw(),
            top: "/".into(),
        }
    }
}

/// A hook that may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its file name: the order of hooks is that of their names.
    pub name: String,
    /// The file, as found; it may be a symbolic link.
    pub path: PathBuf,
}

/// A file that is there on purpose and is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: Skip,
}

/// Why a file is no hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// A symbolic link to `/dev/null`.
    #[error("masked")]
    Masked,
    /// As with run-parts, and `qemu-guest-agent`'s hooks.
    #[error("not executable: 'chmod 755' switches it on")]
    NotExecutable,
}

/// A file that looks like a hook and must not be run.
#[derive(Debug)]
pub struct Refused {
    /// Its file name, or that of the directory that cannot be used.
    pub name: String,
    /// Which.
    pub path: PathBuf,
    /// Why, and what to do.
    pub why: Refusal,
}

/// Why a hook is not run, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Whoever owns it decides what runs as root.
    #[error("{0} belongs to user {1}: 'chown root {0}'")]
    Owner(String, u32),
    /// Others decide what runs as root.
    #[error("{0} can be written to by others than root: 'chmod go-w {0}'")]
    Writable(String),
    /// The owner of a directory on the way there decides what runs as root.
    #[error(
        "{0}, which leads to it, belongs to user {1}: copy the hook to {LOCAL} instead of a link to it"
    )]
    OwnerAbove(String, u32),
    /// Others can rename a directory on the way there, and put their own in its place.
    #[error(
        "{0}, which leads to it, can be written to by others than root: copy the hook to {LOCAL} instead of a link to it"
    )]
    WritableAbove(String),
    /// A directory, a device, a socket.
    #[error("it is no regular file: move it elsewhere")]
    NotRegular,
    /// The name cannot be part of a unit's.
    #[error(
        "its name has other characters than letters, digits, '.', '_' and '-', or more than {LONGEST_NAME}: rename it"
    )]
    Name,
    /// It cannot be looked at, or leads nowhere.
    #[error("it cannot be read, or is a link that leads nowhere ({0}): repair or remove it")]
    Unreadable(io::Error),
}

/// What the directories hold, each in name order.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that are run.
    pub hooks: Vec<Hook>,
    /// Those that are switched off.
    pub skipped: Vec<Skipped>,
    /// Those that must not be run.
    pub refused: Vec<Refused>,
}

/// Looks into the directories; one that is absent has no hooks.
#[must_use]
pub fn discover(places: &Places) -> Found {
    let mut found = Found::default();
    let mut by_name = BTreeMap::new();
    for directory in &places.directories {
        match list(directory) {
            Ok(entries) => by_name.extend(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.refused.push(Refused {
                name: directory.display().to_string(),
                path: directory.clone(),
                why: Refusal::Unreadable(error),
            }),
        }
    }
    for (name, path) in by_name {
        match look(&name, &path, places) {
            Ok((None, _)) => found.hooks.push(Hook { name, path }),
            Ok((Some(why), _)) => found.skipped.push(Skipped { path, why }),
            Err(why) => found.refused.push(Refused { name, path, why }),
        }
    }
    found
}

/// A file that may be run now as what it was found as: what was looked at, opened as a place (`O_PATH`), to be executed.
///
/// # Errors
/// [`Refusal`].
pub fn accept(path: &Path, places: &Places) -> Result<File, Refusal> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    look(&name, path, places).map(|(_, file)| file)
}

fn list(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_note = name.starts_with('.') || name.starts_with("README");
        if !is_note && !LEFT_BEHIND.iter().any(|end| name.ends_with(end)) {
            entries.push((name, entry.path()));
        }
    }
    Ok(entries)
}

fn look(name: &str, path: &Path, places: &Places) -> Result<(Option<Skip>, File), Refusal> {
    let walked = walk(path, places.owner, &places.top).map_err(Refusal::Unreadable)?;
    // It runs nothing, wherever it lies.
    if walked.real == Path::new("/dev/null") {
        return Ok((Some(Skip::Masked), walked.file));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(allowed) {
        return Err(Refusal::Name);
    }
    let file = walked.file.metadata().map_err(Refusal::Unreadable)?;
    if !file.is_file() {
        return Err(Refusal::NotRegular);
    }
    if file.permissions().mode() & 0o111 == 0 {
        return Ok((Some(Skip::NotExecutable), walked.file));
    }
    match &walked.exposed {
        Some(exposed) => Err(refusal(exposed, &walked, path)),
        None => Ok((None, walked.file)),
    }
}

/// Its own owner and mode can be put right; what lies above may be somebody's home.
fn refusal(exposed: &Exposed, walked: &Walked, path: &Path) -> Refusal {
    let place = exposed.place.display().to_string();
    let exposed_place = exposed.place.as_path();
    let near = [walked.real.as_path()]
        .into_iter()
        .chain(walked.real.parent());
    // Those of the directories of hooks, and what lies above them, are the system's own.
    let mut near = near.chain(path.ancestors());
    let is_near = near.any(|place| place == exposed_place);
    match (&exposed.how, is_near) {
        (Exposure::Owner(user), true) => Refusal::Owner(place, *user),
        (Exposure::Owner(user), false) => Refusal::OwnerAbove(place, *user),
        (Exposure::Writable, true) => Refusal::Writable(place),
        (Exposure::Writable, false) => Refusal::WritableAbove(place),
    }
}
