//! What was started and owes its thaw, on record before it is started, for the next start of the agent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::run_files;

/// Where the service keeps it: a directory that no reboot keeps.
pub const DEFAULT_PATH: &str = "/run/hv-vssd/hooks";

/// A file of another form is none of ours.
const FORM: u32 = 1;

/// The hooks of one checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    form: u32,
    /// The checkpoint's name.
    pub(super) checkpoint: String,
    /// In the order in which they were started.
    pub(super) started: Vec<Entry>,
}

/// One hook that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its file name.
    pub(super) name: String,
    /// The file.
    pub(super) path: PathBuf,
    /// How the processes of its call with `freeze` are found; `None` before that is known.
    pub(super) trace: Option<Trace>,
    /// That call has returned: what is left now is meant to be.
    pub(super) returned: bool,
}

/// By what the processes of a hook are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Trace {
    /// A unit of systemd's.
    Unit(String),
    /// A process group.
    Group {
        /// Its number, that of its first process.
        id: i32,
        /// When that process was started, in clock ticks since boot (man 5 proc, `starttime`): the number may come again.
        born: u64,
    },
}

impl Record {
    /// Of a checkpoint, with nothing started yet.
    #[must_use]
    pub(super) fn new(checkpoint: &str) -> Self {
        Self {
            form: FORM,
            checkpoint: checkpoint.to_owned(),
            started: Vec::new(),
        }
    }

    /// Puts it in place of any older one; an empty one is removed.
    ///
    /// # Errors
    /// What the kernel says to the file.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        if self.started.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        run_files::replace(path, &serde_json::to_string(self)?)?;
        Ok(())
    }

    /// What `path` has on record; `None` without such a file.
    ///
    /// # Errors
    /// What the kernel says, or `InvalidData` for a file that is no such record.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let record: Self =
            serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if record.form != FORM {
            return Err(invalid(format!("its form is {}", record.form)));
        }
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_read_back_and_an_empty_record_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/hooks");
        let mut record = Record::new("20261122-1");
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), None);
        record.started.push(Entry {
            name: "10-database".to_owned(),
            path: "/etc/hv-vssd/hooks.d/10-database".into(),
            trace: Some(Trace::Group { id: 17, born: 4711 }),
            returned: true,
        });
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));
        record.started.clear();
        record.write(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_record_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hooks");
        for text in [
            "",
            "F 8:1",
            "{\"form\":2,\"checkpoint\":\"\",\"started\":[]}",
        ] {
            fs::write(&path, text).unwrap();
            let error = Record::read(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}");
        }
    }
}
