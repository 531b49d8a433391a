//! What the guardian watches over, and how it thaws it.
//!
//! A thaw may block for ever on a dead device, so each is made in a child of its own; the next stage does not wait for
//! it longer than a moment.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hvutil_sys::child::{self, Unfrozen};
use hvutil_sys::freeze;
use hvutil_sys::shared::SharedBytes;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::filesystems::text::printable;
use crate::quiesce::ledger::{self, Mark};
use crate::quiesce::report;

/// How long a stage's thaws are waited for before the next stage's begin.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the guardian watches over.
pub(super) struct Watch {
    pub(super) ledger: File,
    pub(super) marks: SharedBytes,
    pub(super) handles: Vec<Guarded>,
    pub(super) expected: usize,
    pub(super) acknowledged: bool,
    pub(super) limit_passed: bool,
    /// The switch that the agent uses in the freeze, as it was before.
    pub(super) was_expedited: Option<bool>,
    pub(super) deadline: Option<Instant>,
}

pub(super) struct Guarded {
    pub(super) fd: OwnedFd,
    pub(super) stage: u32,
    pub(super) offset: usize,
    /// The last child that was to thaw it.
    pub(super) child: Cell<Option<i32>>,
}

/// Why the guardian acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    AgentDied,
    LimitPassed,
    /// Some time after the limit: what the agent had begun to thaw by itself is not done.
    StillNotThawed,
}

impl Guarded {
    /// Whether a child is at it still: it ends by itself, and needs no second one.
    fn has_child(&self) -> bool {
        let child = self.child.get().map(Pid::from_raw);
        child.is_some_and(|child| {
            matches!(
                waitpid(child, Some(WaitPidFlag::WNOHANG)),
                Ok(WaitStatus::StillAlive)
            )
        })
    }
}

impl Watch {
    pub(super) fn is_newly_complete(&self) -> bool {
        !self.acknowledged && self.handles.len() == self.expected
    }

    pub(super) fn mark(&self, handle: &Guarded) -> Mark {
        self.marks
            .load(handle.offset)
            .map_or(Mark::Freezing, Mark::from_byte)
    }

    /// Thaws what the agent has frozen, in reverse, and what it was freezing. Then says so.
    pub(super) fn rescue(&mut self, cause: Cause, socket: &OwnedFd) {
        let started = Instant::now();
        let count = self.thaw_all(cause, socket);
        if count > 0 {
            self.report(cause, count, started.elapsed());
        }
        // What does not return is waited for by its child; this process stays, so that its service stays.
        while cause == Cause::AgentDied
            && self
                .handles
                .iter()
                .any(|handle| matches!(self.mark(handle), Mark::Freezing | Mark::Thawing))
        {
            sleep(Duration::from_millis(50));
            reap();
        }
    }

    /// How many thaws were begun; each was waited for, but not for ever.
    pub(super) fn thaw_all(&self, cause: Cause, socket: &OwnedFd) -> usize {
        let last = self.handles.last().map_or(0, |handle| handle.stage);
        let mut count = 0;
        for stage in (0..=last).rev() {
            let of_stage = || {
                self.handles
                    .iter()
                    .filter(move |handle| handle.stage == stage)
            };
            for handle in of_stage().filter(|handle| self.claim(handle, cause)) {
                self.thaw(handle, Unfrozen::Done);
                count += 1;
            }
            self.wait(|| of_stage().any(|handle| self.mark(handle) == Mark::Thawing));
        }
        // Their freeze may have succeeded unseen, or may still be at work in a thread that cannot be killed.
        let unknown =
            |handle: &&Guarded| self.mark(handle) == Mark::Freezing && !handle.has_child();
        for handle in self.handles.iter().filter(unknown) {
            let still = Mark::Freezing.byte();
            let socket = socket.as_fd();
            self.thaw(handle, Unfrozen::RetryUntilClosed { socket, still });
            count += 1;
        }
        self.wait(|| {
            self.handles
                .iter()
                .any(|handle| matches!(self.mark(handle), Mark::Freezing | Mark::Thawing))
        });
        count
    }

    /// Whether this thaw is the guardian's. A living agent may have begun it itself; a dead one cannot end it.
    fn claim(&self, handle: &Guarded, cause: Cause) -> bool {
        let take = |from: Mark| {
            let (from, to) = (from.byte(), Mark::Thawing.byte());
            self.marks.swap_if(handle.offset, from, to)
        };
        take(Mark::Frozen)
            || (cause != Cause::LimitPassed
                && (take(Mark::Failed)
                    || (self.mark(handle) == Mark::Thawing && !handle.has_child())))
    }

    fn wait(&self, wanted: impl Fn() -> bool) {
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience && wanted() {
            pause();
        }
    }

    fn thaw(&self, handle: &Guarded, unfrozen: Unfrozen<'_>) {
        let mark = child::Mark {
            bytes: &self.marks,
            index: handle.offset,
            thawed: Mark::Thawed.byte(),
            failed: Mark::Failed.byte(),
        };
        if let Ok(pid) = child::thaw(handle.fd.as_fd(), mark, unfrozen) {
            handle.child.set(Some(pid));
        } else {
            // No process to be had: better to risk waiting than to leave it frozen.
            let mark = match freeze::thaw(&handle.fd) {
                Ok(()) => Mark::Thawed,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Mark::Thawed,
                Err(_) => Mark::Failed,
            };
            self.marks.store(handle.offset, mark.byte());
        }
    }

    fn report(&self, cause: Cause, count: usize, took: Duration) {
        let cause = match cause {
            Cause::AgentDied => "the agent died in a checkpoint",
            Cause::LimitPassed | Cause::StillNotThawed => "the agent did not thaw within its limit",
        };
        tracing::warn!(
            "guardian: {cause}: {} to thaw, done in {} ms",
            report::count(count, "file system"),
            took.as_millis()
        );
        let entries = self
            .ledger
            .try_clone()
            .and_then(ledger::read_from)
            .unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry.mark.wants_thaw()) {
            tracing::error!(
                "guardian: {} ({}) is not thawed: its device may be stuck; the attempt goes on",
                printable(&entry.mount_point),
                entry.dev
            );
        }
    }
}

fn pause() {
    sleep(Duration::from_millis(1));
    reap();
}

/// Takes note of children that have ended.
pub(super) fn reap() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some())
    {
    }
}
