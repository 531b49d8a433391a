//! The initramfs format: "new ASCII" cpio, `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{BedResult, Context};

/// Writes everything below `tree` as an archive, owned by root.
pub(super) fn write_tree(tree: &Path, archive: &Path) -> BedResult<()> {
    let file = File::create(archive).doing(|| format!("creating {}", archive.display()))?;
    append_tree(tree, file).doing(|| format!("archiving {}", tree.display()))
}

/// Writes an archive of `tree` at the end of `file`: the kernel takes several in a row.
pub(super) fn append_tree(tree: &Path, file: File) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    let mut paths = Vec::new();
    list(tree, &mut paths)?;
    for (number, path) in (1u32..).zip(&paths) {
        let name = path.strip_prefix(tree).unwrap_or(path);
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        let content = if kind.is_symlink() {
            fs::read_link(path)?.as_os_str().as_bytes().to_vec()
        } else if kind.is_file() {
            fs::read(path)?
        } else {
            Vec::new()
        };
        if !kind.is_socket() {
            entry(
                &mut out,
                number,
                metadata.mode(),
                name.as_os_str().as_bytes(),
                &content,
            )?;
        }
    }
    entry(&mut out, 0, 0, b"TRAILER!!!", &[])?;
    out.flush()
}

/// Directories before what is in them.
fn list(dir: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    let mut below: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    below.sort();
    for path in below {
        paths.push(path.clone());
        if fs::symlink_metadata(&path)?.is_dir() {
            list(&path, paths)?;
        }
    }
    Ok(())
}

fn entry(out: &mut impl Write, ino: u32, mode: u32, name: &[u8], content: &[u8]) -> io::Result<()> {
    let size = u32::try_from(content.len()).map_err(io::Error::other)?;
    let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    write!(out, "070701")?;
    // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    for field in [ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name)?;
    out.write_all(b"\0")?;
    pad(out, 110 + name.len() + 1)?;
    out.write_all(content)?;
    pad(out, content.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    let zeros = [0u8; 3];
    out.write_all(zeros.get(..(4 - written % 4) % 4).unwrap_or_default())
}
