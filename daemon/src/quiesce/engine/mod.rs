//! The phases of a checkpoint: plan, open, flush, ledger and guardian, freeze, hold, thaw.

mod attempt;
mod left_over;
mod settings;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::settings::Limits;
use super::backend::Backend;
use super::error::{FreezeError, with_causes};
use super::faults;
use super::guardian::Guard;
use super::hold::{Hold, Kept};
use super::hung_task::InForce;
use super::ledger::{Ledger, Place};
use super::prepare::{in_time, probe_all};
use super::report::{AskedBy, PhaseName, Report};
use super::resting::{Resting, Until};
use super::signal::Signal;
use super::slot::Slot;
use crate::config::{ForeignFreeze, Strictness};
use crate::filesystems::DeviceNumber;
use crate::hooks::Outcome;
use crate::telemetry::Gate;
use crate::telemetry::gate::Closed;

/// More threads than this do not make slow disks faster, and each has a locked stack.
const MOST_THREADS: usize = 32;

/// The driver answers HOT_BACKUP itself after 30 s; before the look, up to 10 s are spent on what is left over.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

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
    /// `limits` as they are for the checkpoint at work.
    in_force: InForce,
    hold: Option<Hold<B>>,
    /// How long that may last.
    hold_limit: Duration,
    /// Tells whether that is kept.
    kept: Option<Kept>,
    applications: Resting,
    /// The checkpoint at work has brought them to rest: once, however often the freeze is begun.
    rested: bool,
    /// What the last freeze that failed has tried.
    failed: Option<Report>,
    /// Keeps the log back until the host has its answer.
    quiet: Option<Closed>,
    /// A hold that is over: closing hundreds of handles takes longer than the host need wait.
    spent: Option<Hold<B>>,
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
            in_force: InForce::new(limits, None),
            gate,
            signal: Arc::default(),
            foreign: ForeignFreeze::default(),
            strictness: Strictness::default(),
            guard: None,
            place: Place::Memory,
            ledger: None,
            hold: None,
            hold_limit: limits.hold,
            kept: None,
            applications: Resting::default(),
            rested: false,
            failed: None,
            quiet: None,
            spent: None,
            preparing: None,
            stuck: Vec::new(),
        }
    }

    /// The gate that holds the log back during a hold.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// What makes a freeze at work give up, from another thread.
    pub fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }

    /// Nothing is held, and no call of an earlier checkpoint is still under way, as far as this engine knows.
    pub fn is_free(&self) -> bool {
        let opening = self.preparing.as_ref();
        self.hold.is_none() && self.stuck.is_empty() && opening.is_none_or(JoinHandle::is_finished)
    }

    /// The process id of who thaws should this process die, if that is a process.
    pub fn guardian_pid(&self) -> Option<u32> {
        self.guard.as_ref()?.pid()
    }

    /// Whether a freeze would be tried now: the plan can be made, all of it can be reached, nothing is stuck, and the guardian lives. Writes to no
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
            probe_all(&*backend, strict)?;
            match backend.first_at_work() {
                Some((target, operation)) => {
                    Err(FreezeError::AtWork(target.to_string(), operation))
                }
                None => Ok(()),
            }
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
        self.after_answer();
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

    /// What tells whether the hold that has begun is kept; once.
    pub fn take_kept(&mut self) -> Option<Kept> {
        self.kept.take()
    }

    /// How long the hold that has begun may last: less than the limits say where the kernel would panic before.
    pub fn hold_limit(&self) -> Duration {
        self.hold_limit
    }

    /// The report of the last freeze, if it failed; once.
    pub fn take_failed(&mut self) -> Option<Report> {
        self.failed.take()
    }

    /// Thaws everything, stops at no error, and tells how the checkpoint went; `None` when nothing was held.
    pub fn thaw(&mut self) -> Option<Report> {
        let mut hold = self.hold.take()?;
        hold.report.phase(PhaseName::Hold, hold.frozen_at);
        faults::reach("thaw");
        hold.thaw();
        faults::reach("thawed");
        self.keep_unreturned(&hold);
        Some(self.put_by(hold))
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

    /// Lets the log go on after a thaw, or after a freeze that failed, and closes what was held open for the checkpoint: once the
    /// host has its answer.
    pub fn after_answer(&mut self) {
        self.quiet = None;
        self.close();
    }

    /// In a thread: closing the last way to a mount that was taken away meanwhile unmounts it, and that may take as long as its disk
    /// likes. Not while anything is still frozen, on which such a mount may lie; the next freeze sees to it then.
    fn close(&mut self) {
        if self.hold.is_some() || !self.stuck.is_empty() {
            return;
        }
        let (hold, tables) = (self.spent.take(), self.backend.let_go());
        if hold.is_none() && tables.is_none() {
            return;
        }
        let thread = std::thread::Builder::new()
            .name("close".to_owned())
            .stack_size(128 * 1024);
        // Without a thread they are closed here.
        let _ = thread.spawn(move || drop((hold, tables)));
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
        self.after_answer();
        self.thaw_applications(Outcome::Failure, || {});
        self.applications_thawed(None, Until::Over);
    }
}
