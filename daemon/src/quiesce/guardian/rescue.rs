//! What the guardian watches over, and how it thaws it.
//!
//! A thaw may block for ever on a dead device, so each is made in a child of its own; the next stage does not wait for
//! it longer than a moment.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hvutil_sys::child;
use hvutil_sys::shared::SharedBytes;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};

use super::freezer;
use crate::filesystems::text::printable;
use crate::quiesce::held_up;
use crate::quiesce::ledger;
use crate::quiesce::protocol::{By, Known, Mark, MarkCell, Needs, RescuePart, carry_out};
use crate::quiesce::report;

/// How long a stage's thaws are waited for before the next stage's begin.
const STAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// After the limit, or the agent's death, the guardian tries again this often, as long as something is not thawed.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// What the guardian watches over.
pub(super) struct Watch {
    pub(super) agent: Pid,
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
    /// The socket of the process that is to make its calls, until that is started.
    pub(super) socket: Cell<Option<OwnedFd>>,
    /// That process.
    pub(super) freezer: Cell<Option<i32>>,
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
    pub(super) fn new(fd: OwnedFd, stage: u32, offset: usize, socket: Option<OwnedFd>) -> Self {
        Self {
            fd,
            stage,
            offset,
            socket: Cell::new(socket),
            freezer: Cell::new(None),
            child: Cell::new(None),
        }
    }
}

/// Whether a child of this process has not ended.
fn lives(child: &Cell<Option<i32>>) -> bool {
    let lives = child.get().map(Pid::from_raw).is_some_and(|child| {
        matches!(
            waitpid(child, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive)
        )
    });
    if !lives {
        // Its number may become another's.
        child.set(None);
    }
    lives
}

impl Watch {
    pub(super) fn is_newly_complete(&self) -> bool {
        !self.acknowledged && self.handles.len() == self.expected
    }

    /// The limit has passed.
    pub(super) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Starts the processes that make the calls.
    pub(super) fn start_freezers(&self) -> std::io::Result<()> {
        for handle in &self.handles {
            if let Some(socket) = handle.socket.take() {
                let mark = self.cell(handle);
                handle
                    .freezer
                    .set(Some(freezer::start(handle.fd.as_fd(), mark, socket)?));
            }
        }
        Ok(())
    }

    fn cell(&self, handle: &Guarded) -> ledger::Cell<'_> {
        ledger::Cell {
            bytes: &self.marks,
            offset: handle.offset,
        }
    }

    pub(super) fn mark(&self, handle: &Guarded) -> Mark {
        self.cell(handle).load()
    }

    /// The agent's last thread has ended: what it was doing by itself nobody ends any more.
    fn is_agent_gone(&self) -> bool {
        getppid() != self.agent
    }

    /// Thaws what the agent has frozen, in reverse, sees to it that what is being frozen is thawed too, and says so. After the
    /// agent's death it stays until nothing is left.
    pub(super) fn rescue(&self, cause: Cause) {
        let started = Instant::now();
        let count = self.thaw_all(cause);
        if count > 0 {
            self.report(cause, count, started.elapsed());
        }
        self.interrupt_writers();
        let mut again = Instant::now() + RETRY_INTERVAL;
        while cause == Cause::AgentDied && self.is_anything_left() {
            sleep(Duration::from_millis(50));
            reap();
            // What has no process any more is settled at once, what failed is tried again now and then.
            let late = Instant::now() >= again;
            if late || self.handles.iter().any(|handle| self.is_orphaned(handle)) {
                self.thaw_all(cause);
                again = Instant::now() + RETRY_INTERVAL;
            }
            if late {
                self.interrupt_writers();
            }
        }
    }

    /// What a later start has taken over is its own, also if that dies: the one after it is not to wait for this process.
    /// A freeze that was given up may wait for somebody who sleeps in a write. Looking for them opens files: not while anything is frozen.
    fn interrupt_writers(&self) {
        let marks = || self.handles.iter().map(|handle| self.mark(handle));
        let is_frozen = |mark| matches!(mark, Mark::Frozen | Mark::Failed | Mark::Thawing(_));
        if marks().any(is_frozen) || !marks().any(|mark| mark == Mark::GivenUp) {
            return;
        }
        let entries = ledger::read_from(&self.ledger).unwrap_or_default();
        let stuck = entries.iter().filter(|entry| entry.mark == Mark::GivenUp);
        let devices: Vec<_> = stuck.map(|entry| entry.dev).collect();
        // In a child: it starts threads, and this process forks.
        let stderr = std::io::stderr();
        let _ = child::run(&[stderr.as_fd()], || held_up::interrupt(&devices));
        self.wait(|| marks().any(|mark| mark == Mark::GivenUp));
    }

    fn is_anything_left(&self) -> bool {
        self.handles
            .iter()
            .map(|handle| self.mark(handle))
            .any(|mark| mark.wants_thaw() && mark != Mark::Thawing(By::Start))
    }

    /// Marked as in a call, which nobody makes any more.
    fn is_orphaned(&self, handle: &Guarded) -> bool {
        let mark = self.mark(handle);
        mark.is_in_call() && !self.known(handle, Cause::AgentDied).is_in_call(mark)
    }

    fn known(&self, handle: &Guarded, cause: Cause) -> Known {
        Known {
            freezer: lives(&handle.freezer),
            // It thaws by itself where the process for it has died.
            agent: !self.is_agent_gone(),
            guardian: lives(&handle.child),
            start: true,
            // An agent that lives, and is late, may be trying again.
            failed_too: cause != Cause::LimitPassed,
        }
    }

    /// How many thaws were begun; each was waited for, but not for ever.
    pub(super) fn thaw_all(&self, cause: Cause) -> usize {
        let last = self.handles.last().map_or(0, |handle| handle.stage);
        let mut count = 0;
        for stage in (0..=last).rev() {
            let of_stage = || {
                self.handles
                    .iter()
                    .filter(move |handle| handle.stage == stage)
            };
            for handle in of_stage() {
                // One that someone has stopped would never note how its call went.
                if let Some(freezer) = handle.freezer.get() {
                    let _ = kill(Pid::from_raw(freezer), Signal::SIGCONT);
                }
                count += usize::from(self.thaw(handle, cause));
            }
            self.wait(|| of_stage().any(|handle| lives(&handle.child)));
        }
        self.wait(|| {
            self.handles
                .iter()
                .any(|handle| self.mark(handle).is_in_call() || lives(&handle.child))
        });
        count
    }

    fn wait(&self, wanted: impl Fn() -> bool) {
        let deadline = Instant::now() + STAGE_TIMEOUT;
        while Instant::now() < deadline && wanted() {
            sleep(Duration::from_millis(1));
            reap();
        }
    }

    /// Begins a thaw, in a child. Whether there was anything to thaw.
    fn thaw(&self, handle: &Guarded, cause: Cause) -> bool {
        let mark = self.cell(handle);
        let known = self.known(handle, cause);
        if known.guardian {
            // One is at it.
            return false;
        }
        // Without a call here, also if the mark changes meanwhile: that would keep this process from the others.
        loop {
            let found = mark.load();
            match known.needs(found) {
                Needs::Nothing => return false,
                Needs::Mark(to) if mark.swap(found, to).is_ok() => return found.wants_thaw(),
                Needs::Mark(_) => {}
                Needs::Call => break,
            }
        }
        let rescue = || {
            let part = RescuePart::new(By::Guardian, known);
            carry_out(part, &mark, |call| freezer::make(call, handle.fd.as_fd()));
        };
        match child::run(&[handle.fd.as_fd()], rescue) {
            Ok(pid) => handle.child.set(Some(pid)),
            // No process to be had: better to risk waiting than to leave it frozen.
            Err(_) => rescue(),
        }
        true
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
        let entries = ledger::read_from(&self.ledger).unwrap_or_default();
        for entry in entries.iter().filter(|entry| entry.mark.wants_thaw()) {
            tracing::error!(
                "guardian: {} ({}) is not thawed: its device may be stuck; the attempt goes on",
                printable(&entry.mount_point),
                entry.dev
            );
        }
    }
}

/// Takes note of children that have ended.
pub(super) fn reap() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some())
    {
    }
}
