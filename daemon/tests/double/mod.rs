//! A backend that behaves like the kernel, but for the faults it is told to have, and remembers every call in order.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test crate uses its own part of this; a helper of a test fails by panicking, like the test itself"
)]

pub(crate) mod applications;
mod plans;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hv_vssd::filesystems::{Appeared, DeviceNumber, Plan, ScanError};
use hv_vssd::quiesce::backend::{Backend, Target};
use hv_vssd::quiesce::handle::HandleError;
use hv_vssd::quiesce::writeback::Sample;
use hv_vssd::quiesce::writers::Writers;
use hv_vssd::quiesce::{Engine, Limits};
use hv_vssd::telemetry::Gate;

use plans::{broken_mount_table, left_out, superblock, unreachable_target};

/// Longer than anything here takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// File systems are numbers.
pub(crate) type Fs = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Open,
    Sync,
    Freeze,
    Thaw,
    Close,
}

/// What went on, in its order. A call is entered when it begins, and again when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Begun(Op, Fs),
    /// With its error number, 0 for success.
    Done(Op, Fs, i32),
    /// Something was written to the log's output.
    Log,
}

/// What a call does in place of what the kernel would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Errno(i32),
    /// Does not return before it is released; then does what the kernel would do.
    Stuck,
    Slow(Duration),
    Panic,
}

#[derive(Debug, Default)]
struct World {
    stages: Vec<Vec<Fs>>,
    flushed: Vec<Fs>,
    scan_fails: bool,
    plans: u32,
    faults: BTreeMap<(Op, Fs), VecDeque<Fault>>,
    stuck: BTreeSet<(Op, Fs)>,
    frozen: BTreeSet<Fs>,
    /// Frozen by somebody else.
    foreign: BTreeSet<Fs>,
    wronged: bool,
    /// Those that no way leads to, when it is tried beforehand.
    unreachable: BTreeSet<Fs>,
    /// Those that take no writes any more.
    dead: BTreeSet<Fs>,
    /// Kept frozen by the device mapper, beside us.
    suspended: BTreeSet<Fs>,
    /// Of the kernel, when a program waits.
    panics_after: Option<Duration>,
    /// Busy with an operation until then.
    at_work: BTreeMap<Fs, Instant>,
    /// Since when its disks write much, with writers nearly as fast.
    writing_since: Option<Instant>,
    /// How often it was told that what it holds open may go.
    let_go: u32,
    /// What the next freezes find to have appeared, and how long the look takes; an error where nothing can be told.
    appears: VecDeque<(io::Result<Appeared>, Duration)>,
    /// What could not be looked at.
    unread_processes: usize,
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Double(Arc<Shared>);

/// An open file system, which tells when it is closed.
#[derive(Debug)]
pub(crate) struct Held(Fs, Double);

impl Drop for Held {
    fn drop(&mut self) {
        self.1
            .lock()
            .entries
            .push(Entry::Done(Op::Close, self.0, 0));
    }
}

impl Double {
    pub(crate) fn new(stages: &[&[Fs]]) -> Self {
        let double = Self::default();
        double.lock().stages = stages.iter().map(|stage| stage.to_vec()).collect();
        double
    }

    /// Its disks write for minutes, since writers are nearly as fast.
    pub(crate) fn kept_dirty(self) -> Self {
        self.lock().writing_since = Some(Instant::now());
        self
    }

    /// A kernel that panics when a program has waited for this time.
    pub(crate) fn panicking_after(self, time: Duration) -> Self {
        self.lock().panics_after = Some(time);
        self
    }

    /// This one is busy with a scrub for so long from now on.
    pub(crate) fn scrub(&self, fs: Fs, time: Duration) {
        self.lock().at_work.insert(fs, Instant::now() + time);
    }

    fn operation(&self, fs: Fs) -> Option<String> {
        let until = *self.lock().at_work.get(&fs)?;
        (Instant::now() < until).then(|| "scrub".to_owned())
    }

    /// File systems that are only flushed.
    pub(crate) fn flushing(self, flushed: &[Fs]) -> Self {
        self.lock().flushed = flushed.to_vec();
        self
    }

    /// The next freeze finds this when all is frozen, after so long a look.
    pub(crate) fn appearing(self, found: io::Result<Appeared>, took: Duration) -> Self {
        self.lock().appears.push_back((found, took));
        self
    }

    /// So many processes cannot be looked into.
    pub(crate) fn unread(self, processes: usize) -> Self {
        self.lock().unread_processes = processes;
        self
    }

    /// The next call of `op` on `fs` without a fault yet gets this one.
    pub(crate) fn fault(&self, op: Op, fs: Fs, fault: Fault) -> &Self {
        let mut world = self.lock();
        world.faults.entry((op, fs)).or_default().push_back(fault);
        drop(world);
        self
    }

    /// Lets a stuck call go on.
    pub(crate) fn release(&self, op: Op, fs: Fs) {
        self.lock().stuck.remove(&(op, fs));
        self.0.changed.notify_all();
    }

    /// Somebody else freezes it.
    pub(crate) fn freeze_by_someone_else(&self, fs: Fs) {
        self.lock().foreign.insert(fs);
    }

    /// From now on it takes no writes.
    pub(crate) fn die(&self, fs: Fs) {
        self.lock().dead.insert(fs);
    }

    /// From now on no way leads to it.
    pub(crate) fn hide(&self, fs: Fs) {
        self.lock().unreachable.insert(fs);
    }

    /// The device mapper suspends its device, within our hold.
    pub(crate) fn suspend(&self, fs: Fs) {
        self.lock().suspended.insert(fs);
    }

    /// Somebody else thaws it, whoever froze it.
    pub(crate) fn thaw_by_someone_else(&self, fs: Fs) {
        self.lock().frozen.remove(&fs);
    }

    /// From now on the mount table has a line that no kernel writes.
    pub(crate) fn break_the_mount_table(&self) {
        self.lock().scan_fails = true;
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    pub(crate) fn let_go_of(&self) -> u32 {
        self.lock().let_go
    }

    pub(crate) fn plans(&self) -> u32 {
        self.lock().plans
    }

    /// What the engine has frozen.
    pub(crate) fn frozen(&self) -> Vec<Fs> {
        self.lock().frozen.iter().copied().collect()
    }

    /// A thaw hit what somebody else had frozen.
    pub(crate) fn thawed_for_someone_else(&self) -> bool {
        self.lock().wronged
    }

    /// Waits for an entry that was made or will be.
    pub(crate) fn wait_for(&self, entry: Entry) {
        self.until(&format!("{entry:?}"), |double| {
            double.entries().contains(&entry)
        });
    }

    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; what went on: {:?}",
                self.entries()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The file systems on which `op` succeeded, in order.
    pub(crate) fn done(&self, op: Op) -> Vec<Fs> {
        let entries = self.entries();
        let done = entries.iter().filter_map(|entry| match entry {
            Entry::Done(found, fs, 0) if *found == op => Some(*fs),
            _ => None,
        });
        done.collect()
    }

    /// An engine on this double; its log goes into the entries.
    pub(crate) fn engine(&self) -> Engine<Self> {
        self.engine_within(PATIENCE)
    }

    pub(crate) fn engine_within(&self, freeze: Duration) -> Engine<Self> {
        Engine::new(self.clone(), limits(freeze), self.gate())
    }

    pub(crate) fn gate(&self) -> Gate {
        Gate::new(Log(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, op: Op, fs: Fs) -> io::Result<()> {
        let mut world = self.lock();
        world.entries.push(Entry::Begun(op, fs));
        let fault = world
            .faults
            .get_mut(&(op, fs))
            .and_then(VecDeque::pop_front);
        let mut errno = 0;
        match fault {
            Some(Fault::Errno(number)) => errno = number,
            Some(Fault::Panic) => panic!("a scripted panic in {op:?} of {fs}"),
            Some(Fault::Slow(time)) => {
                drop(world);
                std::thread::sleep(time);
                world = self.lock();
            }
            Some(Fault::Stuck) => {
                world.stuck.insert((op, fs));
                world = self
                    .0
                    .changed
                    .wait_while(world, |world| world.stuck.contains(&(op, fs)))
                    .unwrap_or_else(PoisonError::into_inner);
            }
            None => {}
        }
        if errno == 0 {
            errno = world.kernel(op, fs);
        }
        world.entries.push(Entry::Done(op, fs, errno));
        match errno {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl World {
    /// `freeze_super` and `thaw_super` of fs/super.c.
    fn kernel(&mut self, op: Op, fs: Fs) -> i32 {
        match op {
            Op::Open | Op::Sync | Op::Close => 0,
            Op::Freeze if self.foreign.contains(&fs) || !self.frozen.insert(fs) => libc::EBUSY,
            Op::Freeze => 0,
            // Since Linux 6.8: ours is let go of, and the other one lasts.
            Op::Thaw if self.suspended.contains(&fs) => {
                self.frozen.remove(&fs);
                libc::EINVAL
            }
            Op::Thaw if self.foreign.remove(&fs) => {
                self.wronged = true;
                0
            }
            Op::Thaw if self.frozen.remove(&fs) => 0,
            Op::Thaw => libc::EINVAL,
        }
    }
}

impl Backend for Double {
    type Handle = Held;

    fn plan(&self) -> Result<Plan, ScanError> {
        let mut world = self.lock();
        world.plans += 1;
        if world.scan_fails {
            return Err(broken_mount_table());
        }
        let stages = world
            .stages
            .iter()
            .map(|stage| stage.iter().map(|fs| superblock(*fs)).collect());
        Ok(Plan {
            stages: stages.collect(),
            left_out: world.flushed.iter().map(|fs| left_out(*fs)).collect(),
            unread_processes: world.unread_processes,
            ..Plan::default()
        })
    }

    fn dirty(&self) -> Option<Sample> {
        let passed = self.lock().writing_since?.elapsed().as_millis() as u64;
        Some(Sample {
            dirty: 1_000_000_u64.saturating_sub(passed),
            writing: 1_000,
            written: passed * 2,
        })
    }

    fn appeared(&self) -> io::Result<Appeared> {
        let next = self.lock().appears.pop_front();
        let (found, took) = next.unwrap_or((Ok(Appeared::default()), Duration::ZERO));
        std::thread::sleep(took);
        found
    }

    fn let_go(&self) -> Option<Box<dyn Send>> {
        self.lock().let_go += 1;
        None
    }

    fn open(&self, target: &Target) -> Result<Held, HandleError> {
        let fs = target.dev.minor;
        match self.call(Op::Open, fs) {
            Ok(()) => Ok(Held(fs, self.clone())),
            Err(_) => Err(unreachable_target(target)),
        }
    }

    fn probe(&self, target: &Target) -> Result<(), HandleError> {
        match self.lock().unreachable.contains(&target.dev.minor) {
            true => Err(unreachable_target(target)),
            false => Ok(()),
        }
    }

    fn is_dead(&self, held: &Held) -> bool {
        self.lock().dead.contains(&held.0)
    }

    fn sync(&self, held: &Held) -> io::Result<()> {
        self.call(Op::Sync, held.0)
    }

    fn freeze(&self, held: &Held) -> io::Result<()> {
        self.call(Op::Freeze, held.0)
    }

    fn thaw(&self, held: &Held) -> io::Result<()> {
        self.call(Op::Thaw, held.0)
    }

    fn writers(&self, _devices: &[DeviceNumber]) -> Writers {
        Writers::default()
    }

    fn at_work(&self, held: &Held) -> Option<String> {
        self.operation(held.0)
    }

    fn first_at_work(&self) -> Option<(Target, String)> {
        let superblocks = self.lock().stages.concat();
        let mut superblocks = superblocks.into_iter();
        superblocks.find_map(|fs| Some((Target::from(&superblock(fs)), self.operation(fs)?)))
    }

    fn panics_after(&self) -> Option<Duration> {
        self.lock().panics_after
    }

    fn is_suspended(&self, held: &Held) -> bool {
        self.lock().suspended.contains(&held.0)
    }
}

/// With `freeze` for all `FIFREEZE`s together, and nothing else in the way.
pub(crate) fn limits(freeze: Duration) -> Limits {
    Limits {
        flush: PATIENCE,
        freeze,
        hold: PATIENCE,
    }
}

/// The log's output: what is written to it is entered.
struct Log(Double);

impl Write for Log {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if !record.is_empty() {
            self.0.lock().entries.push(Entry::Log);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
