//! Load for measurements: a file of dirty pages, a stream of them, and a probe that times
//! every small write. What they report goes to the initramfs, never to the disk under test.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::clock::now;

/// Between two operations of a probe.
const PAUSE: Duration = Duration::from_millis(3);

/// An operation that took longer is written down.
const SLOW: u64 = 2_000_000;

/// Every so many appends a new file is made.
const APPENDS: u64 = 8;

const CHUNK: usize = 65536;

/// Appends a little, now and then makes a file, syncs nothing, until it is killed.
/// `FILE.slow` gets a line for each slow operation: start and end; `FILE.beat` the end of the last operation.
pub(crate) fn probe(directory: &str, file: &str) -> Outcome {
    let directory = Path::new(directory);
    let mut slow = File::create(format!("{file}.slow"))?;
    let beat = File::create(format!("{file}.beat"))?;
    let files = directory.join(format!("probe.{}", std::process::id()));
    std::fs::create_dir(&files)?;
    let mut appended = File::create(files.join("appended"))?;
    let mut number = 0u64;
    loop {
        number += 1;
        let started = now()?;
        if number % APPENDS == 0 {
            // None is removed: that waits for the file's own pages under any write-back.
            let path = files.join(number.to_string());
            File::create(path)?.write_all(&[b'n'; 512])?;
        } else {
            appended.write_all(&[b'a'; 200])?;
        }
        let ended = now()?;
        if ended - started > SLOW {
            writeln!(slow, "{started} {ended}")?;
        }
        beat.write_all_at(format!("{ended:20}\n").as_bytes(), 0)?;
        std::thread::sleep(PAUSE);
    }
}

/// Writes a new file of `bytes` and syncs nothing.
pub(crate) fn dirty(file: &str, bytes: &str) -> Outcome {
    let mut left: usize = bytes.parse()?;
    let mut file = File::create(file)?;
    let chunk = vec![b'd'; CHUNK];
    while left > 0 {
        let part = chunk.get(..left.min(CHUNK)).unwrap_or_default();
        file.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

/// Writes `rate` bytes a second, over and over the same `bytes` of a file, until it is killed.
pub(crate) fn stream(file: &str, rate: &str, bytes: &str) -> Outcome {
    let (rate, bytes): (f64, u64) = (rate.parse()?, bytes.parse()?);
    let mut file = File::create(file)?;
    let chunk = vec![b's'; CHUNK];
    let pause = Duration::from_secs_f64(chunk.len() as f64 / rate);
    let mut due = Instant::now();
    loop {
        if file.stream_position()? >= bytes {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&chunk)?;
        due = (due + pause).max(Instant::now() - pause * 16);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Makes and unmakes small files as fast as it can, until it is killed.
pub(crate) fn small_files(directory: &str) -> Outcome {
    let directory = Path::new(directory);
    for number in 0u64.. {
        let dir = directory.join(format!("d{}", number % 7));
        std::fs::create_dir_all(&dir)?;
        let old = dir.join(format!("f{}", number % 1000));
        let new = dir.join(format!("g{}", number % 1000));
        std::fs::write(&old, vec![b'f'; usize::try_from(number * 977 % 16384)?])?;
        match number % 4 {
            0 => std::fs::rename(&old, &new)?,
            1 => std::fs::remove_file(&old)?,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
