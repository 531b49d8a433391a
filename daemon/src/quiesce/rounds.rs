//! Whether waiting for the kernel's write-back still pays: pure decisions, from what was seen and when.
//!
//! How much waits to be written is known of the whole machine alone; how much was written is known of each disk, too, so that what
//! others write is not waited for. A round begins when the flushers are woken, and ends when every disk has ended what it had to write; a disk among
//! others is judged by its own queue. What has become dirty meanwhile makes the next round, as long as rounds get
//! shorter. So the commits that follow find idle disks.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::writeback::{Activity, Sample};

/// So little is nothing that a commit would wait for; in KiB, as all amounts here.
const FEW: u64 = 256;

/// What is left may take the disks this long: no writer waits longer for it.
const SHORT: Duration = Duration::from_millis(20);

/// A disk is done when nothing was in flight at so many looks: flushers pause between files, and other programs sync.
const IDLE_LOOKS: u32 = 2;

/// A round in which the disks are idle and what waits has not become less by a tenth is over after so long.
const BEGIN: Duration = Duration::from_secs(1);

/// One in which hardly anything was written: a flusher that got no thread of its own within moments is called again by
/// the kernel after `vm.dirty_writeback_centisecs`, 5 s unless changed, and being woken does nothing until then.
const CALLED_AGAIN: Duration = Duration::from_secs(6);

/// How often it is judged whether a round that goes on pays. Slow disks end requests of a megabyte each.
const WINDOW: Duration = Duration::from_secs(2);

/// Disks that end nothing for so long, or nothing but what has become dirty meanwhile, are left to `syncfs` and its limit.
const DEAD: Duration = Duration::from_secs(10);

/// While a slow disk is waited for, the flushers are woken this often for those that have become idle.
const NUDGE: Duration = Duration::from_secs(1);

/// For less than this, a commit of its own does not pay, and behind more it would wait.
const MUCH: u64 = 4096;

/// With no more writes than this in flight a disk is hardly busy: a request has a megabyte at most.
const HARDLY_BUSY: u64 = 4;

/// Rounds get shorter, or there is no next one; but writers nearly as fast as the disks make them hardly shorter.
const MOST_ROUNDS: u32 = 20;

/// Journals that were committed less than this ago are not committed again.
const YOUNG: Duration = Duration::from_secs(1);

/// How often is looked: a look costs some ten microseconds.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(100);

/// The rounds so far.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// How many have begun.
    number: u32,
    /// The round at work.
    round: Window,
    /// What our disks had written when it began, if that is known.
    ours: Option<u64>,
    /// The part of it that is judged next.
    window: Window,
    /// When a page was written last, and how many had been by then.
    moved: Window,
    /// When the flushers were woken last.
    woken: Instant,
    /// For each disk, looks of this round that found it idle; one that was idle often enough is not looked at again.
    idle: Vec<u32>,
    /// Since when some disk has been idle in this round.
    some_idle: Option<Instant>,
    /// When the journals were committed last.
    committed: Option<Instant>,
}

/// What was seen at the beginning of a time.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    then: Sample,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The rest is for the commit.
    Stop,
    /// Look again after this time.
    Wait(Duration),
    /// Wake the flushers for the disks that are done, and look again after this time.
    Wake(Duration),
    /// Every disk is done, and a new round pays: wake the flushers for it.
    Round,
}

impl Rounds {
    /// Whether any pays: so little may wait that it is not worth it.
    #[must_use]
    pub fn pay(sample: Sample) -> bool {
        sample.waiting() > FEW
    }

    /// Begins at `now`, before the flushers are woken.
    #[must_use]
    pub fn begin(now: Instant, sample: Sample, disks: &Activity) -> Self {
        let window = Window {
            since: now,
            then: sample,
        };
        Self {
            number: 1,
            round: window,
            ours: disks.written,
            window,
            moved: window,
            woken: now,
            idle: Vec::new(),
            some_idle: None,
            committed: None,
        }
    }

    /// Whether journals are to be committed now, before the flushers are woken. A journal that commits by a timer would
    /// else do so in the middle of the round, behind all that is on its way to the disk by then. Never while much is on
    /// its way already.
    pub fn wants_commit(&mut self, now: Instant, sample: Sample, disks: &Activity) -> bool {
        let is_young = |at: Instant| now.saturating_duration_since(at) < YOUNG;
        // What is on its way to other disks does not matter.
        let mut in_flight = disks.in_flight.iter();
        let are_idle = disks.written.is_some() && in_flight.all(|writes| *writes <= HARDLY_BUSY);
        let wants = (sample.writing <= MUCH || are_idle)
            && sample.waiting() > MUCH
            && !self.committed.is_some_and(is_young);
        if wants {
            self.committed = Some(now);
        }
        wants
    }

    /// Whether the writes in flight on a disk are of interest: not once it has been idle in this round.
    #[must_use]
    pub fn wants(&self, disk: usize) -> bool {
        self.idle.get(disk).is_none_or(|looks| *looks < IDLE_LOOKS)
    }

    /// Judges what was seen: the machine's counters, and what our disks do. Without a disk that can be watched, the machine's
    /// counters stand for one.
    pub fn look(&mut self, now: Instant, sample: Sample, disks: &Activity) -> Next {
        if sample.written != self.moved.then.written {
            self.moved = Window {
                since: now,
                then: sample,
            };
        }
        if sample.waiting() <= FEW || self.moved.passed(now) >= DEAD {
            return Next::Stop;
        }
        let all_idle = self.note(sample, disks);
        let rest = self.round.rest(now, sample);
        let pause = rest.map_or(*PAUSE.start(), |rest| {
            (rest / 8).clamp(*PAUSE.start(), *PAUSE.end())
        });
        if all_idle {
            return self.at_the_end(now, sample, disks, rest, pause);
        }
        if self.idle.iter().any(|looks| *looks >= IDLE_LOOKS) {
            self.some_idle.get_or_insert(now);
        }
        if !self.pays(now, sample, disks) {
            return Next::Stop;
        }
        let rested = self.some_idle.map(|since| since.max(self.woken));
        if rested.is_some_and(|since| now.saturating_duration_since(since) >= NUDGE) {
            self.woken = now;
            return Next::Wake(pause);
        }
        Next::Wait(pause)
    }

    /// Whether all disks have been idle in this round.
    fn note(&mut self, sample: Sample, disks: &Activity) -> bool {
        let machine = [sample.writing];
        let in_flight = if disks.in_flight.is_empty() {
            &machine
        } else {
            &disks.in_flight[..]
        };
        self.idle.resize(in_flight.len(), 0);
        for (looks, writes) in self.idle.iter_mut().zip(in_flight) {
            // What is in flight when no pages are is no write-back, but a program's sync.
            if *writes == 0 || sample.writing <= FEW {
                *looks += 1;
            }
        }
        self.idle.iter().all(|looks| *looks >= IDLE_LOOKS)
    }

    fn at_the_end(
        &mut self,
        now: Instant,
        sample: Sample,
        disks: &Activity,
        rest: Option<Duration>,
        pause: Duration,
    ) -> Next {
        let little = rest.is_some_and(|rest| rest < SHORT);
        let before = self.round.then.waiting();
        let gained =
            sample.waiting() <= before / 10 * 9 && self.written_back(sample, disks) >= before / 10;
        let is_over = self.round.passed(now) >= BEGIN && !self.may_begin_late(now, sample, disks);
        if little || (!gained && is_over) || (gained && self.number == MOST_ROUNDS) {
            return Next::Stop;
        }
        if !gained {
            // The flushers have hardly begun, or what others have to write hides what is left here.
            self.idle.fill(0);
            self.some_idle = None;
            if now.saturating_duration_since(self.woken) >= NUDGE {
                self.woken = now;
                return Next::Wake(pause);
            }
            return Next::Wait(pause);
        }
        let window = Window {
            since: now,
            then: sample,
        };
        (self.round, self.window, self.woken) = (window, window, now);
        self.ours = disks.written;
        self.number += 1;
        self.idle.fill(0);
        self.some_idle = None;
        Next::Round
    }

    /// Whether hardly anything was written in this round, and the kernel may yet call a flusher.
    fn may_begin_late(&self, now: Instant, sample: Sample, disks: &Activity) -> bool {
        self.written_back(sample, disks) < self.round.then.waiting() / 10
            && self.round.passed(now) < CALLED_AGAIN
    }

    /// What was written back in this round, of ours: no more than all write-back of the machine, which others have a share in, and
    /// no more than all that our disks have written, direct writes and journals among it.
    fn written_back(&self, sample: Sample, disks: &Activity) -> u64 {
        let all = self.round.written(sample);
        let ours = disks.written.zip(self.ours);
        ours.map_or(all, |(now, then)| all.min(now.saturating_sub(then)))
    }

    /// `false` when what waits falls by less than a tenth of what is written: writers then dirty as fast as the disks
    /// write, and it would go on for ever. A slow disk among idle ones is judged by its own progress in the end, for
    /// what is dirtied and written on the others says nothing of it.
    fn pays(&mut self, now: Instant, sample: Sample, disks: &Activity) -> bool {
        let passed = self.window.passed(now);
        let written = self.window.written(sample);
        let some_idle = self.some_idle.is_some();
        if passed < if some_idle { DEAD } else { WINDOW } || self.may_begin_late(now, sample, disks)
        {
            return true;
        }
        let fell = self.window.then.waiting().saturating_sub(sample.waiting());
        self.window = Window {
            since: now,
            then: sample,
        };
        if written == 0 {
            // A disk may need seconds for a request.
            return sample.writing > 0;
        }
        fell > 0 && (some_idle || fell >= written / 10)
    }
}

impl Window {
    fn passed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    fn written(&self, sample: Sample) -> u64 {
        sample.written.saturating_sub(self.then.written)
    }

    /// How long the disks need for what waits, at the speed since; `None` when nothing was written.
    fn rest(&self, now: Instant, sample: Sample) -> Option<Duration> {
        let written = self.written(sample);
        #[expect(
            clippy::cast_precision_loss,
            reason = "an estimate needs no more than 52 bits"
        )]
        let share = sample.waiting() as f64 / written as f64;
        (written > 0).then(|| {
            let seconds = self.passed(now).as_secs_f64() * share;
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        })
    }
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
