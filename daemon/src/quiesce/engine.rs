//! The phases of a checkpoint: plan, open, flush, freeze stage by stage, hold, thaw in reverse.
//!
//! From the first freeze to the last thaw nothing here opens, executes, writes a log or looks up a path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, Target};
use super::error::{FreezeError, ThawError, with_causes};
use super::pool::Pool;
use super::report::{FileSystemReport, Report};
use super::signal::{Signal, Waited};
use super::slot::{Operation, Slot};
use crate::filesystems::Plan;
use crate::telemetry::gate::{Closed, Gate};

/// More threads than this do not make slow disks faster, and each has a locked stack.
const MOST_THREADS: usize = 32;

/// A pass that was quicker than this leaves little to the freeze itself.
const QUICK_PASS: Duration = Duration::from_millis(100);

/// Writers that dirty faster than the disks write would make passes go on for ever.
const MOST_PASSES: u32 = 3;

/// A mount table that keeps changing between reading and opening is read this often.
const MOST_PLANS: u32 = 5;

/// How long a thaw may take before the next stage is thawed regardless.
const THAW_PATIENCE: Duration = Duration::from_secs(5);

/// Bounds on the phases before the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All flush passes together.
    pub flush: Duration,
    /// From the first `FIFREEZE` to the last one's return.
    pub freeze: Duration,
}

/// Freezes and thaws what its backend finds. Dropping it thaws.
#[derive(Debug)]
pub struct Engine<B: Backend> {
    backend: Arc<B>,
    limits: Limits,
    gate: Gate,
    signal: Arc<Signal>,
    hold: Option<Hold<B>>,
    /// File systems of which a call has not returned.
    stuck: Vec<Arc<Slot<B>>>,
}

/// What is frozen, or being frozen. Dropping it thaws.
#[derive(Debug)]
struct Hold<B: Backend> {
    backend: Arc<B>,
    signal: Arc<Signal>,
    pool: Pool,
    stages: Vec<Vec<Arc<Slot<B>>>>,
    flushed_only: Vec<Arc<Slot<B>>>,
    report: Report,
    frozen_at: Instant,
    /// Last, so that the log opens when all else is done.
    gate: Option<Closed>,
}

impl<B: Backend> Engine<B> {
    /// An engine that holds nothing.
    pub fn new(backend: B, limits: Limits, gate: Gate) -> Self {
        Self {
            backend: Arc::new(backend),
            limits,
            gate,
            signal: Arc::default(),
            hold: None,
            stuck: Vec::new(),
        }
    }

    /// What makes a freeze at work give up, from another thread.
    pub fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }

    /// Whether a freeze would be tried now: the plan can be made, and nothing is stuck. Touches no file system.
    ///
    /// # Errors
    /// [`FreezeError`], as [`Engine::freeze`] would give it.
    pub fn check(&mut self) -> Result<Plan, FreezeError> {
        self.refuse_if_stuck()?;
        Ok(self.backend.plan()?)
    }

    /// Freezes every file system of the plan, or none.
    ///
    /// # Errors
    /// [`FreezeError`]; whatever was frozen is thawed by then.
    pub fn freeze(&mut self) -> Result<(), FreezeError> {
        if self.hold.is_some() {
            return Err(FreezeError::Held);
        }
        self.refuse_if_stuck()?;
        let mut hold = self.prepare()?;
        let mut result = hold.flush(self.limits.flush);
        if result.is_ok() {
            hold.gate = Some(self.gate.close());
            result = hold.freeze(self.limits.freeze);
        }
        if let Err(error) = result {
            hold.thaw();
            self.stuck = hold.unreturned();
            for failure in hold.finish().failures {
                tracing::error!("{failure}");
            }
            return Err(error);
        }
        self.hold = Some(hold);
        Ok(())
    }

    /// Thaws everything, stops at no error, and tells how the checkpoint went; `None` when nothing was held.
    pub fn thaw(&mut self) -> Option<Report> {
        let mut hold = self.hold.take()?;
        hold.report.hold = hold.frozen_at.elapsed();
        hold.thaw();
        self.stuck = hold.unreturned();
        Some(hold.finish())
    }

    fn refuse_if_stuck(&mut self) -> Result<(), FreezeError> {
        self.stuck
            .retain(|slot| slot.running().is_some() || slot.is_frozen());
        match self.stuck.first() {
            Some(slot) => Err(FreezeError::Stuck(slot.target().to_string())),
            None => Ok(()),
        }
    }

    /// Plans and opens. A mount that vanished in between makes a new plan, so that no parent is frozen for it.
    fn prepare(&self) -> Result<Hold<B>, FreezeError> {
        let started = Instant::now();
        let mut attempts = 0;
        let (stages, flushed_only) = loop {
            attempts += 1;
            match self.open_all(&self.backend.plan()?) {
                Ok(slots) => break slots,
                Err(error) if attempts == MOST_PLANS => return Err(error),
                Err(_) => {}
            }
        };
        let threads = stages.iter().map(Vec::len).sum::<usize>() + flushed_only.len();
        let pool = Pool::start(threads.clamp(1, MOST_THREADS)).map_err(FreezeError::Threads)?;
        Ok(Hold {
            backend: Arc::clone(&self.backend),
            signal: Arc::clone(&self.signal),
            pool,
            stages,
            flushed_only,
            report: Report {
                prepare: started.elapsed(),
                ..Report::default()
            },
            frozen_at: Instant::now(),
            gate: None,
        })
    }

    #[expect(
        clippy::type_complexity,
        reason = "the stages, and what is flushed only"
    )]
    fn open_all(
        &self,
        plan: &Plan,
    ) -> Result<(Vec<Vec<Arc<Slot<B>>>>, Vec<Arc<Slot<B>>>), FreezeError> {
        let open = |target: Target| -> Result<Arc<Slot<B>>, FreezeError> {
            let handle = self.backend.open(&target)?;
            Ok(Arc::new(Slot::new(target, handle)))
        };
        let stages = plan
            .stages
            .iter()
            .map(|stage| {
                stage
                    .iter()
                    .map(|superblock| open(superblock.into()))
                    .collect()
            })
            .collect::<Result<_, _>>()?;
        let flushed_only = plan
            .left_out
            .iter()
            .filter(|left_out| left_out.flush)
            .map(|left_out| open(left_out.into()))
            .collect::<Result<_, _>>()?;
        Ok((stages, flushed_only))
    }
}

impl<B: Backend> Hold<B> {
    fn all(&self) -> impl Iterator<Item = &Arc<Slot<B>>> {
        self.stages.iter().flatten().chain(&self.flushed_only)
    }

    /// Calls that have not returned, and file systems that could not be thawed.
    fn unreturned(&self) -> Vec<Arc<Slot<B>>> {
        self.all()
            .filter(|slot| slot.running().is_some() || slot.is_frozen())
            .map(Arc::clone)
            .collect()
    }

    fn submit(&self, slot: &Arc<Slot<B>>, operation: Operation) {
        slot.begin(operation);
        let (slot, backend, signal) = (
            Arc::clone(slot),
            Arc::clone(&self.backend),
            Arc::clone(&self.signal),
        );
        self.pool.submit(move || {
            slot.run(&backend, operation);
            signal.notify();
        });
    }

    /// Writes back in parallel while applications go on, so that the freeze finds little.
    fn flush(&mut self, limit: Duration) -> Result<(), FreezeError> {
        let started = Instant::now();
        for pass in 1..=MOST_PASSES {
            let pass_started = Instant::now();
            for slot in self.all() {
                self.submit(slot, Operation::Flush);
            }
            let idle = || self.all().all(|slot| slot.running().is_none());
            match self.signal.wait(started + limit, true, idle) {
                Waited::Done => {}
                Waited::Aborted => return Err(FreezeError::Aborted),
                Waited::TimedOut => {
                    let slow = self.all().find(|slot| slot.running().is_some());
                    let name = slow.map_or_else(String::new, |slot| slot.target().to_string());
                    return Err(FreezeError::FlushLimit(name, limit));
                }
            }
            self.report.passes = pass;
            self.report.flush = started.elapsed();
            if pass_started.elapsed() < QUICK_PASS {
                break;
            }
        }
        // A flush that failed is no reason to give up: FIFREEZE writes the same back, and is the judge.
        for slot in self.all() {
            if let Some(error) = slot.take_failure() {
                tracing::warn!("{} reports a write-back error: {error}", slot.target());
            }
        }
        Ok(())
    }

    /// Freezes stage after stage. On an error the caller thaws.
    fn freeze(&mut self, limit: Duration) -> Result<(), FreezeError> {
        let started = Instant::now();
        let mut cannot = Vec::new();
        for stage in &self.stages {
            for slot in stage {
                self.submit(slot, Operation::Freeze);
            }
            let idle = || stage.iter().all(|slot| slot.running().is_none());
            match self.signal.wait(started + limit, true, idle) {
                Waited::Done => {}
                Waited::Aborted => return Err(FreezeError::Aborted),
                Waited::TimedOut => {
                    let slow = stage.iter().find(|slot| slot.running().is_some());
                    let name = slow.map_or_else(String::new, |slot| slot.target().to_string());
                    return Err(FreezeError::FreezeLimit(name, limit));
                }
            }
            for slot in stage {
                match slot.take_failure() {
                    None => {}
                    Some(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                        cannot.push(Arc::clone(slot));
                    }
                    Some(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        return Err(FreezeError::Foreign(slot.target().to_string()));
                    }
                    Some(error) => {
                        return Err(FreezeError::Freeze(slot.target().to_string(), error));
                    }
                }
            }
        }
        self.flushed_only.extend(cannot);
        self.frozen_at = Instant::now();
        self.report.freeze = started.elapsed();
        Ok(())
    }

    /// Thaws in exact reverse. A call that does not return is left to its thread, and the rest is thawed regardless:
    /// that frees most stuck ones.
    fn thaw(&mut self) {
        let started = Instant::now();
        let mut failures = Vec::new();
        for stage in self.stages.iter().rev() {
            for slot in stage {
                if slot.abandon() {
                    // Its thread is lost to the pool until the kernel returns.
                    self.add_thread(&mut failures);
                }
            }
            let frozen: Vec<_> = stage.iter().filter(|slot| slot.wants_thaw()).collect();
            for slot in &frozen {
                self.submit(slot, Operation::Thaw);
            }
            let idle = || frozen.iter().all(|slot| slot.running().is_none());
            let _ = self
                .signal
                .wait(Instant::now() + THAW_PATIENCE, false, idle);
            for slot in frozen {
                let name = slot.target().to_string();
                if slot.running().is_some() {
                    failures.push(ThawError::Stuck(name, THAW_PATIENCE));
                    self.add_thread(&mut failures);
                    continue;
                }
                match slot.take_failure() {
                    None => {}
                    Some(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                        failures.push(ThawError::Foreign(name));
                    }
                    Some(error) => failures.push(ThawError::Thaw(name, error)),
                }
            }
        }
        // A freeze that was given up comes back once the others are thawed; most do at once.
        let idle = || {
            self.all()
                .all(|slot| slot.running() != Some(Operation::Freeze))
        };
        let _ = self
            .signal
            .wait(Instant::now() + THAW_PATIENCE, false, idle);
        self.report.thaw = started.elapsed();
        self.report.failures = failures.iter().map(|error| with_causes(error)).collect();
    }

    fn add_thread(&self, failures: &mut Vec<ThawError>) {
        if let Err(error) = self.pool.add_thread() {
            failures.push(ThawError::Thaw("a thread for the thaw".to_owned(), error));
        }
    }

    /// Opens the log again, and completes the report.
    fn finish(mut self) -> Report {
        let mut report = std::mem::take(&mut self.report);
        let line = |slot: &Arc<Slot<B>>, flushed_only| FileSystemReport {
            name: slot.target().to_string(),
            times: slot.times(),
            flushed_only,
        };
        let is_flushed_only = |slot: &Arc<Slot<B>>| {
            self.flushed_only
                .iter()
                .any(|other| Arc::ptr_eq(slot, other))
        };
        report.file_systems = self
            .stages
            .iter()
            .flatten()
            .filter(|slot| !is_flushed_only(slot))
            .map(|slot| line(slot, false))
            .chain(self.flushed_only.iter().map(|slot| line(slot, true)))
            .collect();
        report
    }
}

impl<B: Backend> Drop for Hold<B> {
    fn drop(&mut self) {
        if self
            .all()
            .any(|slot| slot.is_frozen() || slot.running() == Some(Operation::Freeze))
        {
            self.thaw();
        }
    }
}
