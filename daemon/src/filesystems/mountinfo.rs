//! The mount table as the kernel writes it: `/proc/PID/mountinfo` (`man 5 proc`; `show_mountinfo` in fs/proc_namespace.c). Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::device::DeviceNumber;
use super::text::excerpt;

/// How much of an unreadable line an error shows, in characters.
const EXCERPT: usize = 160;

/// One mount: one line of mountinfo, its octal escapes undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount's id, as `statx` gives it in `stx_mnt_id`; the kernel gives it out again after an unmount.
    pub id: u64,
    /// The id of the mount this one lies on; of no mount in the table for the topmost one.
    pub parent: u64,
    /// The superblock.
    pub dev: DeviceNumber,
    /// Which part of the file system is mounted: `/` for all of it; ends in `//deleted` if that was removed since.
    pub root: PathBuf,
    /// Where, as seen from the root directory of the process that read the table.
    pub mount_point: PathBuf,
    /// Options of this mount, such as `ro` of a read-only bind mount; commas and escapes as the kernel wrote them.
    pub options: OsString,
    /// The file system's type, with a subtype as in `fuse.sshfs`.
    pub fstype: String,
    /// What was mounted: a device's path, a server's name, anything; may be empty.
    pub source: OsString,
    /// Options of the superblock, shared by all of its mounts; commas and escapes as the kernel wrote them.
    pub super_options: OsString,
}

impl Mount {
    /// Whether the superblock, not only this mount of it, is read-only.
    #[must_use]
    pub fn superblock_is_read_only(&self) -> bool {
        first_option(self.super_options.as_bytes()) == b"ro"
    }

    /// The value of `name=value` among the superblock's options, its escapes undone.
    #[must_use]
    pub fn super_option(&self, name: &str) -> Option<OsString> {
        self.super_options
            .as_bytes()
            .split(|byte| *byte == b',')
            .find_map(|option| option.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
            .map(unescape)
    }

    fn parse(line: &[u8]) -> Result<Self, Fault> {
        let mut rest = Some(line);
        let mut field = || {
            let text = rest?;
            let end = text.iter().position(|byte| *byte == b' ');
            rest = end.and_then(|end| text.get(end + 1..));
            end.map_or(Some(text), |end| text.get(..end))
        };
        let id = number(field()).ok_or(Fault::Id)?;
        let parent = number(field()).ok_or(Fault::Id)?;
        let dev = field()
            .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
            .ok_or(Fault::Device)?;
        let root = field().filter(|text| !text.is_empty()).ok_or(Fault::Root)?;
        let mount_point = field()
            .filter(|text| text.starts_with(b"/"))
            .ok_or(Fault::MountPoint)?;
        let options = field().ok_or(Fault::Options)?;
        while field().ok_or(Fault::Separator)? != b"-" {}
        let fstype = field().filter(|text| !text.is_empty()).ok_or(Fault::Type)?;
        let source = field().ok_or(Fault::Source)?;
        let super_options = rest.ok_or(Fault::SuperOptions)?;
        if !matches!(first_option(super_options), b"ro" | b"rw") {
            return Err(Fault::SuperOptions);
        }
        Ok(Self {
            id,
            parent,
            dev,
            root: unescape(root).into(),
            mount_point: unescape(mount_point).into(),
            options: OsStr::from_bytes(options).to_owned(),
            fstype: unescape(fstype).to_string_lossy().into_owned(),
            source: unescape(source),
            super_options: OsStr::from_bytes(super_options).to_owned(),
        })
    }
}

/// A line of mountinfo that could not be read. There is no way to skip it: the file system it names would be written to during the hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} of the mount table cannot be read ({fault}): \"{excerpt}\"; nothing is frozen, because a file system could be missed"
)]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
    /// The beginning of the line, safe to print.
    pub excerpt: String,
}

/// What is wrong with a line of mountinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Field 1 or 2.
    #[error("the mount's ids are not numbers")]
    Id,
    /// Field 3.
    #[error("the device is not of the form MAJOR:MINOR")]
    Device,
    /// Field 4.
    #[error("the root within the file system is missing")]
    Root,
    /// Field 5.
    #[error("the mount point is not an absolute path")]
    MountPoint,
    /// Field 6.
    #[error("the mount's options are missing")]
    Options,
    /// The `-` that ends the optional fields.
    #[error("the separator \"-\" is missing")]
    Separator,
    /// First field after the separator.
    #[error("the file system's type is missing")]
    Type,
    /// Second field after the separator.
    #[error("the source is missing")]
    Source,
    /// Third field after the separator.
    #[error("the file system's options do not begin with ro or rw")]
    SuperOptions,
    /// The table does not end in a line feed.
    #[error("it is cut off")]
    CutOff,
}

/// All mounts of a table, in its order; linear in its length.
///
/// # Errors
/// The first line that is not as the kernel writes it. No line is ever skipped.
pub fn parse(table: &[u8]) -> Result<Vec<Mount>, ParseError> {
    let mut mounts = Vec::new();
    for (index, line) in table.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let mount = match line.strip_suffix(b"\n") {
            Some(line) => Mount::parse(line),
            None => Err(Fault::CutOff),
        };
        mounts.push(mount.map_err(|fault| ParseError {
            line: index + 1,
            fault,
            excerpt: excerpt(line.trim_ascii_end(), EXCERPT),
        })?);
    }
    Ok(mounts)
}

/// The superblock and the mount point, its escapes not undone, of each line: enough to see whether a table tells anything new. `None` for a line that
/// [`parse`] refuses.
pub(crate) fn skim(table: &[u8]) -> impl Iterator<Item = Option<(DeviceNumber, &[u8])>> {
    table.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let mut fields = line.strip_suffix(b"\n")?.split(|byte| *byte == b' ');
        let dev = std::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
        Some((dev, fields.nth(1)?))
    })
}

fn first_option(options: &[u8]) -> &[u8] {
    options
        .split(|byte| *byte == b',')
        .next()
        .unwrap_or_default()
}

fn number(text: Option<&[u8]>) -> Option<u64> {
    let text = text.filter(|text| text.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Undoes `mangle()` and `seq_escape()`: a backslash and three octal digits are one byte, any other backslash is itself.
pub fn unescape(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
#[path = "mountinfo_tests.rs"]
mod tests;
