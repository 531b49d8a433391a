//! The mount table as the kernel writes it: `/proc/PID/mountinfo` (`man 5 proc`; `show_mountinfo` in fs/proc_namespace.c). Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::device::DeviceNumber;
use super::kinds::Kind;
use super::mount_table::{Line, MountTable, Span, Types};
use super::text::excerpt;

/// How much of an unreadable line an error shows, in characters.
const EXCERPT: usize = 160;

/// One mount: one line of mountinfo, its octal escapes undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount<'a> {
    /// The mount's id, as `statx` gives it in `stx_mnt_id`; the kernel gives it out again after an unmount.
    pub id: u64,
    /// The id of the mount this one lies on; of no mount in the table for the topmost one.
    pub parent: u64,
    /// The superblock.
    pub dev: DeviceNumber,
    /// Which part of the file system is mounted: `/` for all of it; ends in `//deleted` if that was removed since.
    pub root: &'a Path,
    /// Where, as seen from the root directory of the process that read the table.
    pub mount_point: &'a Path,
    /// Options of this mount, such as `ro` of a read-only bind mount; commas and escapes as the kernel wrote them.
    pub options: &'a OsStr,
    /// The file system's type, with a subtype as in `fuse.sshfs`.
    pub fstype: &'a str,
    /// What was mounted: a device's path, a server's name, anything; may be empty.
    pub source: &'a OsStr,
    /// Options of the superblock, shared by all of its mounts; commas and escapes as the kernel wrote them.
    pub super_options: &'a OsStr,
}

impl Mount<'_> {
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
    /// Last field after the separator.
    #[error("the file system's options do not begin with ro or rw")]
    SuperOptions,
    /// The table does not end in a line feed.
    #[error("it is cut off")]
    CutOff,
    /// The table has 4 GiB or more.
    #[error("the table is too long")]
    TooLong,
}

/// All mounts of a table, in its order; linear in its length.
///
/// # Errors
/// The first line that is not as the kernel writes it. No line is ever skipped.
pub fn parse(table: &[u8]) -> Result<MountTable, ParseError> {
    parse_owned(table.to_owned())
}

/// [`parse`] without a copy.
///
/// # Errors
/// As [`parse`].
pub fn parse_owned(mut text: Vec<u8>) -> Result<MountTable, ParseError> {
    let mut lines = Vec::new();
    let mut types = Types::default();
    let mut start = 0;
    while start < text.len() {
        let line = match u32::try_from(text.len()) {
            Ok(_) => parse_line(&mut text, &mut types, start),
            Err(_) => Err(Fault::TooLong),
        };
        match line {
            Ok((line, next)) => {
                lines.push(line);
                start = next;
            }
            Err(fault) => {
                let rest = text.get(start..).unwrap_or_default();
                let end = rest.iter().position(|byte| *byte == b'\n');
                let line = end.and_then(|end| rest.get(..end));
                return Err(ParseError {
                    line: lines.len() + 1,
                    fault: line.map_or(Fault::CutOff, |_| fault),
                    excerpt: excerpt(line.unwrap_or(rest).trim_ascii_end(), EXCERPT),
                });
            }
        }
    }
    Ok(MountTable::new(text, lines, types))
}

/// The line that begins at `start`, and where the next one does. Escapes are undone where they stand: what they stand for is shorter.
fn parse_line(text: &mut [u8], types: &mut Types, start: usize) -> Result<(Line, usize), Fault> {
    let mut fields = Fields {
        text,
        at: start,
        ended: false,
        escaped: false,
    };
    let id = fields.next().and_then(number).ok_or(Fault::Id)?;
    let parent = fields.next().and_then(number).ok_or(Fault::Id)?;
    let dev = fields.next().and_then(device).ok_or(Fault::Device)?;
    let mut root = fields
        .span()
        .filter(|span| span.len() > 0)
        .ok_or(Fault::Root)?;
    let mut mount_point = fields
        .span()
        .filter(|span| fields.text.get(span.start as usize) == Some(&b'/') && span.len() > 0)
        .ok_or(Fault::MountPoint)?;
    let options = fields.span().ok_or(Fault::Options)?;
    while fields.next().ok_or(Fault::Separator)? != b"-" {}
    let fstype = fields
        .next()
        .filter(|text| !text.is_empty())
        .ok_or(Fault::Type)?;
    let is_never_frozen = is_never_frozen(fstype);
    let fstype = types.place(fstype, |text| unescape(text).to_string_lossy().into_owned());
    let start = fields.at;
    let mut source = fields.span().ok_or(Fault::Source)?;
    let mut super_options = fields.rest().ok_or(Fault::SuperOptions);
    let shown = super_options.map_or(&b""[..], |span| fields.bytes(span));
    if !matches!(first_option(shown), b"ro" | b"rw") {
        if !is_never_frozen || !fields.ended {
            return Err(Fault::SuperOptions);
        }
        // An older ZFS writes the name of a data set as it is, blanks and all; a source like that must not keep all others from being frozen.
        let all = span(start, fields.at.saturating_sub(1)).ok_or(Fault::Source)?;
        let length = source_length(fields.bytes(all));
        let end = start + length;
        source = span(start, end).ok_or(Fault::Source)?;
        super_options =
            span((end + 1).min(all.end as usize), all.end as usize).ok_or(Fault::SuperOptions);
    }
    let super_options = super_options?;
    let next = fields.at;
    if fields.escaped {
        for span in [&mut root, &mut mount_point, &mut source] {
            unescape_in_place(text, span);
        }
    }
    let line = Line {
        id,
        parent,
        dev,
        fstype,
        root,
        mount_point,
        options,
        source,
        super_options,
    };
    Ok((line, next))
}

/// Whether, whatever else the line says, nothing of this type is ever frozen. Without a list of the kernel's types, so only if its name alone tells.
fn is_never_frozen(fstype: &[u8]) -> bool {
    std::str::from_utf8(fstype).is_ok_and(|name| Kind::of(name, |_| false) != Kind::Freezable)
}

/// How much of `source options` is the source: up to the last blank before `ro` or `rw`, or else before anything.
fn source_length(text: &[u8]) -> usize {
    let blanks = || (0..text.len()).filter(|at| text.get(*at) == Some(&b' '));
    let begins_options = |at: &usize| {
        let rest = text.get(at + 1..).unwrap_or_default();
        matches!(first_option(rest), b"ro" | b"rw")
    };
    let options = blanks().rfind(begins_options);
    options
        .or_else(|| blanks().next_back())
        .unwrap_or(text.len())
}

/// Fields with one space between, up to the end of the line. A line that does not end has no last field.
struct Fields<'a> {
    text: &'a [u8],
    at: usize,
    ended: bool,
    /// A backslash was met.
    escaped: bool,
}

impl<'a> Fields<'a> {
    // The innermost loop of the whole scan: worth its bytes in a program that is otherwise built for size.
    #[inline(always)]
    fn up_to(&mut self, separator: u8) -> Option<Span> {
        if self.ended {
            return None;
        }
        let start = self.at;
        for (length, byte) in self.text.get(start..)?.iter().enumerate() {
            if *byte == separator || *byte == b'\n' {
                self.ended = *byte == b'\n';
                self.at = start + length + 1;
                return span(start, start + length);
            }
            self.escaped |= *byte == b'\\';
        }
        None
    }

    fn span(&mut self) -> Option<Span> {
        self.up_to(b' ')
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        self.span().map(|span| self.bytes(span))
    }

    fn rest(&mut self) -> Option<Span> {
        self.up_to(b'\n')
    }

    fn bytes(&self, span: Span) -> &'a [u8] {
        let range = span.start as usize..span.end as usize;
        self.text.get(range).unwrap_or_default()
    }
}

fn span(start: usize, end: usize) -> Option<Span> {
    Some(Span {
        start: u32::try_from(start).ok()?,
        end: u32::try_from(end).ok()?,
    })
}

/// The superblock and the mount point, its escapes not undone, of each line: enough to see whether a table tells anything new. `None` for a line that
/// [`parse`] refuses.
pub(crate) fn skim(table: &[u8]) -> impl Iterator<Item = Option<(DeviceNumber, &[u8])>> {
    table.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let mut fields = line.strip_suffix(b"\n")?.split(|byte| *byte == b' ');
        let dev = device(fields.nth(2)?)?;
        Some((dev, fields.nth(1)?))
    })
}

fn first_option(options: &[u8]) -> &[u8] {
    options
        .split(|byte| *byte == b',')
        .next()
        .unwrap_or_default()
}

/// Digits alone, and at least one.
fn number(text: &[u8]) -> Option<u64> {
    let (first, rest) = text.split_first()?;
    rest.iter().try_fold(digit(*first)?, |number, byte| {
        number.checked_mul(10)?.checked_add(digit(*byte)?)
    })
}

fn digit(byte: u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte - b'0'))
}

fn device(text: &[u8]) -> Option<DeviceNumber> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    let part = |text: Option<&[u8]>| u32::try_from(number(text?)?).ok();
    Some(DeviceNumber::new(
        part(text.get(..colon))?,
        part(text.get(colon + 1..))?,
    ))
}

/// Undoes `mangle()` and `seq_escape()`: a backslash and three octal digits are one byte, any other backslash is itself.
#[must_use]
pub fn unescape(text: &[u8]) -> OsString {
    let mut text = text.to_owned();
    let length = undo_escapes(&mut text);
    text.truncate(length);
    OsString::from_vec(text)
}

fn unescape_in_place(text: &mut [u8], span: &mut Span) {
    if let Some(field) = text.get_mut(span.start as usize..span.end as usize) {
        let length = u32::try_from(undo_escapes(field)).unwrap_or(span.len());
        span.end = span.start + length;
    }
}

/// The length of what is left.
fn undo_escapes(text: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    while let Some(rest @ [byte, ..]) = text.get(from..) {
        let (byte, taken) = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), 4)
            }
            _ => (*byte, 1),
        };
        if let Some(place) = text.get_mut(to) {
            *place = byte;
        }
        from += taken;
        to += 1;
    }
    to
}

#[cfg(test)]
#[path = "mountinfo_tests.rs"]
mod tests;
