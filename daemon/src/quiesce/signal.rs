//! One condition variable for all that an engine at work waits for: jobs that finish, and the wish to give up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Raised to make a freeze give up; notified whenever a job is done.
#[derive(Debug, Default)]
pub struct Signal {
    abort: AtomicBool,
    generation: Mutex<u64>,
    changed: Condvar,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for has come.
    Done,
    /// The deadline has passed.
    TimedOut,
    /// [`Signal::abort`] was called.
    Aborted,
}

impl Signal {
    /// Makes the freeze at work, and only that, give up.
    pub fn abort(&self) {
        self.abort.store(true, Ordering::SeqCst);
        self.notify();
    }

    /// Forgets an abort that came before; called before a new freeze is asked for.
    pub fn reset(&self) {
        self.abort.store(false, Ordering::SeqCst);
    }

    /// Whether the freeze at work is to give up.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::SeqCst)
    }

    /// Wakes the waiter to look again.
    pub fn notify(&self) {
        let mut generation = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *generation = generation.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Waits until `done`, at most to `deadline`; with `heed_abort` also until an abort.
    pub fn wait(
        &self,
        deadline: Instant,
        heed_abort: bool,
        mut done: impl FnMut() -> bool,
    ) -> Waited {
        let mut generation = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if done() {
                return Waited::Done;
            }
            if heed_abort && self.is_aborted() {
                return Waited::Aborted;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::TimedOut;
            }
            generation = self
                .changed
                .wait_timeout(generation, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_wait_ends_by_the_job_the_abort_or_the_deadline() {
        let signal = Arc::new(Signal::default());
        let soon = || Instant::now() + Duration::from_secs(20);
        assert_eq!(signal.wait(soon(), true, || true), Waited::Done);
        assert_eq!(
            signal.wait(Instant::now(), true, || false),
            Waited::TimedOut
        );
        let other = Arc::clone(&signal);
        let thread = std::thread::spawn(move || other.abort());
        assert_eq!(signal.wait(soon(), true, || false), Waited::Aborted);
        thread.join().unwrap();
        assert_eq!(
            signal.wait(Instant::now(), false, || false),
            Waited::TimedOut
        );
        signal.reset();
        assert!(!signal.is_aborted());
    }
}
