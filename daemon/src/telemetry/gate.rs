//! The log gate: while anything is frozen, log records wait in memory, because the log may lie on what is frozen.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of log kept during a hold; set aside before the first freeze.
const CAPACITY: usize = 256 * 1024;

/// Where log records go: through to the output while open, into a bounded buffer while closed.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    output: Box<dyn Write + Send>,
    /// Whether a record can be written without waiting.
    ready: Box<dyn Fn() -> bool + Send>,
    closed: u32,
    kept: Vec<u8>,
    overflowed: u64,
}

/// Keeps the gate closed as long as it lives.
#[must_use]
#[derive(Debug)]
pub struct Closed {
    gate: Gate,
}

impl Gate {
    /// A gate in front of `output`, which takes records without waiting.
    #[must_use]
    pub fn new(output: impl Write + Send + 'static) -> Self {
        Self::with(output, || true)
    }

    /// A gate in front of standard error. A reader that has stopped, such as a stopped journal, is never waited for:
    /// records are kept, within the same bound, until it takes them.
    #[must_use]
    pub fn stderr() -> Self {
        Self::with(io::stderr(), stderr_is_ready)
    }

    fn with(
        output: impl Write + Send + 'static,
        ready: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                output: Box::new(output),
                ready: Box::new(ready),
                closed: 0,
                kept: Vec::new(),
                overflowed: 0,
            })),
        }
    }

    /// Holds back all records from now on, until what is returned is dropped.
    pub fn close(&self) -> Closed {
        let mut inner = self.lock();
        inner.closed += 1;
        inner.kept.reserve(CAPACITY);
        Closed { gate: self.clone() }
    }

    /// Whether records are being held back.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed > 0
    }

    /// Whether records wait although nothing is held, because the reader takes none.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        // Whoever holds the lock is writing: the event loop does not wait for that.
        self.inner
            .try_lock()
            .is_ok_and(|inner| inner.closed == 0 && !inner.kept.is_empty())
    }

    /// Tries to write what waits.
    pub fn drain(&self) {
        let mut inner = self.lock();
        if inner.closed == 0 {
            inner.release();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut inner = self.gate.lock();
        inner.closed = inner.closed.saturating_sub(1);
        if inner.closed == 0 {
            inner.release();
        }
    }
}

impl Inner {
    fn put(&mut self, record: &[u8]) {
        if self.closed == 0 {
            self.release();
        }
        if self.closed == 0 && self.kept.is_empty() && (self.ready)() {
            // A log that cannot be written must not stop the agent.
            let _ = self.output.write_all(record);
        } else if self.kept.len() + record.len() <= CAPACITY {
            self.kept.extend_from_slice(record);
        } else {
            self.overflowed += 1;
        }
    }

    /// Writes what was kept, a line at a time, as long as the reader takes it.
    fn release(&mut self) {
        let mut written = 0;
        while let Some(rest) = self.kept.get(written..).filter(|rest| !rest.is_empty()) {
            if !(self.ready)() {
                break;
            }
            let end = rest
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(rest.len(), |end| end + 1);
            let _ = self.output.write_all(rest.get(..end).unwrap_or(rest));
            written += end;
        }
        self.kept.drain(..written);
        if !self.kept.is_empty() {
            return;
        }
        // The room for a hold is not kept between holds.
        self.kept = Vec::new();
        let overflowed = std::mem::take(&mut self.overflowed);
        if overflowed > 0 {
            let _ = writeln!(
                self.output,
                "{overflowed} log records did not fit into memory while none could be written, and are lost"
            );
        }
    }
}

fn stderr_is_ready() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(ready) => ready > 0,
        // What cannot be polled is tried.
        Err(_) => true,
    }
}

/// One record's way through the gate.
#[derive(Debug)]
pub struct Record {
    gate: Gate,
}

impl Write for Record {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.gate.lock().put(record);
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Gate {
    type Writer = Record;

    fn make_writer(&self) -> Record {
        Record { gate: self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_written_during_a_hold_and_everything_after_it() {
        let output = Shared::default();
        let gate = Gate::new(output.clone());
        let log = |text: &str| gate.make_writer().write_all(text.as_bytes()).unwrap();
        log("before\n");
        let hold = gate.close();
        let inner_hold = gate.close();
        log("during\n");
        drop(inner_hold);
        assert!(gate.is_closed());
        assert_eq!(output.text(), "before\n");
        drop(hold);
        log("after\n");
        assert_eq!(output.text(), "before\nduring\nafter\n");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let output = Shared::default();
        let gate = Gate::new(output.clone());
        let hold = gate.close();
        let record = [b'x'; 1000];
        for _ in 0..CAPACITY / 1000 + 3 {
            gate.make_writer().write_all(&record).unwrap();
        }
        drop(hold);
        let text = output.text();
        assert!(text.len() < CAPACITY + 200);
        assert!(
            text.ends_with(
                "3 log records did not fit into memory while none could be written, and are lost\n"
            ),
            "{}",
            &text[text.len() - 100..]
        );
    }

    #[test]
    fn a_reader_that_takes_nothing_is_not_waited_for_and_gets_all_later() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let output = Shared::default();
        let ready = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&ready);
        let gate = Gate::with(output.clone(), move || theirs.load(Ordering::SeqCst));
        let log = |text: &str| gate.make_writer().write_all(text.as_bytes()).unwrap();
        log("one\n");
        log("two\n");
        assert_eq!(output.text(), "");
        assert!(gate.has_backlog());
        ready.store(true, Ordering::SeqCst);
        gate.drain();
        log("three\n");
        assert_eq!(output.text(), "one\ntwo\nthree\n");
        assert!(!gate.has_backlog());
    }
}
