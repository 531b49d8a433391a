//! One file system in the engine's hands: its handle, what is being done to it, and how that went.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::guardian::freezer::{self, Freezer};
use super::ledger::{Ledger, Mark};
use super::pool::Pool;
use super::protocol::{
    By, Call as Ioctl, FreezePart, GiveUpPart, Known, MarkCell, Part, RescuePart, ThawPart,
    carry_out,
};
use super::signal::Signal;
use super::target::Target;

/// How long someone else's freeze is waited for: that of a snapshot lasts some milliseconds.
const FOREIGN_TIMEOUT: Duration = Duration::from_secs(2);
const FOREIGN_INTERVAL: Duration = Duration::from_millis(10);

/// What a thread does to a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A commit of its journal alone.
    Commit,
    /// `syncfs`
    Flush,
    /// `FIFREEZE`
    Freeze,
    /// `FITHAW`
    Thaw,
}

/// A file system with its open handle. Shared with the thread that works on it, so that a call that does not return
/// keeps what is needed to undo it.
#[derive(Debug)]
pub struct Slot<B: Backend> {
    target: Target,
    handle: B::Handle,
    record: OnceLock<(Arc<Ledger>, usize)>,
    /// In place of a record, where there is none.
    mark: AtomicU8,
    freezer: OnceLock<Freezer>,
    cell: Mutex<Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    running: Option<Operation>,
    failure: Option<io::Error>,
    flush_failure: Option<io::Error>,
    frozen: bool,
    abandoned: bool,
    calls: Calls,
}

/// A call that has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it was made.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
}

/// The last call of each kind on one file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// `syncfs`.
    pub flush: Option<Call>,
    /// `FIFREEZE`.
    pub freeze: Option<Call>,
    /// `FITHAW`.
    pub thaw: Option<Call>,
}

impl<B: Backend> Slot<B> {
    /// A file system that nothing has been done to.
    pub fn new(target: Target, handle: B::Handle) -> Self {
        Self {
            target,
            handle,
            record: OnceLock::new(),
            mark: AtomicU8::new(Mark::Planned.byte()),
            freezer: OnceLock::new(),
            cell: Mutex::default(),
        }
    }

    /// Which file system this is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What it is held by.
    pub fn handle(&self) -> &B::Handle {
        &self.handle
    }

    /// From now on what happens to it is noted in `ledger`, at `index`.
    pub fn record_in(&self, ledger: Arc<Ledger>, index: usize) {
        let _ = self.record.set((ledger, index));
    }

    /// From now on a process of its own makes the calls that freeze and thaw it.
    pub fn use_freezer(&self, freezer: Freezer) {
        let _ = self.freezer.set(freezer);
    }

    /// Says that `operation` is about to be run by a thread.
    pub fn begin(&self, operation: Operation) {
        let mut cell = self.lock();
        cell.running = Some(operation);
        cell.failure = None;
    }

    /// Runs `operation`; blocks as long as the kernel does.
    ///
    /// A freeze that was given up meanwhile is undone here, by the thread that has the handle.
    pub fn run(&self, backend: &B, operation: Operation) {
        if operation == Operation::Freeze && self.is_abandoned() {
            // Given up while it waited for a thread.
            self.lock().running = None;
            return;
        }
        let started = Instant::now();
        let result = match operation {
            Operation::Commit => {
                backend.commit(&self.handle);
                Ok(())
            }
            Operation::Flush => backend.sync(&self.handle),
            Operation::Freeze => self.freeze(backend),
            Operation::Thaw => self.call(backend, Ioctl::Thaw),
        };
        let call = Some(Call {
            at: started,
            took: started.elapsed(),
        });
        let mut cell = self.lock();
        match operation {
            Operation::Commit => {}
            Operation::Flush => cell.calls.flush = call,
            Operation::Freeze => cell.calls.freeze = call,
            Operation::Thaw => cell.calls.thaw = call,
        }
        match operation {
            // Also one that failed or was given up, and is not undone yet by whoever does that.
            Operation::Freeze => cell.frozen = result.is_ok() || self.load().wants_thaw(),
            // Also EINVAL: not frozen any more, whoever thawed it.
            Operation::Thaw => cell.frozen = self.load() != Mark::Thawed,
            Operation::Commit | Operation::Flush => {}
        }
        match result {
            // Over all passes: the kernel tells a write-back error once.
            Err(error) if operation == Operation::Flush => {
                cell.flush_failure.get_or_insert(error);
            }
            result => cell.failure = result.err(),
        }
        if operation == Operation::Freeze && cell.frozen && cell.abandoned {
            cell.running = Some(Operation::Thaw);
            drop(cell);
            self.run(backend, Operation::Thaw);
            return;
        }
        cell.running = None;
    }

    /// `FIFREEZE`. A block-layer freeze, such as that of a snapshot being made, is waited out.
    fn freeze(&self, backend: &B) -> io::Result<()> {
        let deadline = Instant::now() + FOREIGN_TIMEOUT;
        loop {
            match self.call(backend, Ioctl::Freeze) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                {
                    std::thread::sleep(FOREIGN_INTERVAL);
                    if self.is_abandoned() {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }

    /// Has a call made: by the process for it, or here where there is none.
    fn call(&self, backend: &B, call: Ioctl) -> io::Result<()> {
        let died = match self.freezer.get().map(|freezer| freezer.call(call)) {
            Some(Ok(result)) => return result,
            Some(Err(died)) => Some(died),
            None => None,
        };
        match (call, died) {
            (Ioctl::Freeze, None) => self.part(backend, FreezePart::default()),
            (Ioctl::Freeze, Some(died)) => {
                // It may have died in the call, or after it: nobody else thaws now.
                let _ = self.rescue(backend);
                Err(io::Error::other(died))
            }
            (Ioctl::Thaw, died) => {
                if died.is_some() && self.load().is_in_call() {
                    return self.rescue(backend);
                }
                self.part(backend, ThawPart::new(By::Agent))
            }
        }
    }

    fn part(&self, backend: &B, part: impl Part) -> io::Result<()> {
        let (end, error) = carry_out(part, self, |call| match call {
            Ioctl::Freeze => backend.freeze(&self.handle),
            Ioctl::Thaw => backend.thaw(&self.handle),
        });
        freezer::outcome(end, error)
    }

    /// The process that makes the calls has died, maybe in one, and this is the one that it made them for.
    fn rescue(&self, backend: &B) -> io::Result<()> {
        let known = Known {
            freezer: false,
            agent: false,
            // It may have been faster.
            guardian: true,
            start: true,
            failed_too: true,
        };
        self.part(backend, RescuePart::new(By::Agent, known))
    }

    fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// What is being done to it now.
    pub fn running(&self) -> Option<Operation> {
        self.lock().running
    }

    /// A freeze of it is at work, or was given up and is being undone by whoever ran it.
    pub fn is_undoing(&self) -> bool {
        let cell = self.lock();
        match cell.running {
            Some(Operation::Freeze) => true,
            Some(Operation::Thaw) => cell.abandoned,
            _ => false,
        }
    }

    /// We froze it, and it is not thawed.
    pub fn is_frozen(&self) -> bool {
        self.lock().frozen
    }

    /// We froze it, and nobody has begun to thaw it, as far as the ledger tells.
    pub fn is_kept(&self) -> bool {
        self.load() == Mark::Frozen
    }

    /// Its place in the ledger.
    pub fn record(&self) -> Option<&(Arc<Ledger>, usize)> {
        self.record.get()
    }

    /// We froze it, and nobody is at work on it.
    pub fn wants_thaw(&self) -> bool {
        let cell = self.lock();
        cell.frozen && cell.running.is_none()
    }

    /// Gives up on a freeze that does not return: whoever runs it thaws when it does. `false` when it just returned.
    pub fn abandon(&self) -> bool {
        let mut cell = self.lock();
        cell.abandoned = cell.running == Some(Operation::Freeze);
        if cell.abandoned {
            // On record, so that it holds even if this process dies.
            carry_out(GiveUpPart, self, |_| Ok(()));
        }
        cell.abandoned
    }

    /// The last operation's error, which is forgotten here.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.lock().failure.take()
    }

    /// The first error of a flush, which is forgotten here.
    pub fn take_flush_failure(&self) -> Option<io::Error> {
        self.lock().flush_failure.take()
    }

    /// Lets a thread of the pool run `operation`, and notifies when it is done.
    pub fn submit(
        self: &Arc<Self>,
        pool: &Pool,
        backend: &Arc<B>,
        signal: &Arc<Signal>,
        operation: Operation,
    ) {
        self.begin(operation);
        let (slot, backend, signal) = (Arc::clone(self), Arc::clone(backend), Arc::clone(signal));
        pool.submit(move || {
            let run = std::panic::AssertUnwindSafe(|| slot.run(&backend, operation));
            if std::panic::catch_unwind(run).is_err() {
                // Whether a call had any effect is not known: it is thawed to be sure.
                for mark in [Mark::Freezing, Mark::GivenUp, Mark::Thawing(By::Agent)] {
                    let _ = slot.swap(mark, Mark::Failed);
                }
                let mut cell = slot.lock();
                cell.frozen = slot.load() == Mark::Failed;
                cell.running = None;
                cell.failure = Some(io::Error::other("an internal error, see the log"));
            }
            signal.notify();
        });
    }

    /// The calls made so far.
    pub fn calls(&self) -> Calls {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> MarkCell for Slot<B> {
    fn load(&self) -> Mark {
        match self.record.get() {
            Some((ledger, index)) => ledger.cell(*index).load(),
            None => Mark::from_byte(self.mark.load(Ordering::SeqCst)),
        }
    }

    fn swap(&self, from: Mark, to: Mark) -> Result<(), Mark> {
        if let Some((ledger, index)) = self.record.get() {
            return ledger.cell(*index).swap(from, to);
        }
        let order = Ordering::SeqCst;
        let swapped = self
            .mark
            .compare_exchange(from.byte(), to.byte(), order, order);
        swapped.map(drop).map_err(Mark::from_byte)
    }
}
