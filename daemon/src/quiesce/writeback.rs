//! Writing back without committing: the first part of the flush.
//!
//! `syncfs` starts a journal commit at once, and every writer waits while that commit waits behind the disk's queue.
//! So the kernel's own flusher threads write the data back first; they commit nothing. They are woken by a change of
//! `vm.dirty_writeback_centisecs` (`dirty_writeback_centisecs_handler` in mm/page-writeback.c), by one hundredth of a
//! second and back: should this process die in between, nothing is worse than a rounding error.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const SWITCH: &str = "/proc/sys/vm/dirty_writeback_centisecs";
const COUNTERS: &str = "/proc/meminfo";

/// Less than this many bytes dirty is nothing that a commit would wait for.
const LITTLE: u64 = 1 << 20;

/// How often progress is judged.
const WINDOW: Duration = Duration::from_millis(500);

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
        let _ = self.switch.write_at(format!("{}\n", old + 1).as_bytes(), 0);
        let _ = self.switch.write_at(format!("{old}\n").as_bytes(), 0);
    }

    /// Bytes that are dirty or being written back, of all file systems.
    #[must_use]
    pub fn dirty(&self) -> Option<u64> {
        let mut text = [0; 4096];
        let length = self.counters.read_at(&mut text, 0).ok()?;
        dirty_of(text.get(..length)?)
    }
}

/// `Dirty:` and `Writeback:` of man 5 proc, which are in kB.
fn dirty_of(meminfo: &[u8]) -> Option<u64> {
    let field = |name: &str| {
        let line = meminfo
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(name.as_bytes()))?;
        number(line.strip_suffix(b" kB")?)
    };
    Some((field("Dirty:")? + field("Writeback:")?) * 1024)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Whether waiting for the flushers still pays.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    since: Instant,
    then: u64,
}

impl Progress {
    /// Begins with `dirty` bytes; `None` when so little is not worth it.
    #[must_use]
    pub fn begin(now: Instant, dirty: u64) -> Option<Self> {
        (dirty > LITTLE).then_some(Self {
            since: now,
            then: dirty,
        })
    }

    /// `false` when little is left, or when it fell by less than a fiftieth within half a second: writers then dirty as
    /// fast as the disks write.
    pub fn goes_on(&mut self, now: Instant, dirty: u64) -> bool {
        if dirty <= LITTLE {
            return false;
        }
        if now.saturating_duration_since(self.since) < WINDOW {
            return true;
        }
        let pays = dirty <= self.then - self.then / 50;
        *self = Self {
            since: now,
            then: dirty,
        };
        pays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn dirty_is_what_waits_and_what_is_on_its_way() {
        let meminfo = b"MemTotal:  100 kB\nDirty:              1200 kB\nWriteback:            24 kB\nWritebackTmp: 7 kB\n";
        assert_eq!(dirty_of(meminfo), Some(1224 * 1024));
        assert_eq!(dirty_of(b"Dirty: many kB\n"), None);
    }

    #[test]
    fn little_is_not_waited_for() {
        assert!(Progress::begin(Instant::now(), MIB).is_none());
    }

    #[test]
    fn a_slow_disk_is_waited_for_as_long_as_it_gets_on() {
        let mut now = Instant::now();
        let mut dirty = 160 * MIB;
        let mut progress = Progress::begin(now, dirty).unwrap();
        let mut rounds = 0;
        while dirty > 0 && progress.goes_on(now, dirty) {
            now += Duration::from_millis(100);
            dirty = dirty.saturating_sub(2 * MIB);
            rounds += 1;
        }
        assert!(dirty <= MIB, "{dirty} left after {rounds}");
    }

    #[test]
    fn writers_as_fast_as_the_disk_are_not_waited_for() {
        let now = Instant::now();
        let mut progress = Progress::begin(now, 50 * MIB).unwrap();
        assert!(progress.goes_on(now + Duration::from_millis(100), 51 * MIB));
        assert!(!progress.goes_on(now + WINDOW, 50 * MIB));
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
        assert!(write_back.dirty().is_some());
    }
}
