//! Files inside an image, read without mounting it: no recovery can happen on the way.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::command::{find, output, run};
use crate::error::{BedError, BedResult, Context};
use crate::guest::FsKind;
use crate::writer::{RECORDS, whole_records};

/// How many of the writer's records are whole in the image, from the first on.
///
/// # Errors
/// The image cannot be read.
pub fn records(kind: FsKind, image: &Path) -> BedResult<u64> {
    Ok(whole_records(&extract(kind, image, RECORDS)?))
}

/// The content of a file at the top of the file system in an image; empty if there is none.
///
/// # Errors
/// The image cannot be read, or reading this kind is not supported.
pub fn extract(kind: FsKind, image: &Path, file: &str) -> BedResult<Vec<u8>> {
    match kind {
        FsKind::Ext4 => {
            let mut debugfs = Command::new(tool("debugfs")?);
            debugfs.arg("-R").arg(format!("cat /{file}")).arg(image);
            Ok(output(&mut debugfs)?.stdout)
        }
        FsKind::Btrfs => {
            let to = tempfile::tempdir().doing(|| "making a directory".into())?;
            let mut restore = Command::new(tool("btrfs")?);
            restore.args(["restore", "--path-regex", &format!("^/(|{file})$")]);
            run(restore.arg(image).arg(to.path()))?;
            match std::fs::read(to.path().join(file)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
                content => content.doing(|| format!("reading {file} of {}", image.display())),
            }
        }
        FsKind::Xfs => xfs(image, file),
        other => Err(BedError::Setup(format!(
            "reading files of {} is not supported",
            other.name()
        ))),
    }
}

fn tool(program: &str) -> BedResult<std::path::PathBuf> {
    find(program).ok_or_else(|| {
        BedError::Setup(format!(
            "this machine lacks {program}: tests/run as root installs it"
        ))
    })
}

/// Reads a file by the extents that xfs_db lists for it.
fn xfs(image: &Path, file: &str) -> BedResult<Vec<u8>> {
    let mut db = Command::new(tool("xfs_db")?);
    db.args(["-r", "-c", "sb 0", "-c", "p blocksize agblocks"]);
    db.args([
        "-c",
        &format!("path /{file}"),
        "-c",
        "p core.size",
        "-c",
        "bmap",
    ]);
    let text = run(db.arg(image))?;
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.and_then(|number| number.trim().parse::<u64>().ok())
    };
    let broken = || BedError::Setup(format!("cannot make sense of xfs_db: {text}"));
    let (block, ag) = (
        field("blocksize").ok_or_else(broken)?,
        field("agblocks").ok_or_else(broken)?,
    );
    let Some(size) = field("core.size") else {
        return Ok(Vec::new());
    };
    let image = File::open(image).doing(|| format!("opening {}", image.display()))?;
    let mut content = vec![0; usize::try_from(size).map_err(|_| broken())?];
    for extent in text.lines().filter(|line| line.starts_with("data offset")) {
        let numbers: Vec<u64> = extent
            .split(|c: char| !c.is_ascii_digit())
            .flat_map(str::parse)
            .collect();
        // data offset OFFSET startblock LINEAR (AG/BLOCK) count COUNT flag FLAG
        let [offset, _, agno, agblock, count, ..] = numbers.as_slice() else {
            return Err(broken());
        };
        let from = usize::try_from(offset * block).map_err(|_| broken())?;
        let to = usize::try_from((offset + count) * block).map_err(|_| broken())?;
        let to = to.min(content.len());
        if let Some(part) = content.get_mut(from..to) {
            image
                .read_exact_at(part, (agno * ag + agblock) * block)
                .doing(|| "reading an extent".into())?;
        }
    }
    Ok(content)
}

/// Whether a text lies anywhere in an image, within one block of it.
///
/// # Errors
/// The image cannot be read.
pub fn contains(image: &Path, text: &str) -> BedResult<bool> {
    let file = File::open(image).doing(|| format!("opening {}", image.display()))?;
    let mut reader = BufReader::new(file);
    let mut block = vec![0; 1 << 20];
    let needle = text.as_bytes();
    loop {
        let got = reader
            .read(&mut block)
            .doing(|| format!("reading {}", image.display()))?;
        let Some(read @ [_, ..]) = block.get(..got) else {
            return Ok(false);
        };
        if read.windows(needle.len()).any(|window| window == needle) {
            return Ok(true);
        }
    }
}
