//! The flush, before the first freeze: applications go on while what is dirty is written, so that the freeze finds
//! little.

use std::time::{Duration, Instant};

use super::backend::Backend;
use super::error::FreezeError;
use super::hold::{Hold, longest_first, still_running};
use super::passes::Pass;
use super::report::PhaseName;
use super::rounds::{Next, Rounds};
use super::signal::Waited;
use super::slot::Operation;
use super::writeback::{Activity, Sample};

/// Write-back may take this part of `limits.flush`: where writers dirty nearly as fast as the disks write it would take all of it,
/// and `syncfs`, without which nothing is frozen, has to come after it.
const WRITE_BACK_SHARE: u32 = 2;

/// `limits.flush`, and when it has passed.
#[derive(Clone, Copy, Debug)]
struct Limit {
    length: Duration,
    end: Instant,
}

impl<B: Backend> Hold<B> {
    /// Writes back in parallel while applications go on, so that the freeze finds little.
    pub(super) fn flush(&mut self, limit: Duration) -> Result<(), FreezeError> {
        let started = Instant::now();
        let limit = Limit {
            length: limit,
            end: started + limit,
        };
        let written_back = self.write_back(limit);
        self.report.phase(PhaseName::WriteBack, started);
        written_back?;
        for number in 1.. {
            let before = self.backend.dirty();
            let started = Instant::now();
            let passed = self.run_all(Operation::Flush, limit);
            self.report.phase(PhaseName::Flush, started);
            passed?;
            let took = started.elapsed();
            let waiting = before.zip(self.backend.dirty());
            let pass = Pass {
                number,
                took,
                waiting: waiting.map(|(before, after)| (before.waiting(), after.waiting())),
            };
            if !pass.pays_again() {
                break;
            }
        }
        // FIFREEZE would not tell: what could not be written counts as clean by then (syncfs alone looks, since 5.8).
        for slot in self.all() {
            if let Some(error) = slot.take_flush_failure() {
                return Err(FreezeError::Flush(slot.target().to_string(), error));
            }
        }
        Ok(())
    }

    /// Lets the kernel write back what is dirty, as long as that pays, so that the commits that follow find idle disks.
    fn write_back(&self, limit: Limit) -> Result<(), FreezeError> {
        let Some(first) = self.backend.dirty() else {
            return Ok(());
        };
        let started = Instant::now();
        if !Rounds::pay(first) {
            return Ok(());
        }
        let disks = self.backend.disks(self.all().map(|slot| slot.target()));
        let seen = disks.look(|_| true);
        let mut rounds = Rounds::begin(started, first, &seen);
        self.begin_round(&mut rounds, first, &seen, limit)?;
        while let Some(sample) = self.backend.dirty() {
            let seen = disks.look(|disk| rounds.wants(disk));
            let now = Instant::now();
            let pause = match rounds.look(now, sample, &seen) {
                Next::Stop => break,
                Next::Wait(pause) => pause,
                Next::Wake(pause) => {
                    self.backend.start_write_back();
                    pause
                }
                Next::Round => {
                    // Those that were done have been given more since.
                    let seen = disks.look(|_| true);
                    self.begin_round(&mut rounds, sample, &seen, limit)?;
                    Duration::ZERO
                }
            };
            if now.saturating_duration_since(started) >= limit.length / WRITE_BACK_SHARE {
                break;
            }
            if self.signal.wait(now + pause, true, || false) == Waited::Aborted {
                return Err(FreezeError::Aborted);
            }
        }
        Ok(())
    }

    fn begin_round(
        &self,
        rounds: &mut Rounds,
        sample: Sample,
        seen: &Activity,
        limit: Limit,
    ) -> Result<(), FreezeError> {
        if rounds.wants_commit(Instant::now(), sample, seen) {
            self.run_all(Operation::Commit, limit)?;
        }
        self.backend.start_write_back();
        Ok(())
    }

    /// Runs `operation` on every file system at once, and waits for all of them.
    fn run_all(&self, operation: Operation, limit: Limit) -> Result<(), FreezeError> {
        for slot in longest_first(self.all(), |calls| calls.flush) {
            self.submit(slot, operation);
        }
        let idle = || self.all().all(|slot| slot.running().is_none());
        match self.signal.wait(limit.end, true, idle) {
            Waited::Done => Ok(()),
            Waited::Aborted => Err(FreezeError::Aborted),
            Waited::TimedOut => {
                let name = still_running(self.all());
                Err(FreezeError::FlushLimit(name, limit.length))
            }
        }
    }
}
