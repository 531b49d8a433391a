//! Scratch images: which file systems this machine can make, and the files they are made in.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::DemoError;
use super::outside::Outside;
use super::screen::Screen;

/// A kind of file system that the demo knows how to make and check.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) fstype: &'static str,
    /// The smallest its mkfs accepts with room to write, in MiB.
    megabytes: u64,
    mkfs: &'static [&'static str],
    package: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind {
        fstype: "ext4",
        megabytes: 64,
        mkfs: &["mkfs.ext4", "-q", "-F"],
        package: "e2fsprogs",
    },
    Kind {
        fstype: "xfs",
        megabytes: 320,
        mkfs: &["mkfs.xfs", "-q", "-f"],
        package: "xfsprogs",
    },
    Kind {
        fstype: "btrfs",
        megabytes: 128,
        mkfs: &["mkfs.btrfs", "-q", "-f"],
        package: "btrfs-progs",
    },
];

/// A file with a fresh file system in it, and two files for copies of it; open, because the paths are out of sight
/// once the demo has gone into its own namespace.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) fstype: &'static str,
    pub(super) file: File,
    pub(super) held: Copy,
    pub(super) running: Copy,
}

/// Where a copy goes.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

/// Makes an image of each kind whose mkfs is installed.
pub(super) fn make_all(outside: &Outside, screen: &Screen) -> Result<Vec<Image>, DemoError> {
    screen.phase("Scratch disks");
    let mut images = Vec::new();
    for kind in &KINDS {
        let Some((name, arguments)) = kind.mkfs.split_first() else {
            continue;
        };
        let Some(program) = outside.find(name) else {
            screen.skipped(
                kind.fstype,
                &format!("{name} is not installed (package {})", kind.package),
            );
            continue;
        };
        images.push(make(outside, kind, &program, arguments)?);
    }
    if images.is_empty() {
        return Err(DemoError::new(
            "no mkfs is installed: install e2fsprogs, xfsprogs or btrfs-progs",
        ));
    }
    Ok(images)
}

fn make(
    outside: &Outside,
    kind: &Kind,
    program: &Path,
    arguments: &[&str],
) -> Result<Image, DemoError> {
    let path = outside.directory().join(format!("{}.img", kind.fstype));
    let file = create(&path)?;
    file.set_len(kind.megabytes << 20)
        .map_err(|error| DemoError::because(format!("{} cannot be made", path.display()), error))?;
    let text = path.to_string_lossy();
    let mut arguments = arguments.to_vec();
    arguments.push(&text);
    let output = outside.run(program, &arguments)?;
    if !output.status.success() {
        return Err(DemoError::new(format!(
            "{} failed: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr)
                .trim()
                .replace('\n', "; ")
        )));
    }
    let copy = |suffix: &str| {
        let path = path.with_extension(suffix);
        Ok::<_, DemoError>(Copy {
            file: create(&path)?,
            path,
        })
    };
    Ok(Image {
        fstype: kind.fstype,
        file,
        held: copy("held.img")?,
        running: copy("running.img")?,
    })
}

fn create(path: &Path) -> Result<File, DemoError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| DemoError::because(format!("{} cannot be made", path.display()), error))
}
