//! The running kernel as the engine's backend.
//!
//! The host asks HOT_BACKUP just before FREEZE. The plan made for the first is used for the second, unless a mount
//! table has changed in between; so FREEZE need not read tables of thousands of mounts again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hvutil_sys::freeze;

use super::backend::{Backend, Target};
use super::expedite::Expedite;
use super::handle::{Handle, HandleError};
use super::report::count;
use super::target::MOST_WAYS;
use super::writeback::{Disks, Sample, WriteBack};
use crate::filesystems::{
    OtherTables, Plan, Policy, Scan, ScanError, TableWatch, namespaces_fingerprint, scan,
    scan_own_namespace,
};

/// What is stacked on what may change without a mount table telling; so a plan does not live long.
const PLAN_LIFE: Duration = Duration::from_secs(60);

/// A table that changes each time it is looked at is taken for one that has changed.
const MOST_LOOKS: u32 = 10;

/// The running kernel, and what was last seen of its mounts.
#[derive(Debug, Default)]
pub struct Kernel {
    policy: Policy,
    own_namespace_only: bool,
    expedite: Option<Expedite>,
    write_back: Option<WriteBack>,
    /// The switch was off, and is on because of us.
    hurrying: AtomicBool,
    seen: Mutex<Option<Seen>>,
    /// From the plan to the end of the freeze.
    others: Mutex<Option<OtherTables>>,
}

#[derive(Debug)]
struct Seen {
    watch: TableWatch,
    others: u64,
    scan: Scan,
    /// Taken by the first that asks.
    plan: Option<Plan>,
    at: Instant,
}

impl Kernel {
    /// The whole machine, but for what the operator wants left alone.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// This process's own mount namespace alone: for one that has left the machine's mounts and must touch none.
    #[must_use]
    pub fn of_own_namespace() -> Self {
        Self {
            own_namespace_only: true,
            ..Self::default()
        }
    }

    /// With shorter RCU grace periods from the first freeze to the last.
    #[must_use]
    pub fn expedited(mut self) -> Self {
        self.expedite = Expedite::open();
        self
    }

    /// With the data written back before the first commit.
    #[must_use]
    pub fn writing_back_first(mut self) -> Self {
        self.write_back = WriteBack::open();
        self
    }

    fn look(&self) -> Result<Seen, ScanError> {
        // Before the scan, so that no change falls between the two.
        let watch = TableWatch::open()?;
        let others = self.others()?;
        let scan = if self.own_namespace_only {
            scan_own_namespace()?
        } else {
            scan()?
        };
        let mut plan = Plan::new(&scan, &self.policy);
        if plan.unread_processes > 0 {
            tracing::warn!(
                "{} could not be looked into: a file system mounted only there would be missed",
                count(plan.unread_processes, "process")
            );
        }
        // What is handed over while the host waits is kept small.
        for superblock in plan.stages.iter_mut().flatten() {
            superblock.mounts.truncate(MOST_WAYS);
        }
        plan.left_out.retain(|left_out| left_out.flush);
        Ok(Seen {
            watch,
            others,
            scan,
            plan: Some(plan),
            at: Instant::now(),
        })
    }

    fn is_current(&self, seen: &Seen) -> Result<bool, ScanError> {
        let unchanged = seen.at.elapsed() < PLAN_LIFE && matches!(seen.watch.changed(), Ok(false));
        Ok(unchanged && self.others()? == seen.others)
    }

    fn others(&self) -> Result<u64, ScanError> {
        if self.own_namespace_only {
            return Ok(0);
        }
        namespaces_fingerprint()
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        lock(&self.seen)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend for Kernel {
    type Handle = Handle;

    fn plan(&self) -> Result<Plan, ScanError> {
        // Before anything is read, so that no change falls in between.
        if !self.own_namespace_only {
            *lock(&self.others) = Some(OtherTables::open()?);
        }
        let mut seen = self.seen();
        if let Some(old) = seen.as_mut() {
            if old.plan.is_some() && self.is_current(old)? {
                return Ok(old.plan.take().unwrap_or_default());
            }
        }
        let mut new = self.look()?;
        let plan = new.plan.take().unwrap_or_default();
        *seen = Some(new);
        Ok(plan)
    }

    fn foresee(&self) -> Result<(), ScanError> {
        *self.seen() = Some(self.look()?);
        Ok(())
    }

    fn open(&self, target: &Target) -> Result<Handle, HandleError> {
        Handle::open(target)
    }

    fn is_settled(&self, handles: &[&Handle]) -> bool {
        let seen = self.seen();
        let Some(seen) = seen.as_ref() else {
            return false;
        };
        for _ in 0..MOST_LOOKS {
            match seen.watch.changed() {
                Ok(false) => return true,
                Ok(true) => {}
                Err(_) => return false,
            }
            // Another file system may have been mounted under the id that was read from the table.
            let Ok(now) = seen.watch.mounts() else {
                return false;
            };
            let is_same = |handle: &&Handle| {
                handle.mount_id().is_none_or(|id| {
                    let mount = now.iter().find(|mount| mount.id == id);
                    mount.is_none_or(|mount| mount.dev == handle.dev())
                })
            };
            if !handles.iter().all(is_same) || seen.watch.appeared_in(now, &seen.scan, &self.policy)
            {
                return false;
            }
        }
        false
    }

    fn has_appeared(&self) -> bool {
        let seen = self.seen();
        let Some(seen) = seen.as_ref() else {
            return true;
        };
        let others = lock(&self.others).take();
        if others.is_some_and(|others| others.have_more(&seen.scan, &self.policy)) {
            return true;
        }
        for _ in 0..MOST_LOOKS {
            match seen.watch.changed() {
                Ok(false) => return false,
                Ok(true) => {}
                Err(_) => return true,
            }
            // What cannot be read may hide something.
            if !matches!(seen.watch.appeared(&seen.scan, &self.policy), Ok(new) if new.is_empty()) {
                return true;
            }
        }
        true
    }

    fn hurry(&self, on: bool) {
        let Some(expedite) = &self.expedite else {
            return;
        };
        if on && expedite.is_on() == Some(false) {
            self.hurrying.store(true, Ordering::SeqCst);
            expedite.set(true);
        } else if !on && self.hurrying.swap(false, Ordering::SeqCst) {
            expedite.set(false);
        }
    }

    fn descriptor<'a>(&self, handle: &'a Handle) -> Option<BorrowedFd<'a>> {
        Some(handle.as_fd())
    }

    fn start_write_back(&self) {
        if let Some(write_back) = &self.write_back {
            write_back.start();
        }
    }

    fn dirty(&self) -> Option<Sample> {
        self.write_back.as_ref()?.sample()
    }

    fn disks<'a>(&self, targets: impl Iterator<Item = &'a Target>) -> Disks {
        Disks::open(targets)
    }

    fn sync(&self, handle: &Handle) -> io::Result<()> {
        freeze::sync(handle)
    }

    fn freeze(&self, handle: &Handle) -> io::Result<()> {
        freeze::freeze(handle)
    }

    fn thaw(&self, handle: &Handle) -> io::Result<()> {
        freeze::thaw(handle)
    }
}
