//! Applications that do as they are told, and remember what was asked of them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hv_vssd::hooks::{
    Applications, Checkpoint, Failure, HookError, Operation, Outcome, Output, Run,
};

use super::{Double, Fs, PATIENCE};

/// A call, and what the engine had frozen and flushed by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) frozen: Vec<Fs>,
    pub(crate) flushed: Vec<Fs>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    owed: bool,
    refused: bool,
    fails: bool,
    /// Calls of this operation do not return before they are released, or given up.
    stuck: Option<Operation>,
    at_work: Option<Operation>,
}

#[derive(Debug)]
pub(crate) struct Database {
    double: Double,
    state: Mutex<State>,
    changed: Condvar,
}

impl Database {
    pub(crate) fn new(double: &Double) -> Arc<Self> {
        Arc::new(Self {
            double: double.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn refuse(&self) {
        self.lock().refused = true;
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.lock().fails = fails;
    }

    pub(crate) fn stick(&self, operation: Operation) {
        self.lock().stuck = Some(operation);
    }

    pub(crate) fn release(&self) {
        self.lock().stuck = None;
        self.changed.notify_all();
    }

    /// An earlier agent has brought it to rest.
    pub(crate) fn owe(&self) {
        self.lock().owed = true;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.calls().iter().map(|call| call.operation).collect()
    }

    /// Waits until a call of this operation has begun and not returned.
    pub(crate) fn wait_for(&self, operation: Operation) {
        let deadline = Instant::now() + PATIENCE;
        while self.lock().at_work != Some(operation) {
            assert!(
                Instant::now() < deadline,
                "waited in vain for {operation:?}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn call(
        &self,
        operation: Operation,
        outcome: Option<Outcome>,
        aborted: &dyn Fn() -> bool,
    ) -> Run {
        let begun = Instant::now();
        let call = Call {
            operation,
            outcome,
            frozen: self.double.frozen(),
            flushed: self.double.done(super::Op::Sync),
        };
        let mut state = self.lock();
        state.calls.push(call);
        state.at_work = Some(operation);
        while state.stuck == Some(operation) && !aborted() {
            let tick = Duration::from_millis(5);
            let waited = self.changed.wait_timeout(state, tick);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.at_work = None;
        Run {
            name: "10-database".to_owned(),
            operation,
            begun,
            ended: Instant::now(),
            failure: None,
            output: Output::default(),
        }
    }
}

impl Applications for Database {
    fn check(&self) -> Result<(), HookError> {
        if self.lock().refused {
            return Err(HookError::Total("10-database".to_owned(), PATIENCE));
        }
        Ok(())
    }

    fn limit(&self) -> Duration {
        PATIENCE
    }

    fn freeze(
        &self,
        _checkpoint: &Checkpoint,
        aborted: &dyn Fn() -> bool,
        runs: &mut Vec<Run>,
    ) -> Result<(), HookError> {
        self.check()?;
        self.lock().owed = true;
        runs.push(self.call(Operation::Freeze, None, aborted));
        if aborted() {
            return Err(HookError::Aborted);
        }
        if self.lock().fails {
            return Err(HookError::Failed(
                "10-database".to_owned(),
                Failure::Exit(3),
            ));
        }
        Ok(())
    }

    fn owes_thaw(&self) -> bool {
        self.lock().owed
    }

    fn thaw(&self, outcome: Outcome) -> Vec<Run> {
        let run = self.call(Operation::Thaw, Some(outcome), &|| false);
        self.lock().owed = false;
        vec![run]
    }
}
