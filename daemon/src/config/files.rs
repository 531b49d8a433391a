//! The files of a configuration: which there are, and whether they may be believed.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::Problem;

/// Where the configuration is read from unless a command is told otherwise.
pub const DEFAULT_PATH: &str = "/etc/hv-vssd/config.toml";

/// Nobody writes that much by hand.
const MOST_BYTES: u64 = 256 * 1024;

/// Where a configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The file itself. Its drop-ins are the files `*.toml` in the directory of the same name with `.d` behind it.
    pub file: PathBuf,
    /// Whether it must exist.
    pub required: bool,
}

impl Sources {
    /// `path`, which must exist; without one [`DEFAULT_PATH`], which need not.
    #[must_use]
    pub fn new(path: Option<&Path>) -> Self {
        Self {
            file: path.unwrap_or(Path::new(DEFAULT_PATH)).to_owned(),
            required: path.is_some(),
        }
    }

    /// The directory of the drop-ins.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        let mut directory = self.file.clone().into_os_string();
        directory.push(".d");
        directory.into()
    }
}

/// A file that was read.
pub(super) struct Text {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// All files, in the order in which they count: the last wins.
#[derive(Default)]
pub(super) struct Found {
    pub(super) texts: Vec<Text>,
    /// In the directory of the drop-ins, but none.
    pub(super) ignored: Vec<PathBuf>,
    pub(super) problems: Vec<Problem>,
}

pub(super) fn read(sources: &Sources) -> Found {
    let mut found = Found::default();
    found.add(&sources.file, sources.required);
    match drop_ins(&sources.directory()) {
        Ok(mut names) => {
            names.sort();
            for path in names {
                if is_drop_in(&path) {
                    found.add(&path, true);
                } else {
                    found.ignored.push(path);
                }
            }
        }
        Err(message) => found.problem(&sources.directory(), message),
    }
    found
}

impl Found {
    fn add(&mut self, path: &Path, required: bool) {
        match text(path) {
            Ok(Some(text)) => self.texts.push(Text {
                path: path.to_owned(),
                text,
            }),
            Ok(None) if !required => {}
            Ok(None) => self.problem(path, "cannot be read: it does not exist".to_owned()),
            Err(message) => self.problem(path, message),
        }
    }

    fn problem(&mut self, path: &Path, message: String) {
        self.problems.push(Problem {
            file: path.to_owned(),
            line: None,
            message,
        });
    }
}

/// `*.toml`, but not what an editor hides beside it.
fn is_drop_in(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension() == Some(OsStr::new("toml"))
}

/// What is in the directory; nothing where there is none.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    trusted(&fs::metadata(directory).map_err(unreadable)?)?;
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(unreadable)
}

/// The text of a file; `None` where there is none.
fn text(path: &Path) -> Result<Option<String>, String> {
    // Whatever it is, the open waits for nobody: not for the other end of a pipe.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A symbolic link that leads nowhere was meant to lead somewhere.
            return match fs::symlink_metadata(path) {
                Ok(_) => Err("is a symbolic link to what does not exist".to_owned()),
                Err(_) => Ok(None),
            };
        }
        file => file.map_err(unreadable)?,
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if is_null(&metadata) {
        return Ok(Some(String::new()));
    }
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    trusted(&metadata)?;
    contents(file).map(Some)
}

fn contents(file: File) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!(
            "is larger than {} KiB: this is no configuration",
            MOST_BYTES / 1024
        ));
    }
    String::from_utf8(bytes).map_err(|_| "is not text in UTF-8".to_owned())
}

fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

/// /dev/null: a drop-in that a link there puts out of force.
fn is_null(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device()
        && nix::sys::stat::major(metadata.rdev()) == 1
        && nix::sys::stat::minor(metadata.rdev()) == 3
}

/// What another user can write must not tell root what to leave alone. Asked of what was opened, at the end of all symbolic links.
fn trusted(metadata: &Metadata) -> Result<(), String> {
    let others_write = metadata.mode() & 0o002 != 0;
    let group_writes = metadata.mode() & 0o020 != 0 && metadata.gid() != 0;
    if !nix::unistd::geteuid().is_root() {
        // Whoever is not root decides nothing here.
        Ok(())
    } else if metadata.uid() != 0 {
        Err(format!(
            "belongs to user {}, and must belong to root: chown root it once you have read it",
            metadata.uid()
        ))
    } else if others_write || group_writes {
        Err(format!(
            "can be written by others than root (mode {:03o}): chmod go-w it once you have read it",
            metadata.mode() & 0o777
        ))
    } else {
        Ok(())
    }
}

/// Whether a file in a directory can be called so.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".."
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
