//! What the workload in the guest writes, known to both sides.

/// The file of a writer in the directory it was given.
pub const RECORDS: &str = "records";

/// Length of a record in bytes.
pub const RECORD_LEN: usize = 128;

/// Record `number`: the number, then padding that depends on it, then a newline.
#[must_use]
pub fn record(number: u64) -> String {
    let fill = char::from(b'a' + u8::try_from(number % 26).unwrap_or(0));
    let mut text = format!("{number:020} ");
    text.extend(std::iter::repeat_n(fill, RECORD_LEN - 22));
    text.push('\n');
    text
}

/// How many records, from the first on, are whole in a file's content.
#[must_use]
pub fn whole_records(content: &[u8]) -> u64 {
    let numbered = (1u64..).zip(content.chunks(RECORD_LEN));
    let whole = numbered.take_while(|(number, chunk)| *chunk == record(*number).as_bytes());
    whole.map(|(number, _)| number).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_up_to_the_first_that_is_not_whole() {
        let mut content: String = (1..=5).map(record).collect();
        assert_eq!(record(5).len(), RECORD_LEN);
        assert_eq!(whole_records(content.as_bytes()), 5);
        content.replace_range(3 * RECORD_LEN + 30..3 * RECORD_LEN + 31, "\0");
        assert_eq!(whole_records(content.as_bytes()), 3);
    }
}
