//! One agent at a time: a second one must not take the first one's hold for a left-over.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::run_files;

/// Where the service keeps its lock.
pub const DEFAULT_PATH: &str = "/run/hv-vssd/lock";

/// Held as long as the agent lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Single(#[expect(dead_code, reason = "held, not used")] Flock<File>);

/// Why this process may not be the agent.
#[derive(Debug, thiserror::Error)]
pub enum SingleError {
    /// Another one is.
    #[error(
        "hv-vssd runs already, as process {pid}: stop it first (systemctl stop hv-vssd.service)"
    )]
    Running {
        /// As it wrote it into the file.
        pid: String,
    },
    /// The file cannot be had.
    #[error("the lock {path} cannot be taken")]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

impl Single {
    /// Takes the lock at `path`, and does not wait for it.
    ///
    /// # Errors
    /// [`SingleError`].
    pub fn acquire(path: &Path) -> Result<Self, SingleError> {
        let failed = |source: io::Error| SingleError::Lock {
            path: path.to_owned(),
            source,
        };
        run_files::make_directory_of(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0)
                    .and_then(|()| write!(lock, "{}", std::process::id()))
                    .map_err(failed)?;
                Ok(Self(lock))
            }
            Err((file, Errno::EWOULDBLOCK)) => Err(running(file)),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Takes the lock of a file that is there already, and changes nothing: also where nothing can be written any more.
    /// `None` without one, or where it cannot be used: whoever runs as the agent has made it and has locked it.
    ///
    /// # Errors
    /// [`SingleError::Running`].
    pub fn acquire_existing(path: &Path) -> Result<Option<Self>, SingleError> {
        let Ok(file) = File::open(path) else {
            return Ok(None);
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((file, Errno::EWOULDBLOCK)) => Err(running(file)),
            Err(_) => Ok(None),
        }
    }
}

fn running(mut file: File) -> SingleError {
    let mut pid = String::new();
    let _ = file.read_to_string(&mut pid);
    SingleError::Running { pid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_until_the_first_has_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/lock");
        let first = Single::acquire(&path).unwrap();
        let error = Single::acquire(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("as process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        Single::acquire(&path).unwrap();
    }

    #[test]
    fn a_lock_is_taken_as_it_is_and_none_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(Single::acquire_existing(&path).unwrap().is_none());
        assert!(!path.exists());
        let agent = Single::acquire(&path).unwrap();
        assert!(matches!(
            Single::acquire_existing(&path),
            Err(SingleError::Running { pid }) if pid == std::process::id().to_string()
        ));
        drop(agent);
        let _taken = Single::acquire_existing(&path).unwrap().unwrap();
        assert!(Single::acquire(&path).is_err());
    }
}
