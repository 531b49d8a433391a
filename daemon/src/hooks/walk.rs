//! The way to a file, component by component, as sshd's secure-path check goes it: who could put another file in its place.
//!
//! Each component is opened below the one before and looked at through its descriptor, so what was looked at is what leads on. Where a symbolic
//! link leads is gone in the same way. A sticky directory is as bad as another: whoever owns something in it may put a directory there.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

/// As the kernel follows in one look-up (`MAXSYMLINKS`, include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// What a path leads to.
#[derive(Debug)]
pub(super) struct Walked {
    /// Opened as a place (`O_PATH`): neither read nor written.
    pub(super) file: File,
    /// Its path without symbolic links.
    pub(super) real: PathBuf,
    /// The first component that somebody else could change.
    pub(super) exposed: Option<Exposed>,
}

/// A component that others than the owner decide about.
#[derive(Debug)]
pub(super) struct Exposed {
    pub(super) place: PathBuf,
    pub(super) how: Exposure,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exposure {
    /// It belongs to this user.
    Owner(u32),
    /// Group or others may write to it.
    Writable,
}

/// Goes `path` from `/` on. What lies above `top` is believed.
///
/// # Errors
/// What the kernel says to a component.
pub(super) fn walk(path: &Path, owner: u32, top: &Path) -> io::Result<Walked> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut exposed = None;
    let mut look = |file: &File, place: &Path| -> io::Result<()> {
        let is_above = place != top && top.starts_with(place);
        if exposed.is_none() && !is_above {
            exposed = exposure(file, owner)?.map(|how| Exposed {
                place: place.to_owned(),
                how,
            });
        }
        Ok(())
    };
    let root = File::from(open("/", flags, Mode::empty())?);
    look(&root, Path::new("/"))?;
    let mut way = vec![(root, PathBuf::from("/"))];
    let mut left: VecDeque<OsString> = VecDeque::new();
    prepend(&mut left, &std::path::absolute(path)?);
    let mut links = 0;
    while let Some(component) = left.pop_front() {
        let Some((directory, place)) = way.last() else {
            return Err(Errno::ENOENT.into());
        };
        if component == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let file = File::from(openat(
            directory,
            component.as_os_str(),
            flags,
            Mode::empty(),
        )?);
        if file.metadata()?.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP.into());
            }
            // Nobody can rewrite a link, not even its owner: only whoever may write to its directory replaces it.
            let target = PathBuf::from(readlinkat(&file, OsStr::new(""))?);
            if target.is_absolute() {
                way.truncate(1);
            }
            prepend(&mut left, &target);
            continue;
        }
        let place = place.join(&component);
        look(&file, &place)?;
        way.push((file, place));
    }
    let (file, real) = way.pop().ok_or(Errno::ENOENT)?;
    Ok(Walked {
        file,
        real,
        exposed,
    })
}

/// The components of `path` come before what is left.
fn prepend(left: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => left.push_front(name.to_owned()),
            Component::ParentDir => left.push_front("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

fn exposure(file: &File, owner: u32) -> io::Result<Option<Exposure>> {
    let metadata = file.metadata()?;
    Ok(if metadata.uid() != owner {
        Some(Exposure::Owner(metadata.uid()))
    } else if metadata.mode() & 0o022 != 0 {
        Some(Exposure::Writable)
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_where_the_kernel_says_they_do() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir(top.join("c")).unwrap();
        fs::write(top.join("c/file"), "").unwrap();
        symlink("../../c", top.join("a/b/up")).unwrap();
        symlink(top.join("a/b/up/./file"), top.join("absolute")).unwrap();
        symlink("absolute", top.join("chain")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        symlink("nowhere", top.join("dangling")).unwrap();
        let names = ["c/file", "a/b/up/file", "absolute", "chain", "a/../chain"];
        for name in names {
            let walked = walk(&top.join(name), 0, &top).unwrap();
            assert_eq!(walked.real, top.join("c/file"), "{name}");
            let (found, expected) = (
                walked.file.metadata().unwrap(),
                fs::metadata(top.join(name)).unwrap(),
            );
            assert_eq!((found.dev(), found.ino()), (expected.dev(), expected.ino()));
        }
        for (name, errno) in [
            ("loop", Errno::ELOOP),
            ("dangling", Errno::ENOENT),
            ("c/file/below", Errno::ENOTDIR),
        ] {
            let error = walk(&top.join(name), 0, &top).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno as i32), "{name}");
        }
    }
}
