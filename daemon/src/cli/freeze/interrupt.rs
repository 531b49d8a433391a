//! Whatever asks the command to end makes it thaw first: Ctrl-C, Ctrl-Z, Ctrl-\, a lost terminal, SIGTERM.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal as Number};

use crate::quiesce::Signal;

/// A stop by Ctrl-Z would leave the hold to the guardian.
pub(super) const ENDS: [Number; 5] = [
    Number::SIGINT,
    Number::SIGTERM,
    Number::SIGHUP,
    Number::SIGQUIT,
    Number::SIGTSTP,
];

/// A thread that takes the signals, and the first it got.
#[derive(Debug)]
pub(super) struct Interrupt(Arc<AtomicI32>);

impl Interrupt {
    /// From now on none of them ends the process: they abort a freeze at work, and end a wait, through `signal`. To be called before any
    /// other thread is started, as those inherit it.
    pub(super) fn watch(signal: Arc<Signal>) -> io::Result<Self> {
        let set: SigSet = ENDS.into_iter().collect();
        set.thread_block()?;
        let first = Arc::new(AtomicI32::new(0));
        let theirs = Arc::clone(&first);
        thread::Builder::new()
            .name("signals".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || {
                loop {
                    if let Ok(number) = set.wait() {
                        let (new, order) = (number as i32, Ordering::SeqCst);
                        let _ = theirs.compare_exchange(0, new, order, order);
                        signal.abort();
                    }
                }
            })?;
        Ok(Self(first))
    }

    /// The first signal that came.
    pub(super) fn by(&self) -> Option<&'static str> {
        let number = Number::try_from(self.0.load(Ordering::SeqCst)).ok()?;
        Some(number.as_str())
    }
}
