//! The workload: numbered records, each fsynced before the next is written.
//! Its state is kept in a small file on the initramfs, never on the disk under test:
//! records synced, worst time in nanoseconds, start of the current write (0 between writes).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tests::proto::WriterState;
use tests::writer::{RECORDS, record};

use crate::Outcome;
use crate::clock::now;

/// Writes until it is killed.
pub(crate) fn run(directory: &str, state: &str) -> Outcome {
    go_on(files(directory, state)?)
}

/// Opens its two files: the records and its state.
pub(crate) fn files(directory: &str, state: &str) -> Result<[File; 2], Box<dyn std::error::Error>> {
    let file = File::options()
        .append(true)
        .create(true)
        .open(Path::new(directory).join(RECORDS))?;
    Ok([file, File::create(state)?])
}

/// Writes to its files until it is killed.
pub(crate) fn go_on([mut file, state]: [File; 2]) -> Outcome {
    let (mut synced, mut worst) = (0u64, 0u64);
    let keep = |synced: u64, worst: u64, since: u64| {
        state.write_all_at(format!("{synced:20} {worst:20} {since:20}\n").as_bytes(), 0)
    };
    loop {
        let started = now()?;
        keep(synced, worst, started)?;
        file.write_all(record(synced + 1).as_bytes())?;
        file.sync_all()?;
        synced += 1;
        worst = worst.max(now()?.saturating_sub(started));
        keep(synced, worst, 0)?;
    }
}

/// Reads a writer's state file; all zero before the writer has made it.
pub(crate) fn state(path: &str) -> Result<WriterState, Box<dyn std::error::Error + Send + Sync>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
    let [synced, worst, since] = numbers.as_slice() else {
        return Ok(WriterState::default());
    };
    let busy = if *since == 0 {
        0
    } else {
        now()?.saturating_sub(*since)
    };
    Ok(WriterState {
        synced: *synced,
        worst_ms: worst / 1_000_000,
        busy_ms: busy / 1_000_000,
    })
}
