//! What earlier checkpoints left behind: calls that have not returned, file systems that could not be thawed, a dead agent's record.

use std::time::{Duration, Instant};

use super::{Engine, MOST_THREADS};
use crate::quiesce::backend::Backend;
use crate::quiesce::error::FreezeError;
use crate::quiesce::held_up;
use crate::quiesce::hold::{Hold, STAGE_TIMEOUT};
use crate::quiesce::ledger::Place;
use crate::quiesce::pool::Pool;
use crate::quiesce::recovery;
use crate::quiesce::report::Report;
use crate::quiesce::slot::Operation;

impl<B: Backend> Engine<B> {
    /// What is left over is tried once more now, and before the next freeze.
    pub(super) fn keep_unreturned(&mut self, hold: &Hold<B>) {
        self.stuck.extend(hold.unreturned());
        self.thaw_again();
        self.forget_settled();
    }

    /// Keeps what is closed once the host has its answer, and tells how it went.
    pub(super) fn put_by(&mut self, mut hold: Hold<B>) -> Report {
        self.quiet = hold.gate.take();
        let report = hold.completed_report();
        self.spent = Some(hold);
        report
    }

    fn forget_settled(&mut self) {
        self.stuck
            .retain(|slot| slot.running().is_some() || slot.is_frozen());
        self.settle();
    }

    /// Lets guardian and ledger go, once nothing is left that they would have to thaw.
    fn settle(&mut self) {
        if !self.stuck.is_empty() {
            return;
        }
        if let Some(ledger) = self.ledger.take() {
            if let Some(guard) = &mut self.guard {
                guard.disarm();
            }
            ledger.remove();
        }
    }

    /// Whether everything of earlier checkpoints has returned and is thawed, after waiting for it for `limit` at most.
    pub fn settle_within(&mut self, limit: Duration) -> bool {
        self.thaw_again();
        let idle = || self.stuck.iter().all(|slot| slot.running().is_none());
        let _ = self.signal.wait(Instant::now() + limit, false, idle);
        self.forget_settled();
        self.stuck.is_empty()
    }

    pub(super) fn refuse_if_stuck(&mut self) -> Result<(), FreezeError> {
        self.thaw_again();
        self.forget_settled();
        match self.stuck.first() {
            Some(slot) if slot.running().is_some() => {
                let name = slot.target().to_string();
                let slots: Vec<_> = self.stuck.iter().collect();
                let found = held_up::release(&slots, &*self.backend, &self.signal);
                self.forget_settled();
                if self.stuck.is_empty() {
                    return self.refuse_if_left_over();
                }
                let cause = match found.is_empty() {
                    true => held_up::NOBODY.to_owned(),
                    false => found.join("; "),
                };
                Err(FreezeError::Stuck(name, cause))
            }
            Some(slot) => Err(FreezeError::StillFrozen(slot.target().to_string())),
            None => self.refuse_if_left_over(),
        }
    }

    /// What a dead agent left frozen, and what could not be thawed at the start, is tried again: its record must not be
    /// overwritten by that of a new checkpoint.
    fn refuse_if_left_over(&self) -> Result<(), FreezeError> {
        let Place::File(path) = &self.place else {
            return Ok(());
        };
        let outcomes = recovery::by_ledger(path, true).map_err(FreezeError::LeftOver)?;
        match outcomes.into_iter().find(|outcome| outcome.result.is_err()) {
            Some(outcome) => Err(FreezeError::StillFrozen(outcome.name)),
            None => Ok(()),
        }
    }

    /// Tries once more what could not be thawed before.
    pub(super) fn thaw_again(&mut self) {
        let again: Vec<_> = self.stuck.iter().filter(|slot| slot.wants_thaw()).collect();
        if again.is_empty() {
            return;
        }
        let Ok(pool) = Pool::start(again.len().min(MOST_THREADS)) else {
            return;
        };
        for slot in &again {
            slot.submit(&pool, &self.backend, &self.signal, Operation::Thaw);
        }
        let idle = || again.iter().all(|slot| slot.running().is_none());
        let _ = self
            .signal
            .wait(Instant::now() + STAGE_TIMEOUT, false, idle);
    }
}
