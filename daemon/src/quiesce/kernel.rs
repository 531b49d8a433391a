//! The running kernel as the engine's backend.
//!
//! The host asks HOT_BACKUP just before FREEZE. The plan made for the first is used for the second, unless a mount
//! table has changed in between; so FREEZE need not read tables of thousands of mounts again.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hvutil_sys::freeze;

use super::at_work;
use super::backend::{Backend, Foreseen, Target};
use super::expedite::Expedite;
use super::handle::{Handle, HandleError};
use super::hung_task;
use super::target::MOST_WAYS;
use super::writeback::{Disks, Sample, WriteBack};
use super::writers::{Search, WriterRules, Writers};
use crate::filesystems::{
    Appeared, Baseline, DeviceNumber, LiveWatch, OtherTables, Plan, Policy, ScanError, TableWatch,
    scan_and_watch, scan_own_namespace,
};

/// What is stacked on what may change without a mount table telling; so a plan does not live long.
const PLAN_LIFE: Duration = Duration::from_secs(60);

/// How long it may take, with everything frozen, to find out what has changed in mount tables: a table of ten thousand mounts can be read in it.
const JUDGE_LIMIT: Duration = Duration::from_millis(50);

/// A table that changes each time it is looked at is taken for one that has changed.
const MOST_LOOKS: u32 = 10;

/// The running kernel, and what was last seen of its mounts.
#[derive(Debug, Default)]
pub struct Kernel {
    policy: Policy,
    own_namespace_only: bool,
    writers: WriterRules,
    ignores_panic: bool,
    expedite: Option<Expedite>,
    write_back: Option<WriteBack>,
    /// The switch was off, and is on because of us.
    hurrying: AtomicBool,
    seen: Mutex<Option<Seen>>,
    /// From the plan to the end of the checkpoint.
    others: Mutex<Option<OtherTables>>,
}

/// Nothing that grows with the number of mounts: it is kept between checkpoints.
#[derive(Debug)]
struct Seen {
    watch: TableWatch,
    others: u64,
    before: Baseline,
    /// None where only our own namespace is meant.
    live: Option<LiveWatch>,
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

    /// With what an operator wants to be done about writers that hold up a freeze.
    #[must_use]
    pub fn with_writers(mut self, rules: WriterRules) -> Self {
        self.writers = rules;
        self
    }

    /// With limits that stay as they are, also where the kernel panics before they have passed.
    #[must_use]
    pub fn ignoring_hung_task_panic(mut self, on: bool) -> Self {
        self.ignores_panic = on;
        self
    }

    /// The tables of the other namespaces are still open: what changes in them from now on is told.
    fn look(&self) -> Result<(Seen, OtherTables), ScanError> {
        // Before the scan, so that no change falls between the two.
        let watch = TableWatch::open()?;
        let live = match self.own_namespace_only {
            true => None,
            false => Some(LiveWatch::open().map_err(|source| ScanError::Read {
                path: "/sys/fs".into(),
                source,
            })?),
        };
        let (scan, others) = if self.own_namespace_only {
            (scan_own_namespace()?, OtherTables::default())
        } else {
            scan_and_watch()?
        };
        // What is handed over while the host waits is kept small.
        let mut plan = Plan::with_mounts(&scan, &self.policy, MOST_WAYS);
        for unseen in plan.unseen() {
            tracing::warn!("{unseen}: a file system mounted only there would be missed");
        }
        plan.left_out
            .retain(|left_out| left_out.flush || left_out.reason.is_a_gap());
        let seen = Seen {
            watch,
            others: others.fingerprint(),
            before: Baseline::of(&scan),
            live,
            plan: Some(plan),
            at: Instant::now(),
        };
        Ok((seen, others))
    }

    /// The plan made ahead, and the tables of the other namespaces, if nothing has changed since.
    fn made_ahead(&self, seen: &mut Seen) -> Result<Option<(Plan, OtherTables)>, ScanError> {
        let unchanged = seen.at.elapsed() < PLAN_LIFE
            && matches!(seen.watch.changed(), Ok(false))
            && seen.live.as_ref().is_none_or(LiveWatch::is_unchanged);
        if seen.plan.is_none() || !unchanged {
            return Ok(None);
        }
        let others = if self.own_namespace_only {
            OtherTables::default()
        } else {
            OtherTables::open()?
        };
        if others.fingerprint() != seen.others {
            return Ok(None);
        }
        Ok(seen.plan.take().map(|plan| (plan, others)))
    }

    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        lock(&self.seen)
    }
}

fn has_more_live(seen: &Seen, policy: &Policy) -> bool {
    seen.live.as_ref().is_some_and(|live| live.has_more(policy))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend for Kernel {
    type Handle = Handle;

    fn plan(&self) -> Result<Plan, ScanError> {
        let mut seen = self.seen();
        let ahead = match seen.as_mut() {
            Some(seen) => self.made_ahead(seen)?,
            None => None,
        };
        let (plan, others) = match ahead {
            Some(ahead) => ahead,
            None => {
                let (mut new, others) = self.look()?;
                let plan = new.plan.take().unwrap_or_default();
                *seen = Some(new);
                (plan, others)
            }
        };
        let before = lock(&self.others).replace(others);
        // Not under the lock: it may unmount.
        drop(before);
        Ok(plan)
    }

    fn foresee(&self) -> Result<Foreseen, ScanError> {
        let (seen, _) = self.look()?;
        let foreseen = seen.plan.as_ref().map(Foreseen::of);
        *self.seen() = Some(seen);
        Ok(foreseen.unwrap_or_default())
    }

    fn probe(&self, target: &Target) -> Result<(), HandleError> {
        Handle::probe(target)
    }

    fn open(&self, target: &Target) -> Result<Handle, HandleError> {
        Handle::open(target)
    }

    fn is_settled(&self, handles: &[&Handle]) -> bool {
        let seen = self.seen();
        let Some(seen) = seen.as_ref() else {
            return false;
        };
        if has_more_live(seen, &self.policy) {
            return false;
        }
        let opened: HashMap<u64, DeviceNumber> = handles
            .iter()
            .filter_map(|handle| Some((handle.mount_id()?, handle.dev())))
            .collect();
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
            let is_same = now.iter().all(|mount| {
                let dev = opened.get(&mount.id);
                dev.is_none_or(|dev| *dev == seen.before.superblock_of(&mount))
            });
            let new = seen.before.appeared_in(&now, &self.policy);
            if !is_same || !new.is_empty() {
                return false;
            }
        }
        false
    }

    fn appeared(&self) -> io::Result<Appeared> {
        let deadline = Instant::now() + JUDGE_LIMIT;
        let seen = self.seen();
        let seen = seen.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut appeared = Appeared::default();
        if has_more_live(seen, &self.policy) {
            // The new plan tells what it is called.
            appeared.to_freeze.push("/sys/fs".into());
            return Ok(appeared);
        }
        // They stay open: closing the last way to a namespace unmounts what is mounted there.
        if let Some(others) = &*lock(&self.others) {
            appeared.add(others.appeared(&seen.before, &self.policy, deadline)?);
        }
        for _ in 0..MOST_LOOKS {
            if !seen.watch.changed()? {
                return Ok(appeared);
            }
            appeared.add(seen.watch.appeared(&seen.before, &self.policy, deadline)?);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn let_go(&self) -> Option<Box<dyn Send>> {
        let others = lock(&self.others).take()?;
        Some(Box::new(others))
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

    fn commit(&self, handle: &Handle) {
        handle.commit_ahead();
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

    fn is_dead(&self, handle: &Handle) -> bool {
        handle.is_dead()
    }

    fn writers(&self, devices: &[DeviceNumber]) -> Writers {
        Writers::gather(&Search::of(devices, self.writers.clone()))
    }

    fn panics_after(&self) -> Option<Duration> {
        (!self.ignores_panic)
            .then(|| hung_task::panics_after(Path::new("/proc")))
            .flatten()
    }

    fn at_work(&self, handle: &Handle) -> Option<String> {
        at_work::operation(handle, Path::new("/sys"))
    }

    fn first_at_work(&self) -> Option<(Target, String)> {
        let targets: Vec<Target> = match self.seen().as_ref() {
            Some(Seen {
                plan: Some(plan), ..
            }) => {
                let btrfs = plan.superblocks().filter(|fs| fs.fstype == "btrfs");
                btrfs.map(Target::from).collect()
            }
            _ => return None,
        };
        // What cannot be opened is for FREEZE to tell.
        targets.into_iter().find_map(|target| {
            let operation = self.at_work(&Handle::open(&target).ok()?)?;
            Some((target, operation))
        })
    }

    fn is_suspended(&self, handle: &Handle) -> bool {
        handle.is_suspended()
    }
}
