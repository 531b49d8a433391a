//! The phases of a checkpoint: plan, open, flush, ledger and guardian, freeze, hold, thaw.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::error::{FreezeError, with_causes};
use super::faults;
use super::guardian::{Guard, GuardianError};
use super::hold::{Hold, THAW_PATIENCE};
use super::ledger::{Ledger, Place};
use super::pool::Pool;
use super::prepare::{accept_no_gap, in_time, plan_and_open};
use super::recovery;
use super::report::{AskedBy, PhaseName, Report};
use super::resting::{Resting, Until};
use super::signal::Signal;
use super::slot::{Operation, Slot};
use crate::config::{ForeignFreeze, Strictness};
use crate::filesystems::DeviceNumber;
use crate::hooks::{Applications, Outcome};
use crate::telemetry::Gate;
use crate::telemetry::gate::Closed;

/// More threads than this do not make slow disks faster, and each has a locked stack.
const MOST_THREADS: usize = 32;

/// File systems that appear while the others are frozen make the freeze begin anew, this often.
const MOST_ATTEMPTS: u32 = 3;

/// Opening takes microseconds, unless something is stuck.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// The driver answers HOT_BACKUP itself after 30 s.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// What the guardian grants the agent beyond its own limits.
const GRACE: Duration = Duration::from_secs(10);

/// Bounds on the phases before the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All flush passes together.
    pub flush: Duration,
    /// From the first `FIFREEZE` to the last one's return.
    pub freeze: Duration,
    /// From there to the first thaw. Kept by the caller; the guardian acts when it does not.
    pub hold: Duration,
}

/// What kind of checkpoint is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Who wants it.
    pub asked_by: AskedBy,
    /// Only these file systems of the plan, for a test by hand; `None`: all of it.
    pub only: Option<Vec<DeviceNumber>>,
}

/// Freezes and thaws what its backend finds. Dropping it thaws.
#[derive(Debug)]
pub struct Engine<B: Backend> {
    backend: Arc<B>,
    limits: Limits,
    gate: Gate,
    signal: Arc<Signal>,
    foreign: ForeignFreeze,
    strictness: Strictness,
    guard: Option<Box<dyn Guard>>,
    place: Place,
    ledger: Option<Arc<Ledger>>,
    hold: Option<Hold<B>>,
    applications: Resting,
    /// The checkpoint at work has brought them to rest: once, however often the freeze is begun.
    rested: bool,
    /// What the last freeze that failed has tried.
    failed: Option<Report>,
    /// Keeps the log back until the host has its answer.
    quiet: Option<Closed>,
    /// A thread that has not come back from an open.
    preparing: Option<JoinHandle<()>>,
    /// File systems of which a call has not returned, or that could not be thawed.
    stuck: Vec<Arc<Slot<B>>>,
}

impl<B: Backend> Engine<B> {
    /// An engine that holds nothing.
    pub fn new(backend: B, limits: Limits, gate: Gate) -> Self {
        Self {
            backend: Arc::new(backend),
            limits,
            gate,
            signal: Arc::default(),
            foreign: ForeignFreeze::default(),
            strictness: Strictness::default(),
            guard: None,
            place: Place::Memory,
            ledger: None,
            hold: None,
            applications: Resting::default(),
            rested: false,
            failed: None,
            quiet: None,
            preparing: None,
            stuck: Vec::new(),
        }
    }

    /// With someone to thaw should this process die, and a record for the next start.
    #[must_use]
    pub fn guarded(mut self, guard: Box<dyn Guard>, place: Place) -> Self {
        self.guard = Some(guard);
        self.place = place;
        self
    }

    /// With another rule for what someone else has frozen.
    #[must_use]
    pub fn foreign_freeze(mut self, rule: ForeignFreeze) -> Self {
        self.foreign = rule;
        self
    }

    /// With applications to bring to rest; what they owe already is thawed before the next freeze.
    #[must_use]
    pub fn with_applications(mut self, applications: Arc<dyn Applications>) -> Self {
        self.set_applications(applications);
        self
    }

    /// As [`Engine::with_applications`], between checkpoints.
    pub fn set_applications(&mut self, applications: Arc<dyn Applications>) {
        self.applications.replace(applications);
    }

    /// With another rule for what cannot be frozen. [`Strictness::FlushOnly`] needs a backend that plans accordingly.
    #[must_use]
    pub fn strictness(mut self, rule: Strictness) -> Self {
        self.strictness = rule;
        self
    }

    /// Puts another configuration in force, for the next checkpoint; to be called while nothing is held.
    pub fn configure(
        &mut self,
        backend: B,
        limits: Limits,
        foreign: ForeignFreeze,
        strictness: Strictness,
    ) {
        // What is left over of an earlier checkpoint is thawed through the new one: its handles are as good.
        self.backend = Arc::new(backend);
        self.limits = limits;
        self.foreign = foreign;
        self.strictness = strictness;
    }

    /// The gate that holds the log back during a hold.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// What makes a freeze at work give up, from another thread.
    pub fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }

    /// The process id of who thaws should this process die, if that is a process.
    pub fn guardian_pid(&self) -> Option<u32> {
        self.guard.as_ref()?.pid()
    }

    /// Whether a freeze would be tried now: the plan can be made, nothing is stuck, and the guardian lives. Touches no
    /// file system.
    ///
    /// # Errors
    /// [`FreezeError`], as [`Engine::freeze`] would give it.
    pub fn check(&mut self) -> Result<(), FreezeError> {
        self.refuse_if_stuck()?;
        self.applications.check()?;
        if let Some(guard) = &mut self.guard {
            guard.check()?;
        }
        let backend = Arc::clone(&self.backend);
        let strict = self.strictness == Strictness::Strict;
        let look = move || {
            let gaps = backend.foresee()?;
            if strict {
                accept_no_gap(gaps.into_iter())?;
            }
            Ok(())
        };
        in_time(look, LOOK_LIMIT, &self.signal, &mut self.preparing)
    }

    /// Freezes every file system of the plan, or none.
    ///
    /// # Errors
    /// [`FreezeError`]; whatever was frozen is thawed by then.
    pub fn freeze(&mut self) -> Result<(), FreezeError> {
        self.freeze_for(&Checkpoint::default())
    }

    /// As [`Engine::freeze`], for whom and what `checkpoint` says. What one that failed has tried is told by
    /// [`Engine::take_failed`].
    ///
    /// # Errors
    /// As [`Engine::freeze`].
    pub fn freeze_for(&mut self, checkpoint: &Checkpoint) -> Result<(), FreezeError> {
        if self.hold.is_some() {
            return Err(FreezeError::Held);
        }
        self.open_log();
        let mut report = Report::begin(checkpoint.asked_by);
        report.flush_only = self.strictness == Strictness::FlushOnly;
        self.rested = false;
        self.thaw_applications(Outcome::Failure, || {});
        let result = if self.applications.wait(&self.signal, Until::Aborted) {
            self.applications.tell(None);
            self.freeze_in_attempts(checkpoint, &mut report)
        } else {
            Err(FreezeError::Aborted)
        };
        self.failed = result.as_ref().err().map(|error| {
            report.fail(with_causes(error));
            report
        });
        result
    }

    /// The report of the last freeze, if it failed; once.
    pub fn take_failed(&mut self) -> Option<Report> {
        self.failed.take()
    }

    /// When it succeeds, the report is with the hold.
    fn freeze_in_attempts(
        &mut self,
        checkpoint: &Checkpoint,
        report: &mut Report,
    ) -> Result<(), FreezeError> {
        for attempt in 1..=MOST_ATTEMPTS {
            self.refuse_if_stuck()?;
            if let Some(guard) = &mut self.guard {
                guard.check()?;
            }
            report.begin_attempt(attempt);
            if self.try_freeze(checkpoint, report)? {
                return Ok(());
            }
            tracing::info!(
                "a file system was mounted during the freeze: attempt {attempt} is undone"
            );
        }
        Err(FreezeError::Appearing(MOST_ATTEMPTS))
    }

    /// `false` when a file system appeared meanwhile, and all was thawed again.
    fn try_freeze(
        &mut self,
        checkpoint: &Checkpoint,
        report: &mut Report,
    ) -> Result<bool, FreezeError> {
        faults::reach("plan");
        let mut hold = self.prepare(checkpoint, report)?;
        let mut result = self.freeze_all(&mut hold);
        if result.is_ok() && !hold.is_kept() {
            result = Err(FreezeError::GuardianActed);
        }
        let appeared = result.is_ok() && self.backend.has_appeared();
        let complete = result.is_ok() && (checkpoint.only.is_some() || !appeared);
        if complete {
            if let Some(guard) = &mut self.guard {
                guard.hold(self.limits.hold + GRACE);
            }
            hold.frozen_at = Instant::now();
            self.hold = Some(hold);
            return Ok(true);
        }
        hold.thaw();
        self.keep_unreturned(&hold);
        self.quiet = hold.gate.take();
        *report = hold.finish();
        for failure in &report.failures {
            tracing::error!("{failure}");
        }
        result.map(|()| {
            self.open_log();
            false
        })
    }

    fn freeze_all(&mut self, hold: &mut Hold<B>) -> Result<(), FreezeError> {
        if !std::mem::replace(&mut self.rested, true) {
            faults::reach("hooks");
            let limits = &self.limits;
            let hold_limit = OPEN_LIMIT + limits.flush + limits.freeze + limits.hold + GRACE;
            self.applications
                .freeze(&mut hold.report, hold_limit, &self.signal)?;
        }
        faults::reach("flush");
        hold.flush(self.limits.flush)?;
        faults::reach("arm");
        let targets = hold.stages.iter().flatten().map(|slot| slot.target());
        let ledger = Ledger::create(&self.place, targets).map_err(FreezeError::Ledger)?;
        let ledger = Arc::new(ledger);
        for (index, slot) in hold.stages.iter().flatten().enumerate() {
            slot.record_in(Arc::clone(&ledger), index);
        }
        self.ledger = Some(Arc::clone(&ledger));
        if let Some(guard) = &mut self.guard {
            let limit = self.limits.freeze + self.limits.hold + GRACE;
            let handles = hold
                .handles(&self.backend)
                .ok_or(GuardianError::Unguarded)?;
            guard.arm(&ledger, &handles, limit)?;
        }
        // Where nothing is frozen, the log can go on.
        hold.gate = hold.holds_any().then(|| self.gate.close());
        faults::reach("freeze");
        hold.freeze(self.limits.freeze, self.foreign, self.strictness)?;
        faults::reach("frozen");
        Ok(())
    }

    /// Thaws everything, stops at no error, and tells how the checkpoint went; `None` when nothing was held.
    pub fn thaw(&mut self) -> Option<Report> {
        let mut hold = self.hold.take()?;
        hold.report.phase(PhaseName::Hold, hold.frozen_at);
        faults::reach("thaw");
        hold.thaw();
        faults::reach("thawed");
        self.keep_unreturned(&hold);
        self.quiet = hold.gate.take();
        Some(hold.finish())
    }

    /// Begins to let applications go on, after a thaw or a freeze that failed: once the host has its answer. `done` is
    /// called when that is over, from another thread; `false`: none was brought to rest, and it is not called.
    pub fn thaw_applications(
        &mut self,
        outcome: Outcome,
        done: impl FnOnce() + Send + 'static,
    ) -> bool {
        // Never in a hold: they would write to what is frozen.
        self.hold.is_none() && self.applications.start_thaw(outcome, &self.signal, done)
    }

    /// Waits until those go on that [`Engine::thaw_applications`] has begun with, and tells log and `report` of it; `false`
    /// if something else ends the wait.
    pub fn applications_thawed(&mut self, report: Option<&mut Report>, until: Until) -> bool {
        let done = self.applications.wait(&self.signal, until);
        if done {
            self.applications.tell(report);
        }
        done
    }

    /// Lets the log go on after a thaw, or after a freeze that failed: once the host has its answer.
    pub fn open_log(&mut self) {
        self.quiet = None;
    }

    /// What is left over is tried once more now, and before the next freeze.
    fn keep_unreturned(&mut self, hold: &Hold<B>) {
        self.stuck.extend(hold.unreturned());
        self.thaw_again();
        self.forget_settled();
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

    fn refuse_if_stuck(&mut self) -> Result<(), FreezeError> {
        self.thaw_again();
        self.forget_settled();
        match self.stuck.first() {
            Some(slot) if slot.running().is_some() => {
                Err(FreezeError::Stuck(slot.target().to_string()))
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
    fn thaw_again(&mut self) {
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
            .wait(Instant::now() + THAW_PATIENCE, false, idle);
    }

    /// Plans and opens everything, and starts the threads.
    fn prepare(
        &mut self,
        checkpoint: &Checkpoint,
        report: &mut Report,
    ) -> Result<Hold<B>, FreezeError> {
        let started = Instant::now();
        let backend = Arc::clone(&self.backend);
        let only = checkpoint.only.clone();
        let strict = self.strictness == Strictness::Strict;
        let open = move || plan_and_open(&*backend, only.as_deref(), strict);
        let prepared = in_time(open, OPEN_LIMIT, &self.signal, &mut self.preparing);
        report.phase(PhaseName::Prepare, started);
        let prepared = prepared?;
        let count =
            prepared.stages.iter().map(Vec::len).sum::<usize>() + prepared.flushed_only.len();
        let pool = Pool::start(count.clamp(1, MOST_THREADS)).map_err(FreezeError::Threads)?;
        Ok(Hold {
            backend: Arc::clone(&self.backend),
            signal: Arc::clone(&self.signal),
            pool,
            stages: prepared.stages,
            flushed_only: prepared.flushed_only,
            foreign: Vec::new(),
            report: report.clone(),
            frozen_at: Instant::now(),
            thawed: false,
            gate: None,
        })
    }
}

impl<B: Backend> Drop for Engine<B> {
    fn drop(&mut self) {
        match self.hold.take() {
            Some(mut hold) => {
                hold.thaw();
                self.keep_unreturned(&hold);
            }
            None => self.thaw_again(),
        }
        self.open_log();
        self.thaw_applications(Outcome::Failure, || {});
        self.applications_thawed(None, Until::Over);
    }
}
