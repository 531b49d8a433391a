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
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                Err(SingleError::Running { pid })
            }
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
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
}
