//! What takes long to make: made once, by one process at a time, and kept beside a stamp of what it was made of.

use std::fs::{self, File};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{BedError, BedResult, Context};

/// In the directory, what it was made of.
pub(crate) const STAMP: &str = "stamp";

/// Locks a file, made if it is missing, until what is returned is dropped.
pub(crate) fn lock(path: &Path) -> BedResult<Flock<File>> {
    locked(path, FlockArg::LockExclusive)
}

/// The directory `name` below `parent`, filled by `make` if it is missing or bears another stamp. Nobody replaces it while the
/// lock that is returned lives; others may use it.
pub(crate) fn directory<E: From<BedError>>(
    parent: &Path,
    name: &str,
    stamp: &str,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<Flock<File>, E> {
    let home = parent.join(name);
    let is_kept = || fs::read_to_string(home.join(STAMP)).is_ok_and(|old| old == stamp);
    fs::create_dir_all(parent).doing(|| format!("making {}", parent.display()))?;
    let path = parent.join(format!("{name}.lock"));
    let lock = locked(&path, FlockArg::LockShared)?;
    if is_kept() {
        return Ok(lock);
    }
    drop(lock);
    let lock = locked(&path, FlockArg::LockExclusive)?;
    if is_kept() {
        return Ok(lock);
    }
    let scratch = tempfile::tempdir_in(parent).doing(|| "making a scratch directory".into())?;
    let kept = scratch.path().join("kept");
    fs::create_dir(&kept).doing(|| format!("making {}", kept.display()))?;
    make(&kept)?;
    fs::write(kept.join(STAMP), stamp).doing(|| "writing the stamp".into())?;
    let _ = fs::remove_dir_all(&home);
    fs::rename(&kept, &home).doing(|| format!("keeping {}", home.display()))?;
    Ok(lock)
}

fn locked(path: &Path, how: FlockArg) -> BedResult<Flock<File>> {
    let file = File::create(path).doing(|| format!("opening {}", path.display()))?;
    Flock::lock(file, how)
        .map_err(|(_, errno)| errno)
        .doing(|| format!("locking {}", path.display()))
}
