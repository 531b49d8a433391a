//! Files of the service's own directory: what agent, guardian, commands and the next start tell each other.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes the directory that `path` is in, for root alone; one that is there stays as it is.
///
/// # Errors
/// What the kernel says.
pub fn make_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory),
        None => Ok(()),
    }
}

/// Puts a new file in place of the one at `path`, for root alone: whoever has the old one open keeps what it said.
///
/// # Errors
/// What the kernel says; the file that was there stays then.
pub fn replace(path: &Path, text: &str) -> io::Result<File> {
    make_directory_of(path)?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_for_root_alone_and_the_old_one_keeps_its_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/ledger");
        let old = replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        let reopened = format!("/proc/self/fd/{}", old.as_raw_fd());
        assert_eq!(fs::read_to_string(reopened).unwrap(), "one");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
