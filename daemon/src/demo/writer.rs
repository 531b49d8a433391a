//! An application on a scratch disk: writes records, and trusts those that were synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::DemoError;
use super::disk::Disk;

/// Bytes of a record: its number in the first eight, and a pattern that depends on it.
pub(super) const RECORD: usize = 4096;

/// Where the records are, below the mount point.
pub(super) const FILE: &str = "records";

/// Every so many records a new file is made as well, to keep the journal busy.
const FILES_EVERY: u64 = 4;

/// Files are made anew from the first after this many.
const MOST_FILES: u64 = 64;

/// Records are written over from the start after this many, so that no disk fills up.
pub(super) const MOST_RECORDS: u64 = 4096;

/// A thread that writes until it is stopped.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    longest_us: AtomicU64,
    stop: AtomicBool,
}

impl Writer {
    pub(super) fn start(disk: &Disk) -> Result<Self, DemoError> {
        let shared = Arc::<Shared>::default();
        let (theirs, directory) = (Arc::clone(&shared), disk.mount_point().to_owned());
        let thread = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write(&directory, &theirs))
            .map_err(|error| DemoError::because("no thread can be started", error))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How many records were synced.
    pub(super) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Measures the longest wait anew from now on.
    pub(super) fn forget_waits(&self) {
        self.shared.longest_us.store(0, Ordering::SeqCst);
    }

    /// Ends the writer and tells the longest wait of one record. To be called when nothing is frozen.
    pub(super) fn stop(mut self) -> Result<Duration, DemoError> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        ended
            .unwrap_or(Ok(Ok(())))
            .map_err(|_| DemoError::new("a writer has died"))?
            .map_err(|error| DemoError::because("a writer could not write", error))?;
        Ok(Duration::from_micros(
            self.shared.longest_us.load(Ordering::SeqCst),
        ))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Not waited for: where an error led here, its disk may not answer.
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn write(directory: &Path, shared: &Shared) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let records = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(FILE))?;
    for number in 0.. {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let started = Instant::now();
        let offset = (number % MOST_RECORDS) * RECORD as u64;
        records.write_all_at(&record(number), offset)?;
        if number % FILES_EVERY == 0 {
            make_file(directory, number / FILES_EVERY % MOST_FILES)?;
        }
        records.sync_all()?;
        let waited = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.longest_us.fetch_max(waited, Ordering::SeqCst);
        shared.acknowledged.store(number + 1, Ordering::SeqCst);
    }
    Ok(())
}

fn make_file(directory: &Path, number: u64) -> io::Result<()> {
    let path: PathBuf = directory.join(format!("file-{number}"));
    let new = directory.join("new");
    File::create(&new)?.write_all(&record(number))?;
    std::fs::rename(new, path)
}

/// What record `number` holds.
pub(super) fn record(number: u64) -> [u8; RECORD] {
    let mut record = [(number % 251) as u8; RECORD];
    if let Some(head) = record.first_chunk_mut() {
        *head = number.to_le_bytes();
    }
    record
}
