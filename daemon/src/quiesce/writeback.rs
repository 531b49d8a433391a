//! Writing back without committing: the first part of the flush.
//!
//! `syncfs` starts a journal commit at once, and every writer waits while that commit waits behind the disk's queue.
//! So the kernel's own flusher threads write the data back first; they commit nothing. They are woken by a change of
//! `vm.dirty_writeback_centisecs` (`dirty_writeback_centisecs_handler` in mm/page-writeback.c), by one hundredth of a
//! second and back: should this process die in between, nothing is worse than a rounding error.

use std::fs::{File, OpenOptions};
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const SWITCH: &str = "/proc/sys/vm/dirty_writeback_centisecs";
const COUNTERS: &str = "/proc/vmstat";

/// Hundredths of a second.
const RARELY: u64 = 50_000;

/// So few pages are nothing that a commit would wait for.
const FEW: u64 = 64;

/// How often progress is judged.
const WINDOW: Duration = Duration::from_millis(200);

/// What is left may take the disks this long: no writer waits longer for it.
const SHORT: Duration = Duration::from_millis(20);

/// How often the counters are read: a read costs some ten microseconds.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(50);

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
    /// Dirty, or being written back.
    pub waiting: u64,
    /// Written since the machine started.
    pub written: u64,
}

impl Sample {
    fn parse(vmstat: &[u8]) -> Option<Self> {
        let field = |name: &[u8]| {
            let mut lines = vmstat.split(|byte| *byte == b'\n');
            number(lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(b" "))?)
        };
        Some(Self {
            waiting: field(b"nr_dirty")? + field(b"nr_writeback")?,
            written: field(b"nr_written")?,
        })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Whether waiting for the flushers still pays.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    since: Instant,
    then: Sample,
    /// Pages a second, of the last window.
    speed: Option<f64>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The rest is for the commit.
    Stop,
    /// Look again after this time.
    Wait(Duration),
    /// Wake the flushers once more, for what has become dirty since, and look again after this time.
    Again(Duration),
}

impl Progress {
    /// Begins at `now`; `None` when so little is not worth it.
    #[must_use]
    pub fn begin(now: Instant, sample: Sample) -> Option<Self> {
        (sample.waiting > FEW).then_some(Self {
            since: now,
            then: sample,
            speed: None,
        })
    }

    /// Stops when the rest is written in a moment, or when what waits falls by less than a tenth of what is written:
    /// writers then dirty as fast as the disks write.
    pub fn judge(&mut self, now: Instant, sample: Sample) -> Next {
        let rest = self.rest(sample);
        if sample.waiting <= FEW || rest.is_some_and(|rest| rest < SHORT) {
            return Next::Stop;
        }
        let pause = rest.map_or(*PAUSE.start() * 2, |rest| {
            (rest / 8).clamp(*PAUSE.start(), *PAUSE.end())
        });
        let passed = now.saturating_duration_since(self.since);
        if passed < WINDOW {
            return Next::Wait(pause);
        }
        let written = sample.written.saturating_sub(self.then.written);
        let fell = self.then.waiting.saturating_sub(sample.waiting);
        if fell == 0 || fell < written / 10 {
            return Next::Stop;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate needs no more than 52 bits"
        )]
        let speed = written.max(fell) as f64 / passed.as_secs_f64();
        *self = Self {
            since: now,
            then: sample,
            speed: Some(speed),
        };
        Next::Again(pause)
    }

    /// How long the disks need for what waits.
    fn rest(&self, sample: Sample) -> Option<Duration> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "an estimate needs no more than 52 bits"
        )]
        let seconds = sample.waiting as f64 / self.speed?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: u64 = 256;

    #[test]
    fn what_waits_is_dirty_or_on_its_way() {
        let vmstat = b"nr_free_pages 9\nnr_dirty 1200\nnr_writeback 24\nnr_writeback_temp 7\nnr_dirtied 5\nnr_written 88\n";
        let sample = Sample {
            waiting: 1224,
            written: 88,
        };
        assert_eq!(Sample::parse(vmstat), Some(sample));
        assert_eq!(Sample::parse(b"nr_dirty many\n"), None);
    }

    #[test]
    fn little_is_not_waited_for() {
        let few = Sample {
            waiting: FEW,
            written: 0,
        };
        assert!(Progress::begin(Instant::now(), few).is_none());
    }

    /// Disks that write `speed` MiB a second while `dirtied` are made dirty; how long is waited, and what is left.
    fn run(dirty: u64, speed: u64, dirtied: u64) -> (Duration, u64) {
        let started = Instant::now();
        let (mut now, mut left, mut written) = (started, dirty * PAGES, 0);
        let mut progress = Progress::begin(
            now,
            Sample {
                waiting: left,
                written,
            },
        )
        .unwrap();
        loop {
            match progress.judge(
                now,
                Sample {
                    waiting: left,
                    written,
                },
            ) {
                Next::Stop => return (now - started, left / PAGES),
                Next::Wait(pause) | Next::Again(pause) => {
                    now += pause;
                    let done = (speed * PAGES * pause.as_millis() as u64 / 1000).min(left);
                    written += done;
                    left = left - done + dirtied * PAGES * pause.as_millis() as u64 / 1000;
                }
            }
        }
    }

    #[test]
    fn disks_are_waited_for_until_little_is_left_however_much_there_is() {
        for (dirty, speed) in [(160, 80), (6000, 100), (40, 4)] {
            let (waited, left) = run(dirty, speed, 0);
            assert!(
                left <= speed / 16,
                "{left} MiB of {dirty} left after {waited:?}"
            );
            assert!(
                waited < Duration::from_secs(dirty / speed + 1),
                "{waited:?}"
            );
        }
    }

    #[test]
    fn a_trickle_of_writes_does_not_keep_it_waiting() {
        let (waited, _) = run(160, 80, 1);
        assert!(waited < Duration::from_millis(2300), "{waited:?}");
    }

    #[test]
    fn writers_as_fast_as_the_disk_are_not_waited_for() {
        let (waited, _) = run(50, 20, 20);
        assert!(waited <= Duration::from_millis(300), "{waited:?}");
    }

    #[test]
    fn a_disk_that_writes_nothing_is_not_waited_for() {
        let (waited, left) = run(50, 0, 0);
        assert!(waited <= Duration::from_millis(300) && left == 50);
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
