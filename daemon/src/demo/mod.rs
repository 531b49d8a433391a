//! A whole checkpoint on scratch disks, without Hyper-V: the agent as it is, a simulated host, and the proof.
//!
//! The host's end speaks the same 12-byte messages over a socket pair. The agent sees a mount namespace
//! that holds the scratch disks and nothing else, so that no file system of the machine can be frozen by mistake.

mod copy;
mod disk;
mod host;
mod images;
mod outside;
mod scene;
mod screen;
mod verify;
mod writer;
mod xfs;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hvutil_sys::vss::{Operation, Status};

use self::disk::Disk;
use self::host::{Answer, Host};
use self::outside::Outside;
use self::scene::Scene;
use self::screen::Screen;
use self::verify::Finding;
use self::writer::Writer;
use crate::quiesce::guardian::Guardian;
use crate::telemetry::Gate;

/// Something in the way of the demo, one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DemoError(String, #[source] Option<std::io::Error>);

impl DemoError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into(), None)
    }

    fn because(text: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        Self(text.into(), Some(error.into()))
    }
}

/// How the demo is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds the log back while the scratch disks are frozen.
    pub gate: Gate,
    /// Where the scratch images are made, in a directory of their own that is removed again.
    pub directory: PathBuf,
    /// How long the writers work before the checkpoint.
    pub warm_up: Duration,
}

/// Raised when the operator wants the demo to end early.
pub type Interrupted = Arc<AtomicBool>;

/// Runs the demo and shows it; `Ok(true)` when everything was as it should be.
///
/// # Errors
/// [`DemoError`] when it cannot be run at all. Nothing is left behind either way.
pub fn run(options: &Options, interrupted: &Interrupted) -> Result<bool, DemoError> {
    let screen = Screen::new();
    screen.title();
    // Before the namespace is left: this thread's children see the machine as it is.
    let outside = Outside::start(&options.directory)?;
    let guardian = outside.guardian()?;
    let images = images::make_all(&outside, &screen)?;
    check(interrupted)?;
    let scene = Scene::enter()?;
    let disks = disk::mount_all(&scene, images, &screen)?;
    let outcome = checkpoint(&disks, guardian, options, &screen, interrupted)?;
    let sets = disk::unmount_all(disks)?;
    check(interrupted)?;
    screen.findings_title();
    let mut good = outcome.good;
    for (set, writes) in sets.iter().zip(&outcome.writes) {
        let held = verify::verify(
            &outside,
            &scene,
            set.fstype,
            &set.held,
            writes.acknowledged_held,
        )?;
        let running = verify::verify(
            &outside,
            &scene,
            set.fstype,
            &set.running,
            writes.acknowledged_running,
        )?;
        good &= held.iter().all(Finding::is_good);
        screen.findings(set.fstype, &held, &running);
    }
    screen.verdict(good);
    Ok(good)
}

struct Outcome {
    good: bool,
    writes: Vec<Writes>,
}

/// What one disk's writer had been told is safe.
struct Writes {
    acknowledged_running: u64,
    acknowledged_held: u64,
}

/// HOT_BACKUP, a copy without a freeze for comparison, FREEZE, a copy, THAW.
fn checkpoint(
    disks: &[Disk],
    guardian: Guardian,
    options: &Options,
    screen: &Screen,
    interrupted: &Interrupted,
) -> Result<Outcome, DemoError> {
    disk::only_these(disks)?;
    let mut host = Host::start(guardian, options.gate.clone(), interrupted)?;
    let writers = disks
        .iter()
        .map(Writer::start)
        .collect::<Result<Vec<_>, _>>()?;
    wait(options.warm_up, interrupted)?;
    let mut good = true;
    let mut expect = |answer: &Answer| good &= answer.status == Status::Ok;

    screen.phase("The checkpoint");
    expect(&screen.request(&mut host, Operation::HOT_BACKUP, "can you be backed up?")?);
    let acknowledged_running: Vec<u64> = writers.iter().map(Writer::acknowledged).collect();
    screen.step("copies the images without a freeze, for comparison", || {
        copy_all(disks, false)
    })?;
    check(interrupted)?;
    for writer in &writers {
        writer.forget_waits();
    }
    expect(&screen.request(&mut host, Operation::FREEZE, "hold every file system still")?);
    let held = Instant::now();
    let before: Vec<u64> = writers.iter().map(Writer::acknowledged).collect();
    let copied = screen.step("copies the images: this is the backup", || {
        copy_all(disks, true)
    });
    let after: Vec<u64> = writers.iter().map(Writer::acknowledged).collect();
    let hold = held.elapsed();
    expect(&screen.request(&mut host, Operation::THAW, "the image is taken, let go")?);
    copied?;
    wait(Duration::from_millis(300), interrupted)?;
    let resumed = writers
        .iter()
        .zip(&after)
        .all(|(writer, count)| writer.acknowledged() > *count);
    host.stop();

    screen.phase("What the applications felt");
    let mut writes = Vec::new();
    let mut waits = Vec::new();
    for ((writer, disk), (running, count)) in writers
        .into_iter()
        .zip(disks)
        .zip(acknowledged_running.into_iter().zip(&before))
    {
        let longest = writer.stop()?;
        waits.push((disk.fstype(), *count, longest));
        writes.push(Writes {
            acknowledged_running: running,
            acknowledged_held: *count,
        });
    }
    screen.waits(&waits, hold);
    // A record that was written before the freeze may be synced, or counted, in the hold; the next one waits.
    let mut counts = before.iter().zip(&after);
    if counts.any(|(before, after)| *after > before + 1) {
        screen.fault("a write was acknowledged during the hold");
        good = false;
    }
    if !resumed {
        screen.fault("a writer did not go on after THAW");
        good = false;
    }
    Ok(Outcome { good, writes })
}

fn copy_all(disks: &[Disk], held: bool) -> Result<(), DemoError> {
    disks.iter().try_for_each(|disk| disk.copy(held))
}

fn wait(time: Duration, interrupted: &Interrupted) -> Result<(), DemoError> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check(interrupted)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn check(interrupted: &Interrupted) -> Result<(), DemoError> {
    if interrupted.load(Ordering::SeqCst) {
        return Err(DemoError::new(
            "interrupted: everything is thawed and removed",
        ));
    }
    Ok(())
}
