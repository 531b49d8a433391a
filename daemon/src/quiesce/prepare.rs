//! Before anything is frozen: plan, and open every file system of the plan. In a thread of its own, because an open
//! may wait for ever for whoever listens to it (fanotify) or serves what its path leads over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::backend::{Backend, Target};
use super::error::FreezeError;
use super::faults;
use super::handle::{HandleError, Unreached};
use super::signal::{Signal, Waited};
use super::slot::Slot;
use crate::filesystems::{DeviceNumber, LeftOut, Plan, Reason};

/// A mount table that keeps changing between reading and opening is read this often.
const MOST_PLANS: u32 = 5;

/// File systems with open handles: the stages, and what is flushed only.
#[derive(Debug)]
pub(super) struct Prepared<B: Backend> {
    pub(super) stages: Vec<Vec<Arc<Slot<B>>>>,
    pub(super) flushed_only: Vec<Arc<Slot<B>>>,
    /// As [`Plan::unseen`].
    pub(super) unseen: Vec<String>,
    /// What should be held and cannot be, and is told in the report.
    pub(super) not_held: Vec<(Target, Reason)>,
}

/// Does `work` in a thread, within a limit, and heeds an abort. A thread that does not come back is left in `running`,
/// and nothing more is begun until it does.
pub(super) fn in_time<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FreezeError> + Send + 'static,
    limit: Duration,
    signal: &Arc<Signal>,
    running: &mut Option<JoinHandle<()>>,
) -> Result<T, FreezeError> {
    if running.take_if(|thread| thread.is_finished()).is_none() && running.is_some() {
        return Err(FreezeError::StillOpening);
    }
    let (done, result) = mpsc::sync_channel(1);
    let notify = Arc::clone(signal);
    let thread = thread::Builder::new()
        .name("open".to_owned())
        .stack_size(512 * 1024)
        .spawn(move || {
            if let Ok(outcome) = catch_unwind(AssertUnwindSafe(work)) {
                // When nobody waits any more, the handles are closed here.
                let _ = done.send(outcome);
            }
            drop(done);
            notify.notify();
        })
        .map_err(FreezeError::Threads)?;
    let mut outcome = None;
    let waited = signal.wait(Instant::now() + limit, true, || match result.try_recv() {
        Ok(got) => {
            outcome = Some(got);
            true
        }
        Err(TryRecvError::Disconnected) => true,
        Err(TryRecvError::Empty) => false,
    });
    match (waited, outcome) {
        (_, Some(outcome)) => outcome,
        (Waited::Done, None) => Err(FreezeError::Defect),
        (Waited::Aborted, None) => {
            *running = Some(thread);
            Err(FreezeError::Aborted)
        }
        (Waited::TimedOut, None) => {
            *running = Some(thread);
            Err(FreezeError::OpenLimit(limit))
        }
    }
}

/// A mount that vanished in between makes a new plan, so that no parent is frozen for it.
/// `only`: nothing but these file systems. `dead`: these turned out to be so in an attempt before. `strict`: no gap is accepted.
pub(super) fn plan_and_open<B: Backend>(
    backend: &B,
    only: Option<&[DeviceNumber]>,
    dead: &[DeviceNumber],
    strict: bool,
) -> Result<Prepared<B>, FreezeError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut plan = backend.plan()?;
        if let Some(only) = only {
            for stage in &mut plan.stages {
                stage.retain(|superblock| only.contains(&superblock.dev));
            }
            plan.stages.retain(|stage| !stage.is_empty());
            plan.left_out
                .retain(|left_out| only.contains(&left_out.dev));
            let is_planned = |dev: &DeviceNumber| {
                let mut flushed = plan.left_out.iter().filter(|left| left.flush);
                plan.superblocks().any(|fs| fs.dev == *dev) || flushed.any(|fs| fs.dev == *dev)
            };
            if let Some(dev) = only.iter().find(|dev| !is_planned(dev)) {
                return Err(FreezeError::NotPlanned(*dev));
            }
        }
        leave_out(&mut plan, dead);
        if strict {
            accept_no_gap(plan.gaps().map(Target::from))?;
            if only.is_none() {
                accept_nothing_unseen(plan.unseen())?;
            }
        }
        faults::reach("open");
        match open_all(backend, &plan, strict) {
            Ok(prepared) => {
                let slots = prepared
                    .stages
                    .iter()
                    .flatten()
                    .chain(&prepared.flushed_only);
                let handles: Vec<_> = slots.map(|slot| slot.handle()).collect();
                if backend.is_settled(&handles) {
                    return Ok(prepared);
                }
                if attempts == MOST_PLANS {
                    return Err(FreezeError::Unsettled(MOST_PLANS));
                }
            }
            Err(error) if attempts == MOST_PLANS => return Err(error),
            Err(_) => {}
        }
    }
}

/// Refuses the first gap.
fn accept_no_gap(mut gaps: impl Iterator<Item = Target>) -> Result<(), FreezeError> {
    match gaps.next() {
        Some(gap) => Err(FreezeError::Gap(gap.to_string())),
        None => Ok(()),
    }
}

/// Refuses what could not be looked at.
fn accept_nothing_unseen(mut unseen: impl Iterator<Item = String>) -> Result<(), FreezeError> {
    match unseen.next() {
        Some(unseen) => Err(FreezeError::Unseen(unseen)),
        None => Ok(()),
    }
}

/// Opens what a checkpoint would open, and closes it again.
pub(super) fn probe_all<B: Backend>(backend: &B, strict: bool) -> Result<(), FreezeError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let foreseen = backend.foresee()?;
        if strict {
            accept_no_gap(foreseen.gaps.into_iter())?;
            accept_nothing_unseen(foreseen.unseen.into_iter())?;
        }
        let mut targets = foreseen.to_freeze.iter();
        let probed = targets.try_for_each(|(target, in_sight)| match backend.probe(target) {
            Ok(()) => Ok(()),
            Err(error) => not_held(error, target, *in_sight, strict).map(|_| ()),
        });
        match probed {
            Err(_) if attempts < MOST_PLANS => {}
            probed => return probed,
        }
    }
}

/// Takes what cannot be written to any more out of the stages.
fn leave_out(plan: &mut Plan, dead: &[DeviceNumber]) {
    let mut found = Vec::new();
    for stage in &mut plan.stages {
        let (is_dead, alive): (Vec<_>, Vec<_>) = std::mem::take(stage)
            .into_iter()
            .partition(|superblock| dead.contains(&superblock.dev));
        *stage = alive;
        found.extend(is_dead);
    }
    plan.stages.retain(|stage| !stage.is_empty());
    let left_out = |superblock| LeftOut::from_plan(superblock, Reason::ShutDown);
    plan.left_out.extend(found.iter().map(left_out));
}

/// Why a checkpoint goes on without a file system that does not open, if it does.
fn not_held(
    error: HandleError,
    target: &Target,
    in_sight: bool,
    strict: bool,
) -> Result<Option<Reason>, FreezeError> {
    let reason = match error.why() {
        // What is read-only was left out where a mount table tells.
        Unreached::ReadOnly if !in_sight => return Ok(None),
        Unreached::ShutDown => Reason::ShutDown,
        Unreached::OutOfReach if !in_sight => Reason::OutOfReach,
        Unreached::Gone | Unreached::ReadOnly | Unreached::OutOfReach => return Err(error.into()),
    };
    match strict {
        true => Err(FreezeError::Gap(target.to_string())),
        false => Ok(Some(reason)),
    }
}

fn open_all<B: Backend>(
    backend: &B,
    plan: &Plan,
    strict: bool,
) -> Result<Prepared<B>, FreezeError> {
    let gaps = plan.gaps().filter(|gap| !gap.flush);
    let mut without: Vec<(Target, Reason)> = gaps.map(|gap| (gap.into(), gap.reason)).collect();
    let mut open = |target: Target, in_sight| match backend.open(&target) {
        Ok(handle) => Ok(Some(Arc::new(Slot::new(target, handle)))),
        Err(error) => {
            let reason = not_held(error, &target, in_sight, strict)?;
            without.extend(reason.map(|reason| (target, reason)));
            Ok::<_, FreezeError>(None)
        }
    };
    let mut stages = Vec::with_capacity(plan.stages.len());
    for stage in &plan.stages {
        let mut slots = Vec::with_capacity(stage.len());
        for superblock in stage {
            slots.extend(open(superblock.into(), !superblock.mounts.is_empty())?);
        }
        if !slots.is_empty() {
            stages.push(slots);
        }
    }
    let mut flushed_only = Vec::new();
    for left_out in plan.left_out.iter().filter(|left_out| left_out.flush) {
        flushed_only.extend(open(left_out.into(), !left_out.mounts.is_empty())?);
    }
    Ok(Prepared {
        stages,
        flushed_only,
        unseen: plan.unseen().collect(),
        not_held: without,
    })
}
