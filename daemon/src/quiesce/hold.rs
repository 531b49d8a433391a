//! What is frozen, or being frozen: freeze stage by stage, thaw in reverse.
//!
//! From the first freeze to the last thaw nothing here opens, executes, writes a log or looks up a path.

use std::cmp::Reverse;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::error::{FreezeError, ThawError, with_causes};
use super::faults;
use super::guardian::freezer;
use super::held_up;
use super::ledger::{Ledger, Mark};
use super::pool::Pool;
use super::report::{FileSystemReport, FileSystemResult, PhaseName, Report};
use super::signal::{Signal, Waited};
use super::slot::{Call, Calls, Operation, Slot};
use super::target::Target;
use super::writers::Writers;
use crate::config::{ForeignFreeze, Strictness};
use crate::filesystems::Reason;
use crate::telemetry::gate::Closed;

/// How long a thaw may take before the next stage is thawed regardless, and what could not be thawed is given another try.
pub(super) const STAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long all stages together are waited for: the driver answers THAW with failure by itself after 30 s, and another try
/// of what failed comes after this.
const THAW_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a freeze that was given up may take to return before the host is told: most do once the others are thawed.
const RETURN_TIMEOUT: Duration = Duration::from_millis(500);

/// Tells whether a hold is kept, from any thread: asked just before the host is told that everything is frozen.
#[derive(Clone, Debug)]
pub struct Kept {
    marks: Vec<(Arc<Ledger>, usize)>,
    until: Instant,
}

impl Kept {
    /// Everything that was frozen still is, as far as we know, and the guardian's limit has not passed.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let frozen =
            |(ledger, index): &(Arc<Ledger>, usize)| ledger.get(*index) == Some(Mark::Frozen);
        self.marks.iter().all(frozen) && Instant::now() < self.until
    }
}

/// What is frozen, or being frozen. Dropping it thaws.
#[derive(Debug)]
pub(super) struct Hold<B: Backend> {
    pub(super) backend: Arc<B>,
    pub(super) signal: Arc<Signal>,
    pub(super) pool: Pool,
    pub(super) stages: Vec<Vec<Arc<Slot<B>>>>,
    pub(super) flushed_only: Vec<Arc<Slot<B>>>,
    /// Those that should be held and cannot be.
    pub(super) not_held: Vec<(Target, Reason)>,
    /// Those that someone else had frozen.
    pub(super) foreign: Vec<Arc<Slot<B>>>,
    /// Those that the device mapper keeps frozen, beside us.
    pub(super) suspended: Vec<Arc<Slot<B>>>,
    /// Who slept in a write before the first freeze.
    pub(super) writers: Writers,
    pub(super) report: Report,
    /// The first `FIFREEZE` is called.
    pub(super) freezing_since: Instant,
    pub(super) frozen_at: Instant,
    /// Every thaw has been tried.
    pub(super) thawed: bool,
    /// Keeps the log back.
    pub(super) gate: Option<Closed>,
}

impl<B: Backend> Hold<B> {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Slot<B>>> {
        self.stages.iter().flatten().chain(&self.flushed_only)
    }

    /// Whether there is anything to freeze.
    pub(super) fn holds_any(&self) -> bool {
        self.stages.iter().any(|stage| !stage.is_empty())
    }

    /// Calls that have not returned, and file systems that could not be thawed.
    pub(super) fn unreturned(&self) -> Vec<Arc<Slot<B>>> {
        self.all()
            .filter(|slot| slot.running().is_some() || slot.is_frozen())
            .map(Arc::clone)
            .collect()
    }

    /// The descriptors of all stages with their places in the ledger; `None` if one has no descriptor to guard it by.
    pub(super) fn handles<'a>(&'a self, backend: &B) -> Option<Vec<Vec<(BorrowedFd<'a>, usize)>>> {
        let mut places = 0..;
        let mut stages = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let handles = stage
                .iter()
                .map(|slot| Some((backend.descriptor(slot.handle())?, places.next()?)));
            stages.push(handles.collect::<Option<_>>()?);
        }
        Some(stages)
    }

    pub(super) fn submit(&self, slot: &Arc<Slot<B>>, operation: Operation) {
        slot.submit(&self.pool, &self.backend, &self.signal, operation);
    }

    /// Freezes stage after stage. On an error the caller thaws.
    pub(super) fn freeze(
        &mut self,
        limit: Duration,
        foreign: ForeignFreeze,
        strictness: Strictness,
    ) -> Result<(), FreezeError> {
        let _hurry = Hurry::begin(&self.backend);
        let started = Instant::now();
        let frozen = self.freeze_stages(started, limit, foreign, strictness);
        self.frozen_at = Instant::now();
        self.report.phase(PhaseName::Freeze, started);
        frozen
    }

    fn freeze_stages(
        &mut self,
        started: Instant,
        limit: Duration,
        foreign: ForeignFreeze,
        strictness: Strictness,
    ) -> Result<(), FreezeError> {
        let mut cannot = Vec::new();
        for stage in &self.stages {
            for slot in longest_first(stage, |calls| calls.flush) {
                self.submit(slot, Operation::Freeze);
            }
            match held_up::wait_for(stage, &self.writers, &self.signal, started + limit) {
                Waited::Done => {}
                Waited::Aborted => return Err(FreezeError::Aborted),
                Waited::TimedOut => {
                    let name = still_running(stage.iter());
                    let slow = stage.iter().find(|slot| slot.running().is_some());
                    let cause =
                        slow.map_or_else(String::new, |slot| held_up::cause(slot, &self.writers));
                    return Err(FreezeError::FreezeLimit(name, limit, cause));
                }
            }
            faults::reach("stage");
            if started.elapsed() > limit {
                // This process was stopped meanwhile: the guardian may have thawed, also what is marked frozen after it.
                let name = stage
                    .first()
                    .map_or_else(String::new, |slot| slot.target().to_string());
                let cause = "this process was stopped meanwhile".to_owned();
                return Err(FreezeError::FreezeLimit(name, limit, cause));
            }
            for slot in stage {
                match slot.take_failure() {
                    None => {}
                    Some(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                        if strictness == Strictness::Strict {
                            return Err(FreezeError::Gap(slot.target().to_string()));
                        }
                        cannot.push(Arc::clone(slot));
                    }
                    Some(error) if freezer::is_withdrawn(&error) => {
                        return Err(FreezeError::GuardianActed);
                    }
                    Some(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        self.foreign.push(Arc::clone(slot));
                        if foreign == ForeignFreeze::Accept {
                            continue;
                        }
                        return Err(FreezeError::Foreign(slot.target().to_string()));
                    }
                    Some(error) => {
                        return Err(FreezeError::Freeze(slot.target().to_string(), error));
                    }
                }
            }
        }
        self.flushed_only.extend(cannot);
        Ok(())
    }

    /// What tells whether all that was frozen still is, as far as we know; the guardian thaws at `until`.
    pub(super) fn kept(&self, until: Instant) -> Kept {
        let frozen = self.stages.iter().flatten().filter(|slot| slot.is_frozen());
        Kept {
            marks: frozen.filter_map(|slot| slot.record().cloned()).collect(),
            until,
        }
    }

    /// Thaws in exact reverse. A call that does not return is left to its thread, and the rest is thawed regardless:
    /// that frees most stuck ones.
    pub(super) fn thaw(&mut self) {
        self.thawed = true;
        let started = Instant::now();
        let mut failures = Vec::new();
        let deadline = started + THAW_TIMEOUT;
        let mut begun: Vec<&Arc<Slot<B>>> = Vec::new();
        for (before, stage) in self.stages.iter().enumerate().rev() {
            // All of them first: a new thread would take one that still waits for a thread.
            let abandoned = stage.iter().filter(|slot| slot.abandon()).count();
            for _ in 0..abandoned {
                // Each has taken a thread from the pool, until the kernel returns.
                self.add_thread(&mut failures);
            }
            let frozen = stage.iter().filter(|slot| slot.wants_thaw());
            let frozen = longest_first(frozen, |calls| calls.freeze);
            for slot in &frozen {
                self.submit(slot, Operation::Thaw);
            }
            let idle = || frozen.iter().all(|slot| slot.running().is_none());
            // Each stage that is left may be stuck, and some time is to be left after the last one.
            let shares = u32::try_from(before + 2).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / shares;
            let stage_ends = Instant::now() + share.min(STAGE_TIMEOUT);
            let _ = self.signal.wait(stage_ends, false, idle);
            for slot in &frozen {
                if slot.running().is_some() {
                    self.add_thread(&mut failures);
                }
            }
            begun.extend(frozen);
        }
        // A freeze that was given up comes back once the others are thawed; most do at once, and are then thawed by
        // whoever ran them.
        let idle = || self.all().all(|slot| !slot.is_undoing());
        let _ = self
            .signal
            .wait(Instant::now() + RETURN_TIMEOUT, false, idle);
        // What is slow and works is no failure: the host waits for it.
        let idle = || begun.iter().all(|slot| slot.running().is_none());
        let _ = self.signal.wait(deadline, false, idle);
        for slot in begun {
            let name = slot.target().to_string();
            if slot.running().is_some() {
                failures.push(ThawError::Stuck(name, started.elapsed()));
                continue;
            }
            match slot.take_failure() {
                // Whether the kernel tells of it by EINVAL depends on its version.
                None if self.backend.is_suspended(slot.handle()) => {
                    self.suspended.push(Arc::clone(slot));
                }
                None => {}
                Some(error) if freezer::is_taken(&error) => {
                    failures.push(ThawError::Guardian(name))
                }
                Some(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    if self.backend.is_suspended(slot.handle()) {
                        self.suspended.push(Arc::clone(slot));
                    } else {
                        failures.push(ThawError::Foreign(name));
                    }
                }
                Some(error) => failures.push(ThawError::Thaw(name, error)),
            }
        }
        self.report.phase(PhaseName::Thaw, started);
        for error in &failures {
            self.report.fail(with_causes(error));
        }
    }

    /// Frees what is still in a freeze after the thaw of all others, if it waits for somebody who sleeps; who that was, in words.
    pub(super) fn release(&self) -> Vec<String> {
        if self.all().any(|slot| slot.is_frozen()) {
            // Looking for them opens files: not while anything is frozen.
            return Vec::new();
        }
        let slots: Vec<_> = self.all().collect();
        held_up::release(&slots, &*self.backend, &self.signal)
    }

    fn add_thread(&self, failures: &mut Vec<ThawError>) {
        if let Err(error) = self.pool.add_thread() {
            failures.push(ThawError::Thread(error));
        }
    }

    /// The report, with a line for each file system.
    pub(super) fn completed_report(&self) -> Report {
        let mut report = self.report.clone();
        let staged = self.stages.iter().zip(1..);
        let staged =
            staged.flat_map(|(stage, number)| stage.iter().map(move |slot| (slot, Some(number))));
        // What stands in a stage and turned out unable to freeze is in both.
        let is_staged = |slot: &Arc<Slot<B>>| is_in(slot, self.stages.iter().flatten());
        let flushed = self.flushed_only.iter().filter(|slot| !is_staged(slot));
        let mut lines: Vec<_> = staged
            .chain(flushed.map(|slot| (slot, None)))
            .map(|(slot, stage)| self.line(&report, slot, stage))
            .collect();
        lines.extend(
            self.not_held
                .iter()
                .map(|(target, reason)| FileSystemReport {
                    result: FileSystemResult::LeftOut,
                    reason: Some(reason.to_string()),
                    ..FileSystemReport::of(target)
                }),
        );
        lines.sort_by_key(|line| match line.result {
            FileSystemResult::FlushedOnly => 1,
            FileSystemResult::LeftOut => 2,
            _ => 0,
        });
        report.set_file_systems(lines);
        report
    }

    fn line(&self, report: &Report, slot: &Arc<Slot<B>>, stage: Option<usize>) -> FileSystemReport {
        let calls = slot.calls();
        let result = if is_in(slot, &self.flushed_only) {
            FileSystemResult::FlushedOnly
        } else if is_in(slot, &self.foreign) {
            FileSystemResult::Foreign
        } else if slot.running().is_some() {
            FileSystemResult::Stuck
        } else if slot.is_frozen() {
            FileSystemResult::StillFrozen
        } else if calls.thaw.is_some() {
            FileSystemResult::Frozen
        } else {
            FileSystemResult::NotFrozen
        };
        let mut line = FileSystemReport {
            stage,
            result,
            flush: report.call(calls.flush),
            freeze: report.call(calls.freeze),
            thaw: report.call(calls.thaw),
            suspended: is_in(slot, &self.suspended),
            ..FileSystemReport::of(slot.target())
        };
        line.stall = report.stall(&line);
        line
    }
}

fn is_in<'a, B: Backend>(
    slot: &Arc<Slot<B>>,
    slots: impl IntoIterator<Item = &'a Arc<Slot<B>>>,
) -> bool {
    slots.into_iter().any(|other| Arc::ptr_eq(slot, other))
}

/// In the order in which threads are to take them, when there are fewer threads: what took longest the last time begins
/// first, so that no long call begins when the others are done.
pub(super) fn longest_first<'a, B: Backend>(
    slots: impl IntoIterator<Item = &'a Arc<Slot<B>>>,
    call: impl Fn(Calls) -> Option<Call>,
) -> Vec<&'a Arc<Slot<B>>> {
    let mut slots: Vec<_> = slots.into_iter().collect();
    // Small differences are chance, and not worth another order than the plan's.
    let took = |call: Call| call.took.as_millis() / 10;
    slots.sort_by_cached_key(|slot| Reverse(call(slot.calls()).map(took)));
    slots
}

/// The first of these that a call has not returned for; its name is for the operator.
pub(super) fn still_running<'a, B: Backend>(
    mut slots: impl Iterator<Item = &'a Arc<Slot<B>>>,
) -> String {
    let slow = slots.find(|slot| slot.running().is_some());
    slow.map_or_else(String::new, |slot| slot.target().to_string())
}

/// Hurries the kernel as long as it lives, also when a defect unwinds.
struct Hurry<B: Backend>(Arc<B>);

impl<B: Backend> Hurry<B> {
    fn begin(backend: &Arc<B>) -> Self {
        backend.hurry(true);
        Self(Arc::clone(backend))
    }
}

impl<B: Backend> Drop for Hurry<B> {
    fn drop(&mut self) {
        self.0.hurry(false);
    }
}

impl<B: Backend> Drop for Hold<B> {
    fn drop(&mut self) {
        // What the thaw could not do the first time is with the ledger and the guardian now.
        if !self.thawed
            && self
                .all()
                .any(|slot| slot.is_frozen() || slot.running() == Some(Operation::Freeze))
        {
            self.thaw();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiesce::ledger::Place;
    use crate::quiesce::protocol::By;

    #[test]
    fn a_hold_is_kept_as_long_as_every_mark_says_so_and_the_guardians_limit_has_not_passed() {
        let targets = [Target::default(), Target::default()];
        let ledger = Arc::new(Ledger::create(&Place::Memory, targets.iter()).unwrap());
        let kept = |limit| Kept {
            marks: vec![(Arc::clone(&ledger), 0), (Arc::clone(&ledger), 1)],
            until: Instant::now() + limit,
        };
        ledger.set(0, Mark::Frozen);
        ledger.set(1, Mark::Frozen);
        assert!(kept(Duration::from_secs(60)).is_kept());
        assert!(!kept(Duration::ZERO).is_kept());
        for mark in [
            Mark::Thawing(By::Guardian),
            Mark::Thawed,
            Mark::GivenUp,
            Mark::Failed,
        ] {
            ledger.set(1, mark);
            assert!(!kept(Duration::from_secs(60)).is_kept(), "{mark:?}");
        }
    }
}
