//! The flush, before the first freeze: applications go on while what is dirty is written, so that the freeze finds
//! little.

use std::time::{Duration, Instant};

use super::backend::Backend;
use super::error::FreezeError;
use super::hold::{Hold, still_running};
use super::report::PhaseName;
use super::rounds::{Next, Rounds};
use super::signal::Waited;
use super::slot::Operation;

/// A pass that was quicker than this leaves little to the freeze itself.
const QUICK_PASS: Duration = Duration::from_millis(100);

/// Writers that dirty faster than the disks write would make passes go on for ever.
const MOST_PASSES: u32 = 3;

impl<B: Backend> Hold<B> {
    /// Writes back in parallel while applications go on, so that the freeze finds little.
    pub(super) fn flush(&mut self, limit: Duration) -> Result<(), FreezeError> {
        let started = Instant::now();
        let written_back = self.write_back(started + limit);
        self.report.phase(PhaseName::WriteBack, started);
        written_back?;
        for _ in 1..=MOST_PASSES {
            let pass_started = Instant::now();
            for slot in self.all() {
                self.submit(slot, Operation::Flush);
            }
            let idle = || self.all().all(|slot| slot.running().is_none());
            let waited = self.signal.wait(started + limit, true, idle);
            self.report.phase(PhaseName::Flush, pass_started);
            match waited {
                Waited::Done => {}
                Waited::Aborted => return Err(FreezeError::Aborted),
                Waited::TimedOut => {
                    let name = still_running(self.all());
                    return Err(FreezeError::FlushLimit(name, limit));
                }
            }
            if pass_started.elapsed() < QUICK_PASS {
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
    fn write_back(&self, deadline: Instant) -> Result<(), FreezeError> {
        let begin = |sample| Rounds::begin(Instant::now(), sample);
        let Some(mut rounds) = self.backend.dirty().and_then(begin) else {
            return Ok(());
        };
        let disks = self.backend.disks(self.all().map(|slot| slot.target()));
        self.backend.start_write_back();
        while let Some(sample) = self.backend.dirty() {
            let in_flight = disks.in_flight(|disk| rounds.wants(disk));
            let now = Instant::now();
            let pause = match rounds.look(now, sample, &in_flight) {
                Next::Stop => break,
                Next::Wait(pause) => pause,
                Next::Wake(pause) => {
                    self.backend.start_write_back();
                    pause
                }
                Next::Round => {
                    self.backend.start_write_back();
                    Duration::ZERO
                }
            };
            if now >= deadline {
                break;
            }
            if self.signal.wait(now + pause, true, || false) == Waited::Aborted {
                return Err(FreezeError::Aborted);
            }
        }
        Ok(())
    }
}
