//! Applications: executables that bring them to rest before a freeze, and let them go on after the thaw.
//!
//! Called with `freeze` or `thaw`, as qemu-guest-agent's fsfreeze-hook.d has it. What was started with `freeze` owes its
//! `thaw`, whatever happens: it is on record before it starts.

pub mod applications;
pub mod discover;
mod exec;
mod leftover;
mod output;
mod record;
mod run;
mod unit;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use self::applications::{Applications, Checkpoint, HookError, Operation, Outcome, Run};
use self::discover::{Hook, Places, accept, discover};
pub use self::exec::exec;
use self::leftover::Leftover;
pub use self::output::Output;
pub use self::record::DEFAULT_PATH as RECORD;
use self::record::{Entry, Record, Trace};
pub use self::run::Failure;
use self::unit::Call;
pub use self::unit::{Way, runs_systemd};
use crate::config::{self, OnFailure};

/// The hooks of this machine. Dropping it thaws what is owed.
#[derive(Debug)]
pub struct Hooks {
    settings: config::Hooks,
    places: Places,
    record: PathBuf,
    way: Option<Way>,
    owed: Mutex<Owed>,
}

/// What was started, in its order.
#[derive(Debug, Default)]
struct Owed {
    record: Record,
    leftovers: Vec<Option<Leftover>>,
    /// By an earlier agent.
    recovered: bool,
}

impl Hooks {
    /// The hooks of this machine.
    #[must_use]
    pub fn new(settings: &config::Hooks) -> Self {
        Self::at(settings, Places::default(), Path::new(RECORD), None)
    }

    /// As [`Hooks::new`], at other places, and started in this way rather than the machine's.
    #[must_use]
    pub fn at(settings: &config::Hooks, places: Places, record: &Path, way: Option<Way>) -> Self {
        Self {
            settings: settings.clone(),
            places,
            record: record.to_owned(),
            way,
            owed: Mutex::default(),
        }
    }

    /// Takes over what an earlier agent has on record: it is owed now. For whoever holds the agent's lock.
    #[must_use]
    pub fn recovering(self) -> Self {
        match Record::read(&self.record) {
            Ok(None) => {}
            Ok(Some(record)) => {
                *self.lock() = Owed {
                    record,
                    leftovers: Vec::new(),
                    recovered: true,
                }
            }
            Err(error) => {
                // It would stand in the way for ever; it is kept for whoever wants to know.
                let kept = self.record.with_extension("damaged");
                let _ = std::fs::rename(&self.record, &kept);
                tracing::error!(
                    "which hooks an earlier agent has called cannot be read from {}: {error}; see that the applications run",
                    kept.display()
                );
            }
        }
        self
    }

    fn lock(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self) -> Way {
        self.way.clone().unwrap_or_else(Way::here)
    }

    /// Those to be run. One that is meant to be and must not is as bad as one that fails.
    fn hooks(&self) -> Result<Vec<Hook>, HookError> {
        if !self.settings.enabled {
            return Ok(Vec::new());
        }
        let found = discover(&self.places);
        for skipped in found.skipped {
            tracing::debug!("hook {}: {}", skipped.path.display(), skipped.why);
        }
        for refused in found.refused {
            let path = refused.path.display().to_string();
            if self.settings.on_failure_of(&refused.name) == OnFailure::Abort {
                return Err(HookError::Refused(path, refused.why));
            }
            tracing::warn!("the hook {path} is not run: {}", refused.why);
        }
        Ok(found.hooks)
    }

    /// Calls a hook with `freeze`; on record first.
    fn freeze_one(
        &self,
        hook: &Hook,
        checkpoint: &Checkpoint,
        limit: Duration,
        way: &Way,
        aborted: &dyn Fn() -> bool,
    ) -> Result<(Output, Result<(), Failure>), HookError> {
        // Again: those before it may have taken minutes.
        let file = match accept(&hook.path, &self.places) {
            Ok(file) => file,
            Err(refusal) => return Ok((Output::default(), Err(Failure::Refused(refusal)))),
        };
        let mut owed = self.lock();
        let unit = format!(
            "hv-vssd-hook-freeze-{}-{}.service",
            hook.name, checkpoint.id
        );
        let mut entry = Entry {
            name: hook.name.clone(),
            path: hook.path.clone(),
            trace: (*way == Way::Unit).then(|| Trace::Unit(unit.clone())),
            returned: false,
        };
        owed.record.started.push(entry.clone());
        if let Err(error) = owed.record.write(&self.record) {
            owed.record.started.pop();
            return Err(HookError::Record(self.record.clone(), error));
        }
        let environment = [
            ("HV_VSSD_OPERATION", Operation::Freeze.as_str().to_owned()),
            ("HV_VSSD_CHECKPOINT", checkpoint.id.clone()),
            ("HV_VSSD_DEADLINE", unix_time(limit)),
            ("HV_VSSD_THAW_BY", unix_time(self.limit() + checkpoint.hold)),
        ];
        let call = Call {
            path: &hook.path,
            file,
            operation: Operation::Freeze,
            unit,
            environment: &environment,
            limit,
        };
        // Its thaw is on record by now: what fails from here on costs only the trace of what it leaves behind.
        let mut note = |entry: &Entry| {
            if let Some(last) = owed.record.started.last_mut() {
                *last = entry.clone();
            }
            let _ = owed.record.write(&self.record);
        };
        let ended = run::run(&call, way, aborted, &mut |leftover| {
            entry.trace = Some(leftover.trace().clone());
            note(&entry);
        });
        entry.returned = true;
        note(&entry);
        owed.leftovers.push(ended.leftover);
        Ok((ended.output, ended.result))
    }

    /// Calls a hook with `thaw`.
    fn thaw_one(
        &self,
        entry: &Entry,
        owed: &Owed,
        outcome: Outcome,
    ) -> (Output, Result<(), Failure>) {
        let file = match accept(&entry.path, &self.places) {
            Ok(file) => file,
            Err(refusal) => return (Output::default(), Err(Failure::Refused(refusal))),
        };
        let checkpoint = &owed.record.checkpoint;
        // That of a dead agent may still be at work.
        let again = if owed.recovered {
            format!("-{}", std::process::id())
        } else {
            String::new()
        };
        let limit = Duration::from_secs(self.settings.limit_of(&entry.name));
        let environment = [
            ("HV_VSSD_OPERATION", Operation::Thaw.as_str().to_owned()),
            ("HV_VSSD_OUTCOME", outcome.as_str().to_owned()),
            ("HV_VSSD_CHECKPOINT", checkpoint.clone()),
            ("HV_VSSD_DEADLINE", unix_time(limit)),
        ];
        let call = Call {
            path: &entry.path,
            file,
            operation: Operation::Thaw,
            unit: format!(
                "hv-vssd-hook-thaw-{}-{checkpoint}{again}.service",
                entry.name
            ),
            environment: &environment,
            limit,
        };
        let ended = run::run(&call, &self.way(), &|| false, &mut |_| {});
        if let Some(leftover) = ended.leftover {
            leftover.end();
        }
        (ended.output, ended.result)
    }
}

impl Applications for Hooks {
    fn check(&self) -> Result<(), HookError> {
        self.hooks().map(drop)
    }

    fn limit(&self) -> Duration {
        if self.settings.enabled {
            Duration::from_secs(self.settings.total)
        } else {
            Duration::ZERO
        }
    }

    fn freeze(
        &self,
        checkpoint: &Checkpoint,
        aborted: &dyn Fn() -> bool,
        runs: &mut Vec<Run>,
    ) -> Result<(), HookError> {
        if self.owes_thaw() {
            runs.extend(self.thaw(Outcome::Failure));
        }
        let hooks = self.hooks()?;
        let deadline = Instant::now() + self.limit();
        let way = self.way();
        self.lock().record = Record::new(&checkpoint.id);
        for hook in &hooks {
            let begun = Instant::now();
            if aborted() {
                return Err(HookError::Aborted);
            }
            let left = deadline.saturating_duration_since(begun);
            if left.is_zero() {
                return Err(HookError::Total(hook.name.clone(), self.limit()));
            }
            let own = Duration::from_secs(self.settings.limit_of(&hook.name));
            let (output, result) =
                self.freeze_one(hook, checkpoint, own.min(left), &way, aborted)?;
            runs.push(Run {
                name: hook.name.clone(),
                operation: Operation::Freeze,
                begun,
                ended: Instant::now(),
                failure: result.as_ref().err().map(ToString::to_string),
                output,
            });
            match result {
                Ok(()) => {}
                Err(Failure::Aborted) => return Err(HookError::Aborted),
                Err(failure) if self.settings.on_failure_of(&hook.name) == OnFailure::Abort => {
                    return Err(HookError::Failed(hook.name.clone(), failure));
                }
                // It is in the report, and the checkpoint goes on.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn owes_thaw(&self) -> bool {
        !self.lock().record.started.is_empty()
    }

    fn thaw(&self, outcome: Outcome) -> Vec<Run> {
        let mut owed = self.lock();
        let mut runs = Vec::new();
        while let Some(entry) = owed.record.started.last().cloned() {
            let found = || entry.trace.clone().map(Leftover::found);
            if let Some(unfinished) = found().filter(|_| !entry.returned) {
                unfinished.kill();
            }
            let begun = Instant::now();
            let (output, result) = self.thaw_one(&entry, &owed, outcome);
            let own = owed.leftovers.pop().flatten();
            if let Some(leftover) = own.or_else(found) {
                leftover.end();
            }
            runs.push(Run {
                name: entry.name,
                operation: Operation::Thaw,
                begun,
                ended: Instant::now(),
                failure: result.err().map(|failure| failure.to_string()),
                output,
            });
            owed.record.started.pop();
            if let Err(error) = owed.record.write(&self.record) {
                tracing::warn!("{} cannot be written: {error}", self.record.display());
            }
        }
        owed.recovered = false;
        runs
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // Whoever has started something and does not let it go on has died on the way.
        if self.owes_thaw() {
            for run in self.thaw(Outcome::Failure) {
                run.log();
            }
        }
    }
}

/// In seconds since 1970, this much later.
fn unix_time(later: Duration) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    (now + later).as_secs().to_string()
}
