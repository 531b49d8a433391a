//! What a hook writes: its beginning and its end are kept, the rest is counted.

use std::collections::VecDeque;

const HEAD: usize = 1024;
const TAIL: usize = 3072;

/// The output of one call, at most 4 KiB of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Output {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    /// The bytes that were not kept.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What was kept, line by line, safe to write to a log.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let mut text = readable(&self.head);
        if self.dropped > 0 {
            text.push_str(&format!("\n[{} bytes left out]\n", self.dropped));
        }
        let (front, back) = self.tail.as_slices();
        text.push_str(&readable(&[front, back].concat()));
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.trim_end().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        lines.into_iter()
    }
}

/// Control characters could forge lines, or drive the terminal of whoever reads the log.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = |char: char| char == '\n' || char == '\t' || !char.is_control();
    text.chars()
        .filter(|char| *char != '\r')
        .map(|char| if plain(char) { char } else { '\u{fffd}' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept_of_a_flood() {
        let mut output = Output::default();
        output.push(b"first\n");
        for _ in 0..100_000 {
            output.push(b"flood\n");
        }
        output.push(b"last\n");
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines.first().unwrap(), "first");
        assert_eq!(lines.last().unwrap(), "last");
        assert_eq!(output.dropped(), 600_011 - 4096);
        assert!(output.head.len() + output.tail.len() <= 4096);
    }

    #[test]
    fn little_output_is_whole_and_harmless() {
        let mut output = Output::default();
        output.push(b"one\r\n\n\x1b[31mtwo\xff\n");
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines, ["one", "\u{fffd}[31mtwo\u{fffd}"]);
        assert_eq!(output.dropped(), 0);
    }
}
