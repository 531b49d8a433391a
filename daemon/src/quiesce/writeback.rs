//! Writing back without committing, the first part of the flush: the kernel's switch and its counters.
//!
//! `syncfs` starts a journal commit at once, and every writer waits while that commit waits behind the disk's queue.
//! So the kernel's own flusher threads write the data back first; they commit nothing. They are woken by a change of
//! `vm.dirty_writeback_centisecs` (`dirty_writeback_centisecs_handler` in mm/page-writeback.c), by one hundredth of a
//! second and back: should this process die in between, nothing is worse than a rounding error.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::unistd::{SysconfVar, sysconf};

use super::target::Target;
use crate::filesystems::{DeviceNodes, DeviceNumber, btrfs_members};

const SWITCH: &str = "/proc/sys/vm/dirty_writeback_centisecs";
const COUNTERS: &str = "/proc/vmstat";

/// Hundredths of a second.
const RARELY: u64 = 50_000;

/// The kernel's switch and counters.
#[derive(Debug)]
pub struct WriteBack {
    switch: File,
    counters: File,
    kib_per_page: u64,
}

impl WriteBack {
    /// Opens them; `None` where they are not, or without the right to them.
    #[must_use]
    pub fn open() -> Option<Self> {
        Some(Self {
            switch: OpenOptions::new()
                .read(true)
                .write(true)
                .open(SWITCH)
                .ok()?,
            counters: File::open(COUNTERS).ok()?,
            kib_per_page: kib_per_page(),
        })
    }

    /// Wakes the flusher threads for everything that is dirty; does not wait for them.
    pub fn start(&self) {
        let mut text = [0; 32];
        let Ok(length) = self.switch.read_at(&mut text, 0) else {
            return;
        };
        let old = text.get(..length).and_then(number);
        let Some(old) = old else {
            return;
        };
        // Switched off, it is set to minutes: should this process die here, nothing is woken often.
        let other = if old == 0 { RARELY } else { old + 1 };
        let _ = self.switch.write_at(format!("{other}\n").as_bytes(), 0);
        let _ = self.switch.write_at(format!("{old}\n").as_bytes(), 0);
    }

    /// What waits and what was written, of all file systems.
    #[must_use]
    pub fn sample(&self) -> Option<Sample> {
        // The counters wanted are among the first.
        let mut text = [0; 8192];
        let length = self.counters.read_at(&mut text, 0).ok()?;
        Sample::parse(text.get(..length)?, self.kib_per_page)
    }
}

/// Counters of `/proc/vmstat` (mm/vmstat.c), in KiB, however large a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Dirty, and not on its way to a disk.
    pub dirty: u64,
    /// On its way to a disk.
    pub writing: u64,
    /// Written since the machine started.
    pub written: u64,
}

impl Sample {
    /// Dirty, or being written back.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.dirty.saturating_add(self.writing)
    }

    fn parse(vmstat: &[u8], kib_per_page: u64) -> Option<Self> {
        let field = |name: &[u8]| {
            let mut lines = vmstat.split(|byte| *byte == b'\n');
            let pages =
                number(lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(b" "))?)?;
            pages.checked_mul(kib_per_page)
        };
        Some(Self {
            dirty: field(b"nr_dirty")?,
            writing: field(b"nr_writeback")?,
            written: field(b"nr_written")?,
        })
    }
}

fn kib_per_page() -> u64 {
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    bytes.map_or(4, |bytes| (bytes / 1024).max(1))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// The disks of the file systems in hand: the counters of [`Sample`] are those of the whole machine, in which a slow disk is
/// lost among fast ones, and one that is none of ours may never be done.
#[derive(Debug, Default)]
pub struct Disks {
    disks: Vec<Disk>,
    /// Every disk of every file system is among them, and counts what it writes.
    complete: bool,
}

#[derive(Debug)]
struct Disk {
    in_flight: File,
    counters: File,
}

/// What the disks do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// For each disk, writes that it has not ended yet.
    pub in_flight: Vec<u64>,
    /// What all of them have written since they are there, in KiB; `None` where not all can be asked. Not only write-back.
    pub written: Option<u64>,
}

impl Disks {
    /// Opens what the kernel tells of each disk, once; one that it tells nothing of is left out.
    #[must_use]
    pub fn open<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Self {
        let mut disks = BTreeMap::new();
        let mut complete = true;
        for target in targets {
            let devices = devices(target);
            complete &= !devices.is_empty();
            for dev in devices {
                match Disk::open(dev) {
                    Some(disk) => drop(disks.insert(dev, disk)),
                    None => complete = false,
                }
            }
        }
        Self {
            disks: disks.into_values().collect(),
            complete,
        }
    }

    /// What they do now; writes in flight on those that `wanted` picks by their number, and none on the others. What cannot be
    /// read is not waited for.
    #[must_use]
    pub fn look(&self, wanted: impl Fn(usize) -> bool) -> Activity {
        let in_flight = |(number, disk): (usize, &Disk)| {
            let look = wanted(number).then(|| read(&disk.in_flight, writes_in_flight));
            look.flatten().unwrap_or(0)
        };
        let mut written = self.complete.then_some(0);
        for disk in &self.disks {
            written = written
                .zip(read(&disk.counters, kib_written))
                .map(|(sum, kib)| sum + kib);
        }
        Activity {
            in_flight: self.disks.iter().enumerate().map(in_flight).collect(),
            written,
        }
    }
}

impl Disk {
    /// `None` as well where it counts nothing (`queue/iostats`, Documentation/ABI/stable/sysfs-block).
    fn open(dev: DeviceNumber) -> Option<Self> {
        let home = PathBuf::from(format!("/sys/dev/block/{dev}"));
        // A partition's disk is the directory above.
        let mut switches = ["queue/iostats", "../queue/iostats"].iter();
        let switch = switches.find_map(|name| std::fs::read(home.join(name)).ok());
        let open = |name| File::open(home.join(name)).ok();
        Some(Self {
            in_flight: open("inflight")?,
            counters: open("stat")?,
        })
        .filter(|_| switch.is_none_or(|switch| switch.trim_ascii() != b"0"))
    }
}

fn read(file: &File, parse: impl Fn(&[u8]) -> Option<u64>) -> Option<u64> {
    let mut text = [0; 256];
    let length = file.read_at(&mut text, 0).ok()?;
    parse(text.get(..length)?)
}

/// Its disk; a btrfs has a number of its own, and one disk or more. None where they are not known.
fn devices(target: &Target) -> Vec<DeviceNumber> {
    if !target.dev.is_anonymous() {
        return vec![target.dev];
    }
    let Some(dev) = DeviceNodes::System.resolve(&target.source) else {
        return Vec::new();
    };
    let pool = btrfs_members(dev).filter(|_| target.fstype == "btrfs");
    pool.unwrap_or_else(|| vec![dev])
}

/// Reads and writes in flight (Documentation/ABI/stable/sysfs-block, `inflight`).
fn writes_in_flight(text: &[u8]) -> Option<u64> {
    field(text, 1)
}

/// The seventh field counts sectors of 512 bytes that were written (Documentation/block/stat.rst).
fn kib_written(text: &[u8]) -> Option<u64> {
    field(text, 6).map(|sectors| sectors / 2)
}

fn field(text: &[u8], number: usize) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.split_ascii_whitespace().nth(number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_dirty_or_on_its_way() {
        let vmstat = b"nr_free_pages 9\nnr_dirty 1200\nnr_writeback 24\nnr_writeback_temp 7\nnr_dirtied 5\nnr_written 88\n";
        let sample = Sample {
            dirty: 1200 * 64,
            writing: 24 * 64,
            written: 88 * 64,
        };
        assert_eq!(Sample::parse(vmstat, 64), Some(sample));
        assert_eq!(sample.waiting(), 1224 * 64);
        assert_eq!(Sample::parse(b"nr_dirty many\n", 4), None);
    }

    #[test]
    fn writes_in_flight_are_the_second_number() {
        assert_eq!(writes_in_flight(b"       3       17\n"), Some(17));
        for other in [&b""[..], b"3\n", b"3 many\n", b"\xff 2"] {
            assert_eq!(writes_in_flight(other), None);
        }
    }

    #[test]
    fn what_a_disk_has_written_is_the_seventh_number() {
        let stat = b"    3107     1020   261482     3018     1853     2077    80648     5012        0     4308     8030        0\n";
        assert_eq!(kib_written(stat), Some(80648 / 2));
        assert_eq!(kib_written(b"1 2 3 4 5 6\n"), None);
    }

    #[test]
    fn a_disk_that_the_kernel_tells_nothing_of_is_not_watched() {
        let unknown = Target {
            dev: DeviceNumber::new(4095, 1),
            source: "/nonexistent".into(),
            ..Target::default()
        };
        let served = Target {
            dev: DeviceNumber::new(0, 99),
            ..unknown.clone()
        };
        let disks = Disks::open([&unknown, &served]);
        // Nor is what all of them write known then.
        assert_eq!(disks.look(|_| true), Activity::default());
    }

    #[test]
    fn a_disk_of_this_machine_is_watched_once() {
        let Ok(entries) = std::fs::read_dir("/sys/dev/block") else {
            return;
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let targets: Vec<_> = names
            .filter_map(|name| {
                let (major, minor) = name.split_once(':')?;
                Some(Target {
                    dev: DeviceNumber::new(major.parse().ok()?, minor.parse().ok()?),
                    ..Target::default()
                })
            })
            .collect();
        let disks = Disks::open(targets.iter().chain(&targets));
        let seen = disks.look(|_| true);
        if disks.complete {
            assert_eq!(seen.in_flight.len(), targets.len());
        }
        assert_eq!(seen.written.is_some(), disks.complete);
        assert_eq!(disks.disks.len(), seen.in_flight.len());
    }

    #[test]
    fn the_switch_is_what_it_was_after_it_was_used() {
        // Only root has it.
        let Some(write_back) = WriteBack::open() else {
            return;
        };
        let before = std::fs::read_to_string(SWITCH).unwrap();
        write_back.start();
        assert_eq!(std::fs::read_to_string(SWITCH).unwrap(), before);
        assert!(write_back.sample().is_some());
    }
}
