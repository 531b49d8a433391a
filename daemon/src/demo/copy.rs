//! Copying an image, holes left out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Makes `to` the same as `from`.
pub(super) fn sparse(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(0)?;
    to.set_len(length)?;
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    while let Some((start, end)) = next_data(from, position)? {
        position = start;
        while position < end {
            let want = usize::try_from(end - position)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let Some(chunk) = buffer.get_mut(..want) else {
                break;
            };
            let read = from.read_at(chunk, position)?;
            if read == 0 {
                break;
            }
            to.write_all_at(chunk.get(..read).unwrap_or_default(), position)?;
            position += read as u64;
        }
        position = end;
    }
    Ok(())
}

fn next_data(file: &File, position: u64) -> io::Result<Option<(u64, u64)>> {
    let offset = |at: u64| i64::try_from(at).map_err(io::Error::other);
    let start = match lseek(file, offset(position)?, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let end = lseek(file, start, Whence::SeekHole)?;
    let unsigned = |at: i64| u64::try_from(at).map_err(io::Error::other);
    Ok(Some((unsigned(start)?, unsigned(end)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_also_over_what_was_there_before() {
        let from = tempfile::tempfile().unwrap();
        from.set_len(8 << 20).unwrap();
        from.write_all_at(b"start", 0).unwrap();
        from.write_all_at(&[7; 5000], 3 << 20).unwrap();
        let to = tempfile::tempfile().unwrap();
        to.write_all_at(&[1; 1000], 1 << 20).unwrap();
        sparse(&from, &to).unwrap();
        let read = |file: &File| {
            let mut bytes = vec![0; 8 << 20];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(read(&from) == read(&to));
        assert_eq!(to.metadata().unwrap().len(), 8 << 20);
    }
}
