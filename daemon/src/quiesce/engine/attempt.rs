//! A freeze from the plan to the hold: begun anew when a file system appears meanwhile, undone when anything fails.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::{Checkpoint, Engine, MOST_THREADS};
use crate::config::Strictness;
use crate::filesystems::DeviceNumber;
use crate::filesystems::text::printable;
use crate::quiesce::backend::Backend;
use crate::quiesce::error::FreezeError;
use crate::quiesce::faults;
use crate::quiesce::guardian::GuardianError;
use crate::quiesce::handle::takes_no_writes;
use crate::quiesce::hold::Hold;
use crate::quiesce::hung_task::{GRACE, InForce};
use crate::quiesce::ledger::Ledger;
use crate::quiesce::pool::Pool;
use crate::quiesce::prepare::{in_time, plan_and_open};
use crate::quiesce::report::{PhaseName, Report};
use crate::quiesce::signal::Waited;
use crate::quiesce::slot::Slot;
use crate::quiesce::target::Target;
use crate::quiesce::writers::Writers;

/// File systems that appear while the others are frozen make the freeze begin anew, this often.
const MOST_ATTEMPTS: u32 = 3;

/// Opening takes microseconds, unless something is stuck.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Longer than a search for sleeping writers takes: it ends by itself 2 s after its beginning, and mostly after some milliseconds. It must
/// not go on into the freeze, since it opens files.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(3);

/// A file system that was shut down says so at once.
const DEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long a scrub or balance may take to end before a freeze is given up for it: a short one does, and nothing is frozen yet.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// How often its end is looked for.
const OPERATION_INTERVAL: Duration = Duration::from_millis(200);

/// Looks for those who would hold up the freeze while everything is flushed: as late as it can be, and at no cost.
struct WriterSearch(Option<mpsc::Receiver<Writers>>);

impl WriterSearch {
    fn begin<B: Backend>(hold: &Hold<B>) -> Self {
        let devices: Vec<_> = hold
            .stages
            .iter()
            .flatten()
            .map(|slot| slot.target().dev)
            .collect();
        if devices.is_empty() {
            return Self(None);
        }
        let backend = Arc::clone(&hold.backend);
        let (done, writers) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("writers".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || drop(done.send(backend.writers(&devices))));
        Self(thread.is_ok().then_some(writers))
    }

    /// What was found; waits for the end of the search. Whom it has missed is looked for again when a freeze was given up.
    fn finish(self) -> Writers {
        let found = self
            .0
            .and_then(|writers| writers.recv_timeout(SEARCH_TIMEOUT).ok());
        found.unwrap_or_default()
    }
}

/// How an attempt ended that no error ended.
enum Attempt {
    /// With a hold.
    Held,
    /// A file system has appeared meanwhile.
    Appeared,
    /// This one takes no writes any more, and need not be frozen.
    Died(Target),
}

/// Whose call has failed as one does on a file system that was shut down, or has lost its device.
fn suspect<B: Backend>(error: &FreezeError, hold: &Hold<B>) -> Option<Arc<Slot<B>>> {
    let (FreezeError::Freeze(name, error) | FreezeError::Flush(name, error)) = error else {
        return None;
    };
    let is_suspicious = takes_no_writes(error.raw_os_error()?);
    let mut all = hold.all().filter(|_| is_suspicious);
    all.find(|slot| slot.target().to_string() == *name)
        .map(Arc::clone)
}

impl<B: Backend> Engine<B> {
    /// When it succeeds, the report is with the hold.
    pub(super) fn freeze_in_attempts(
        &mut self,
        checkpoint: &Checkpoint,
        report: &mut Report,
    ) -> Result<(), FreezeError> {
        let mut dead = Vec::new();
        let mut appeared = 0;
        for attempt in 1.. {
            self.refuse_if_stuck()?;
            if let Some(guard) = &mut self.guard {
                guard.check()?;
            }
            report.begin_attempt(attempt);
            match self.try_freeze(checkpoint, &dead, report)? {
                Attempt::Held => return Ok(()),
                Attempt::Appeared => {
                    tracing::info!(
                        "a file system was mounted during the freeze, or that could not be told in time: attempt {attempt} is undone"
                    );
                    appeared += 1;
                }
                Attempt::Died(target) => {
                    tracing::warn!(
                        "{target} takes no writes any more, so the freeze is begun again without it"
                    );
                    dead.push(target.dev);
                }
            }
            if appeared == MOST_ATTEMPTS {
                break;
            }
        }
        Err(FreezeError::Appearing(MOST_ATTEMPTS))
    }

    /// Unless it holds, all was thawed again.
    fn try_freeze(
        &mut self,
        checkpoint: &Checkpoint,
        dead: &[DeviceNumber],
        report: &mut Report,
    ) -> Result<Attempt, FreezeError> {
        faults::reach("plan");
        let mut hold = self.prepare(checkpoint, dead, report)?;
        self.in_force = self.limits_now();
        // Before applications are told: they would wait as long.
        self.wait_for_operations(&hold, OPERATION_TIMEOUT)?;
        let mut result = self.freeze_all(&mut hold);
        // Before the last look at the marks, which comes right before the answer.
        let complete = result.is_ok() && self.is_complete(checkpoint, &mut hold.report);
        if complete {
            let most = self.in_force.hold(hold.freezing_since.elapsed());
            let limit = most + self.in_force.grace;
            let kept = hold.kept(Instant::now() + limit);
            if let Some(guard) = &mut self.guard {
                guard.renew(limit);
            }
            if kept.is_kept() {
                hold.frozen_at = Instant::now();
                self.hold_limit = most;
                self.kept = Some(kept);
                self.hold = Some(hold);
                return Ok(Attempt::Held);
            }
            result = Err(FreezeError::GuardianActed);
        }
        hold.thaw();
        let found = hold.release();
        if let (Err(FreezeError::FreezeLimit(_, _, cause)), false) = (&mut result, found.is_empty())
        {
            *cause = found.join("; ");
        }
        self.keep_unreturned(&hold);
        let suspect = result
            .as_ref()
            .err()
            .and_then(|error| suspect(error, &hold));
        *report = self.put_by(hold);
        for failure in &report.failures {
            tracing::error!("{failure}");
        }
        let died = match suspect {
            Some(slot) if self.stuck.is_empty() && self.is_dead(&slot) => {
                Some(slot.target().clone())
            }
            _ => None,
        };
        match (result, died) {
            (Ok(()), _) => {
                self.after_answer();
                Ok(Attempt::Appeared)
            }
            (Err(_), Some(target)) if self.strictness == Strictness::Strict => {
                Err(FreezeError::Gap(target.to_string()))
            }
            (Err(_), Some(target)) => {
                self.after_answer();
                Ok(Attempt::Died(target))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// In a thread: a device that does not answer must not be waited for.
    fn is_dead(&mut self, slot: &Arc<Slot<B>>) -> bool {
        let (backend, slot) = (Arc::clone(&self.backend), Arc::clone(slot));
        let ask = move || Ok(backend.is_dead(slot.handle()));
        in_time(ask, DEAD_LIMIT, &self.signal, &mut self.preparing).unwrap_or(false)
    }

    /// Whether nothing has appeared since the plan that should be frozen too. What cannot be frozen is not accepted by a strict configuration,
    /// and noted by others.
    fn is_complete(&self, checkpoint: &Checkpoint, report: &mut Report) -> bool {
        if checkpoint.only.is_some() {
            return true;
        }
        let Ok(appeared) = self.backend.appeared() else {
            return false;
        };
        let strict = self.strictness == Strictness::Strict;
        let complete = appeared.to_freeze.is_empty() && (!strict || appeared.gaps.is_empty());
        let unseen = appeared.gaps.iter().map(|place| {
            let place = printable(place);
            format!("{place} was mounted during the freeze, and was neither flushed nor frozen")
        });
        report.unseen.extend(unseen);
        complete
    }

    /// Waits until no file system is busy with an operation that a freeze would wait for.
    fn wait_for_operations(&self, hold: &Hold<B>, limit: Duration) -> Result<(), FreezeError> {
        let deadline = Instant::now() + limit;
        loop {
            let found = hold.stages.iter().flatten().find_map(|slot| {
                let operation = self.backend.at_work(slot.handle())?;
                Some((slot.target().to_string(), operation))
            });
            let Some((name, operation)) = found else {
                return Ok(());
            };
            let now = Instant::now();
            if now >= deadline {
                return Err(FreezeError::AtWork(name, operation));
            }
            let next = (now + OPERATION_INTERVAL).min(deadline);
            if self.signal.wait(next, true, || false) == Waited::Aborted {
                return Err(FreezeError::Aborted);
            }
        }
    }

    /// Read for every checkpoint, before anything is frozen: an administrator may change it at any time.
    fn limits_now(&self) -> InForce {
        let panics_after = self.backend.panics_after();
        let force = InForce::new(self.limits, panics_after);
        if let (Some(after), true) = (panics_after, force.limits != self.limits) {
            tracing::warn!(
                "the kernel panics when a program waits for {} s (kernel.hung_task_panic), and who writes in a hold waits: it ends after {} s instead of {} s",
                after.as_secs(),
                force.limits.hold.as_secs(),
                self.limits.hold.as_secs()
            );
        }
        force
    }

    fn freeze_all(&mut self, hold: &mut Hold<B>) -> Result<(), FreezeError> {
        if !std::mem::replace(&mut self.rested, true) {
            faults::reach("hooks");
            let limits = &self.limits;
            let hold_limit = OPEN_LIMIT + limits.flush + limits.freeze + limits.hold + GRACE;
            self.applications
                .freeze(&mut hold.report, hold_limit, &self.signal)?;
        }
        faults::reach("arm");
        self.arm(hold)?;
        faults::reach("flush");
        let search = WriterSearch::begin(hold);
        hold.flush(self.limits.flush)?;
        hold.writers = search.finish();
        // One that has begun in the flush: from here on nobody waits for it.
        self.wait_for_operations(hold, Duration::ZERO)?;
        if let Some(guard) = &mut self.guard {
            guard.renew(self.in_force.guarded());
        }
        // Where nothing is frozen, the log can go on.
        hold.gate = hold.holds_any().then(|| self.gate.close());
        faults::reach("freeze");
        hold.freezing_since = Instant::now();
        hold.freeze(self.in_force.limits.freeze, self.foreign, self.strictness)?;
        faults::reach("frozen");
        Ok(())
    }

    /// Puts all on record, and has the guardian watch over it, before the flush: so nothing lies between that and the freeze.
    fn arm(&mut self, hold: &Hold<B>) -> Result<(), FreezeError> {
        let slots = || hold.stages.iter().flatten();
        let targets = slots().map(|slot| slot.target());
        let ledger = Ledger::create(&self.place, targets).map_err(FreezeError::Ledger)?;
        let ledger = Arc::new(ledger);
        for (index, slot) in slots().enumerate() {
            slot.record_in(Arc::clone(&ledger), index);
        }
        self.ledger = Some(Arc::clone(&ledger));
        if let Some(guard) = &mut self.guard {
            let limit = self.limits.flush + self.in_force.guarded();
            let handles = hold
                .handles(&self.backend)
                .ok_or(GuardianError::Unguarded)?;
            let freezers = guard.arm(&ledger, &handles, limit)?;
            for (slot, freezer) in slots().zip(freezers) {
                slot.use_freezer(freezer);
            }
        }
        Ok(())
    }

    /// Plans and opens everything, and starts the threads.
    fn prepare(
        &mut self,
        checkpoint: &Checkpoint,
        dead: &[DeviceNumber],
        report: &mut Report,
    ) -> Result<Hold<B>, FreezeError> {
        let started = Instant::now();
        let backend = Arc::clone(&self.backend);
        let only = checkpoint.only.clone();
        let strict = self.strictness == Strictness::Strict;
        let dead = dead.to_vec();
        let open = move || plan_and_open(&*backend, only.as_deref(), &dead, strict);
        let prepared = in_time(open, OPEN_LIMIT, &self.signal, &mut self.preparing);
        report.phase(PhaseName::Prepare, started);
        let prepared = prepared?;
        report.unseen = prepared.unseen;
        let count =
            prepared.stages.iter().map(Vec::len).sum::<usize>() + prepared.flushed_only.len();
        let pool = Pool::start(count.clamp(1, MOST_THREADS)).map_err(FreezeError::Threads)?;
        Ok(Hold {
            backend: Arc::clone(&self.backend),
            signal: Arc::clone(&self.signal),
            pool,
            stages: prepared.stages,
            flushed_only: prepared.flushed_only,
            not_held: prepared.not_held,
            foreign: Vec::new(),
            suspended: Vec::new(),
            writers: Writers::default(),
            report: report.clone(),
            freezing_since: Instant::now(),
            frozen_at: Instant::now(),
            thawed: false,
            gate: None,
        })
    }
}
