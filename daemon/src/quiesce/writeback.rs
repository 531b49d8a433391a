//! Writing back without committing, the first part of the flush: the kernel's switch and its counters.
//!
//! `syncfs` starts a journal commit at once, and every writer waits while that commit waits behind the disk's queue.
//! So the kernel's own flusher threads write the data back first; they commit nothing. They are woken by a change of
//! `vm.dirty_writeback_centisecs` (`dirty_writeback_centisecs_handler` in mm/page-writeback.c), by one hundredth of a
//! second and back: should this process die in between, nothing is worse than a rounding error.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::sys::stat::stat;

use super::target::Target;
use crate::filesystems::DeviceNumber;

const SWITCH: &str = "/proc/sys/vm/dirty_writeback_centisecs";
const COUNTERS: &str = "/proc/vmstat";

/// Hundredths of a second.
const RARELY: u64 = 50_000;

/// The kernel's switch and counters.
#[derive(Debug)]
pub struct WriteBack {
    switch: File,
    counters: File,
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
        Sample::parse(text.get(..length)?)
    }
}

/// Counters of `/proc/vmstat` (mm/vmstat.c), in pages.
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

    fn parse(vmstat: &[u8]) -> Option<Self> {
        let field = |name: &[u8]| {
            let mut lines = vmstat.split(|byte| *byte == b'\n');
            number(lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(b" "))?)
        };
        Some(Self {
            dirty: field(b"nr_dirty")?,
            writing: field(b"nr_writeback")?,
            written: field(b"nr_written")?,
        })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// The disks of the file systems in hand: the counters of [`Sample`] are those of the whole machine, in which a slow disk is
/// lost among fast ones, and one that is none of ours may never be done.
#[derive(Debug, Default)]
pub struct Disks(Vec<Disk>);

#[derive(Debug)]
struct Disk {
    in_flight: File,
    counters: File,
}

/// What a disk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Writes that it has not ended yet.
    pub in_flight: u64,
    /// What it has written since it is there, in pages.
    pub written: u64,
}

impl Disks {
    /// Opens what the kernel tells of each disk, once; one that it tells nothing of is left out.
    #[must_use]
    pub fn open<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Self {
        let mut disks = BTreeMap::new();
        for dev in targets.into_iter().filter_map(device) {
            let open = |name| File::open(format!("/sys/dev/block/{dev}/{name}"));
            if let (Ok(in_flight), Ok(counters)) = (open("inflight"), open("stat")) {
                disks.insert(
                    dev,
                    Disk {
                        in_flight,
                        counters,
                    },
                );
            }
        }
        Self(disks.into_values().collect())
    }

    /// What each of them does now; writes in flight for those that `wanted` picks by their number, and none for the others. What
    /// cannot be read is not waited for.
    #[must_use]
    pub fn look(&self, wanted: impl Fn(usize) -> bool) -> Vec<Activity> {
        let look = |(number, disk): (usize, &Disk)| Activity {
            in_flight: if wanted(number) {
                read(&disk.in_flight, writes_in_flight)
            } else {
                0
            },
            written: read(&disk.counters, pages_written),
        };
        self.0.iter().enumerate().map(look).collect()
    }
}

fn read(file: &File, parse: impl Fn(&[u8]) -> Option<u64>) -> u64 {
    let mut text = [0; 256];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    text.get(..length).and_then(parse).unwrap_or(0)
}

/// The disk's number; that of a btrfs is its own, and its (first) disk is its source.
fn device(target: &Target) -> Option<DeviceNumber> {
    if !target.dev.is_anonymous() {
        return Some(target.dev);
    }
    // Nowhere else may a look-up be made without a limit of time.
    if !target.source.starts_with("/dev") {
        return None;
    }
    let dev = DeviceNumber::from_raw(stat(&target.source).ok()?.st_rdev);
    (!dev.is_anonymous()).then_some(dev)
}

/// Reads and writes in flight (Documentation/ABI/stable/sysfs-block, `inflight`).
fn writes_in_flight(text: &[u8]) -> Option<u64> {
    field(text, 1)
}

/// The seventh field counts sectors of 512 bytes that were written (Documentation/block/stat.rst).
fn pages_written(text: &[u8]) -> Option<u64> {
    field(text, 6).map(|sectors| sectors / 8)
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
            dirty: 1200,
            writing: 24,
            written: 88,
        };
        assert_eq!(Sample::parse(vmstat), Some(sample));
        assert_eq!(sample.waiting(), 1224);
        assert_eq!(Sample::parse(b"nr_dirty many\n"), None);
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
        assert_eq!(pages_written(stat), Some(80648 / 8));
        assert_eq!(pages_written(b"1 2 3 4 5 6\n"), None);
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
        assert!(disks.look(|_| true).is_empty());
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
        assert_eq!(disks.look(|_| true).len(), targets.len());
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
