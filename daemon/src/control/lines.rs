//! Lines of bounded length out of a stream of bytes.

/// The longest request: some thousand paths.
pub const MOST_REQUEST: usize = 64 * 1024;

/// The longest reply: the last checkpoints with their file systems.
pub const MOST_REPLY: usize = 16 * 1024 * 1024;

/// What has been received and not been taken as a line.
#[derive(Debug)]
pub struct Lines {
    bytes: Vec<u8>,
    most: usize,
}

/// A line is longer than it may be; nothing after it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {0} bytes")]
pub struct TooLong(usize);

impl Lines {
    /// Nothing received; no line may be longer than `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            most,
        }
    }

    /// How many more bytes there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.most.saturating_sub(self.bytes.len())
    }

    /// Adds what was received.
    ///
    /// # Errors
    /// [`TooLong`], if there is no room for it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > self.room() {
            return Err(TooLong(self.most));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole line, without its end.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        line.pop();
        if self.bytes.is_empty() {
            // An idle connection costs no memory.
            self.bytes = Vec::new();
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_lines_come_out(
            lines in prop::collection::vec("[a-z]{0,20}", 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..50),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let mut received = Lines::new(64);
            let mut got = vec![];
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                received.push(now).unwrap();
                rest = later;
                while let Some(line) = received.take() {
                    got.push(String::from_utf8(line).unwrap());
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, lines);
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_the_bound() {
        let mut lines = Lines::new(10);
        lines.push(b"0123456789").unwrap();
        assert_eq!(lines.take(), None);
        assert_eq!(lines.push(b"0"), Err(TooLong(10)));
    }
}
