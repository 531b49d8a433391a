//! A FUSE server with one file, `file`, which can be found, opened and mapped, and whose content never comes.
//!
//! The messages: `include/uapi/linux/fuse.h`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use nix::mount::{MsFlags, mount};

use crate::Outcome;

/// Length of the file.
const SIZE: u64 = 1 << 20;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ROOT: u64 = 1;
const FILE: u64 = 2;

/// What is told stays true for so many seconds.
const VALID: u64 = 3600;

/// Mounts it and serves it until it is killed, or the connection aborted.
pub(crate) fn run(at: &str) -> Outcome {
    std::fs::create_dir_all(at)?;
    // Whoever opens the device loads the module.
    std::process::Command::new("/sbin/modprobe")
        .arg("fuse")
        .status()?;
    let mut device = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    );
    mount(
        Some("silent"),
        at,
        Some("fuse.silent"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    let mut request = vec![0; 1 << 17];
    loop {
        let len = device.read(&mut request)?;
        let request = request.get(..len).unwrap_or_default();
        let number = |at: usize| {
            let bytes = request.get(at..at + 8).and_then(|b| b.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        let opcode = u32::try_from(number(0) >> 32)?;
        let (unique, node) = (number(8), number(16));
        let Some(answer) = answer(opcode, node) else {
            continue;
        };
        let (error, body) = answer.map_or_else(|errno| (-errno, Vec::new()), |body| (0, body));
        let mut reply = Vec::new();
        reply.extend(u32::try_from(16 + body.len())?.to_le_bytes());
        reply.extend(error.to_le_bytes());
        reply.extend(unique.to_le_bytes());
        reply.extend(body);
        device.write_all(&reply)?;
    }
}

/// `None`: there is none. `Err`: an errno.
fn answer(opcode: u32, node: u64) -> Option<Result<Vec<u8>, i32>> {
    Some(Ok(match opcode {
        READ | FORGET | INTERRUPT | BATCH_FORGET => return None,
        // Version 7.31; no flag, so that a read is waited for by whoever needs it.
        INIT => words(&[7, 31, 65536, 0, 0, 65536, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        LOOKUP => {
            let mut entry = longs(&[FILE, 0, VALID, VALID, 0]);
            entry.extend(attributes(FILE));
            entry
        }
        GETATTR => {
            let mut found = longs(&[VALID, 0]);
            found.extend(attributes(node));
            found
        }
        OPEN => longs(&[1, 0]),
        FLUSH | RELEASE => Vec::new(),
        _ => return Some(Err(nix::errno::Errno::ENOSYS as i32)),
    }))
}

fn attributes(node: u64) -> Vec<u8> {
    let mut found = longs(&[node, SIZE, SIZE / 512, 0, 0, 0]);
    let mode = if node == ROOT { 0o40_755 } else { 0o100_644 };
    found.extend(words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]));
    found
}

fn longs(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
