//! Bytes from the kernel as text that is safe on a terminal and in a log.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

/// `text` with control characters and bytes that are not UTF-8 written as `\x1b`: a path of a tenant's must not drive an operator's terminal.
#[must_use]
pub fn printable(text: impl AsRef<OsStr>) -> String {
    let mut out = String::new();
    for chunk in text.as_ref().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || is_invisible(c) {
                let _ = write!(out, "{}", c.escape_unicode());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// [`printable`], cut after `limit` characters with `…`.
#[must_use]
pub fn excerpt(text: &[u8], limit: usize) -> String {
    // Four bytes are the longest character; more input than that cannot be shown.
    let head = text.get(..limit.saturating_mul(4)).unwrap_or(text);
    let shown = printable(OsStr::from_bytes(head));
    match shown.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
        None if head.len() < text.len() => format!("{shown}…"),
        None => shown,
    }
}

/// Characters that reorder or hide the text around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A sentence's first letter as a capital.
#[must_use]
pub(crate) fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_drive_the_terminal() {
        let shown = printable(OsStr::from_bytes(b"/mnt/\x1b[2J\n\xff\xc3\xa4"));
        assert_eq!(shown, "/mnt/\\u{1b}[2J\\u{a}\\xffä");
    }

    #[test]
    fn an_excerpt_is_bounded() {
        assert_eq!(excerpt(b"short", 10), "short");
        assert_eq!(excerpt(b"0123456789", 10), "0123456789");
        assert_eq!(excerpt(b"0123456789a", 10), "0123456789…");
        assert!(excerpt(&vec![0xff; 100_000], 80).chars().count() <= 81);
    }
}
