//! Which hooks there are: two directories, overrides and masks, and what may not be run, each with the remedy.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

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
}

impl Default for Places {
    fn default() -> Self {
        Self {
            directories: vec![PACKAGED.into(), LOCAL.into()],
            owner: Uid::from_raw(0).as_raw(),
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
        match look(&name, &path, places.owner) {
            Ok(None) => found.hooks.push(Hook { name, path }),
            Ok(Some(why)) => found.skipped.push(Skipped { path, why }),
            Err(why) => found.refused.push(Refused { name, path, why }),
        }
    }
    found
}

/// Whether a file may be run now as what it was found as.
///
/// # Errors
/// [`Refusal`].
pub fn accept(path: &Path, owner: u32) -> Result<(), Refusal> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    look(&name, path, owner).map(drop)
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

fn look(name: &str, path: &Path, owner: u32) -> Result<Option<Skip>, Refusal> {
    let real = fs::canonicalize(path).map_err(Refusal::Unreadable)?;
    if real == Path::new("/dev/null") {
        return Ok(Some(Skip::Masked));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(allowed) {
        return Err(Refusal::Name);
    }
    let file = fs::metadata(&real).map_err(Refusal::Unreadable)?;
    if !file.is_file() {
        return Err(Refusal::NotRegular);
    }
    if file.permissions().mode() & 0o111 == 0 {
        return Ok(Some(Skip::NotExecutable));
    }
    // Whoever may write to the directory of the file, or to that of the link to it, may put another in its place.
    for place in [Some(real.as_path()), real.parent(), path.parent()] {
        let place = place.unwrap_or(Path::new("/"));
        let held = fs::metadata(place).map_err(Refusal::Unreadable)?;
        if held.uid() != owner {
            return Err(Refusal::Owner(place.display().to_string(), held.uid()));
        }
        if held.permissions().mode() & 0o022 != 0 {
            return Err(Refusal::Writable(place.display().to_string()));
        }
    }
    Ok(None)
}
