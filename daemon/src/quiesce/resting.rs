//! Applications as the engine sees them: brought to rest once for a checkpoint, let go on in a thread of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::error::FreezeError;
use super::report::{HookOperation, HookReport, PhaseName, Report};
use super::signal::{Signal, Waited};
use crate::hooks::{Applications, Checkpoint, HookError, Operation, Outcome, Run};

/// How often whoever waits for applications looks again; what is waited for also wakes it.
const LOOK: Duration = Duration::from_secs(60);

/// What ends the wait for applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing but that they go on.
    Over,
    /// Also that the freeze asked for is to give up.
    Aborted,
    /// Also that this time has passed.
    Elapsed(Duration),
}

/// The applications of this machine, if any.
#[derive(Debug, Default)]
pub(super) struct Resting {
    applications: Option<Arc<dyn Applications>>,
    /// Calls that nobody has been told of.
    runs: Vec<Run>,
    /// The thread in which they are let go on.
    thawing: Option<Receiver<Vec<Run>>>,
}

impl Resting {
    pub(super) fn replace(&mut self, applications: Arc<dyn Applications>) {
        self.applications = Some(applications);
    }

    /// Whether they could be brought to rest.
    pub(super) fn check(&self) -> Result<(), FreezeError> {
        match &self.applications {
            Some(applications) => Ok(applications.check()?),
            None => Ok(()),
        }
    }

    /// Brings them to rest; `hold` is the longest time from then to their thaw.
    pub(super) fn freeze(
        &mut self,
        report: &mut Report,
        hold: Duration,
        signal: &Signal,
    ) -> Result<(), FreezeError> {
        let Some(applications) = &self.applications else {
            return Ok(());
        };
        let checkpoint = Checkpoint {
            id: report.id.clone(),
            hold,
        };
        let before = self.runs.len();
        let started = Instant::now();
        let aborted = || signal.is_aborted();
        let result = applications.freeze(&checkpoint, &aborted, &mut self.runs);
        let new = self.runs.get(before..).unwrap_or_default();
        if !new.is_empty() {
            report.phase(PhaseName::Hooks, started);
        }
        enter(report, new);
        result.map_err(|error| match error {
            HookError::Aborted => FreezeError::Aborted,
            other => FreezeError::Hook(other),
        })
    }

    /// Begins to let them go on, if anything is owed; `done` is called when that is over. Does not wait for it.
    pub(super) fn start_thaw(
        &mut self,
        outcome: Outcome,
        signal: &Arc<Signal>,
        done: impl FnOnce() + Send + 'static,
    ) -> bool {
        if self.thawing.is_some() {
            return true;
        }
        let Some(applications) = self.applications.as_ref().filter(|some| some.owes_thaw()) else {
            return false;
        };
        let (sender, receiver) = sync_channel(1);
        let at_work = Arc::clone(applications);
        let notify = Arc::clone(signal);
        let spawned = thread::Builder::new()
            .name("hooks".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                let _ = sender.send(at_work.thaw(outcome));
                drop(sender);
                notify.notify();
                done();
            });
        if spawned.is_err() {
            // Without a thread the host may have to wait; the applications must not.
            self.runs.extend(applications.thaw(outcome));
            return false;
        }
        self.thawing = Some(receiver);
        true
    }

    /// Waits for a thaw that was started; `false` if something else ends the wait.
    pub(super) fn wait(&mut self, signal: &Signal, until: Until) -> bool {
        let Some(receiver) = self.thawing.take() else {
            return true;
        };
        let mut got = None;
        let mut is_over = || match receiver.try_recv() {
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => true,
            Ok(runs) => {
                got = Some(runs);
                true
            }
        };
        let step = match until {
            Until::Elapsed(time) => time,
            Until::Over | Until::Aborted => LOOK,
        };
        loop {
            let heed_abort = until == Until::Aborted;
            match signal.wait(Instant::now() + step, heed_abort, &mut is_over) {
                Waited::Done => break,
                Waited::TimedOut if !matches!(until, Until::Elapsed(_)) => {}
                Waited::TimedOut | Waited::Aborted => {
                    self.thawing = Some(receiver);
                    return false;
                }
            }
        }
        self.runs.extend(got.into_iter().flatten());
        true
    }

    /// Tells the log of all calls, and the report of those that it does not have yet.
    pub(super) fn tell(&mut self, report: Option<&mut Report>) {
        if let Some(report) = report {
            let thawed = self
                .runs
                .iter()
                .filter(|run| run.operation == Operation::Thaw);
            enter(report, thawed);
        }
        for run in self.runs.drain(..) {
            run.log();
        }
    }
}

fn enter<'a>(report: &mut Report, runs: impl IntoIterator<Item = &'a Run>) {
    for run in runs {
        let called = HookReport {
            name: run.name.clone(),
            operation: match run.operation {
                Operation::Freeze => HookOperation::Freeze,
                Operation::Thaw => HookOperation::Thaw,
            },
            span: report.span(run.begun, run.ended),
            failure: run.failure.clone(),
        };
        report.hooks.push(called);
    }
}
