//! Structured records for systemd's journal, in its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the journal takes records; the socket is systemd's own, and survives a restart of the journal.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Longer records would have to be handed over in a file.
const MOST_BYTES: usize = 32 * 1024;

/// A connection to the journal. Nothing is ever waited for, and no path is looked up after the start.
#[derive(Debug)]
pub struct Journal(UnixDatagram);

impl Journal {
    /// Connects to the journal at `socket`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let datagram = UnixDatagram::unbound()?;
        datagram.set_nonblocking(true)?;
        datagram.connect(socket)?;
        Ok(Self(datagram))
    }

    /// Sends one record of these fields.
    ///
    /// # Errors
    /// What the kernel says: `WouldBlock` when the journal takes none at the moment. The record is lost then.
    pub fn send(&self, fields: &[(&str, String)]) -> io::Result<()> {
        let record = encode(fields);
        if record.len() > MOST_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.send(&record).map(drop)
    }
}

/// `NAME=value`, or for a value of several lines `NAME`, its length in 8 bytes and the value; each with a line feed.
fn encode(fields: &[(&str, String)]) -> Vec<u8> {
    let mut record = Vec::new();
    for (name, value) in fields {
        record.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            record.push(b'\n');
            record.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            record.push(b'=');
        }
        record.extend_from_slice(value.as_bytes());
        record.push(b'\n');
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_datagram_and_line_feeds_cannot_forge_a_field() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let theirs = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let fields = [
            ("MESSAGE", "done".to_owned()),
            ("HV_VSSD_FAILURE", "a\nPRIORITY=0".to_owned()),
        ];
        journal.send(&fields).unwrap();
        let mut buffer = [0; 200];
        let length = theirs.recv(&mut buffer).unwrap();
        assert_eq!(
            &buffer[..length],
            b"MESSAGE=done\nHV_VSSD_FAILURE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n"
        );
    }

    #[test]
    fn a_journal_that_takes_nothing_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _theirs = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let fields = [("MESSAGE", "x".repeat(1000))];
        let refused = (0..100_000).find_map(|_| journal.send(&fields).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
