//! Before anything is frozen: plan, and open every file system of the plan. In a thread of its own, because an open
//! may wait for ever for whoever listens to it (fanotify) or serves what its path leads over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::backend::{Backend, Missing, Target};
use super::error::FreezeError;
use super::faults;
use super::signal::{Signal, Waited};
use super::slot::Slot;
use crate::filesystems::{DeviceNumber, Plan};

/// A mount table that keeps changing between reading and opening is read this often.
const MOST_PLANS: u32 = 5;

/// File systems with open handles: the stages, and what is flushed only.
#[derive(Debug)]
pub(super) struct Prepared<B: Backend> {
    pub(super) stages: Vec<Vec<Arc<Slot<B>>>>,
    pub(super) flushed_only: Vec<Arc<Slot<B>>>,
    /// As [`Plan::unseen`].
    pub(super) unseen: Vec<String>,
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
/// `only`: nothing but these file systems. `strict`: no gap is accepted.
pub(super) fn plan_and_open<B: Backend>(
    backend: &B,
    only: Option<&[DeviceNumber]>,
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
        if strict {
            let mut missing = Missing::of(&plan);
            if only.is_some() {
                missing.unseen.clear();
            }
            accept_nothing_missing(missing)?;
        }
        faults::reach("open");
        match open_all(backend, &plan) {
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

/// Refuses the first gap, and what could not be looked at.
pub(super) fn accept_nothing_missing(missing: Missing) -> Result<(), FreezeError> {
    if let Some(gap) = missing.gaps.first() {
        return Err(FreezeError::Gap(gap.to_string()));
    }
    match missing.unseen.into_iter().next() {
        Some(unseen) => Err(FreezeError::Unseen(unseen)),
        None => Ok(()),
    }
}

fn open_all<B: Backend>(backend: &B, plan: &Plan) -> Result<Prepared<B>, FreezeError> {
    let open = |target: Target| -> Result<Arc<Slot<B>>, FreezeError> {
        let handle = backend.open(&target)?;
        Ok(Arc::new(Slot::new(target, handle)))
    };
    let mut stages = Vec::with_capacity(plan.stages.len());
    for stage in &plan.stages {
        let slots = stage.iter().map(|superblock| open(superblock.into()));
        stages.push(slots.collect::<Result<_, _>>()?);
    }
    let flushed = plan.left_out.iter().filter(|left_out| left_out.flush);
    let flushed_only = flushed
        .map(|left_out| open(left_out.into()))
        .collect::<Result<_, _>>()?;
    Ok(Prepared {
        stages,
        flushed_only,
        unseen: plan.unseen().collect(),
    })
}
