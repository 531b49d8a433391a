//! A running guest's whole state, kept in files: guests that go on from it need not boot.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::qemu;
use super::qmp::Qmp;
use super::{Disk, Guest, poll_until};
use crate::assets::{self, Kernel};
use crate::error::{BedError, BedResult, Context};
use crate::{command, images, kept, paths};

/// Memory and devices of an emulated guest, written to a file on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A state that was kept.
#[derive(Debug)]
pub struct Saved<'a> {
    /// The kernel that runs in it.
    pub kernel: Kernel,
    /// Tells it from states of other guests: a name for its directory.
    pub kind: String,
    /// All that it depends on, as `saved::stamp` gives it.
    pub stamp: String,
    /// How many disks it has.
    pub disks: usize,
    /// Disks that it gets when it goes on.
    pub more: &'a [Disk],
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Where the bed's modules are in it.
    pub modules: &'static str,
    /// A name for the kept files of a failed run.
    pub name: String,
}

impl Saved<'_> {
    /// One that cannot be gone on from is made anew the next time.
    pub(super) fn discard(&self) {
        let _ = fs::remove_file(self.home().join(kept::STAMP));
    }

    pub(super) fn state(&self) -> PathBuf {
        state(&self.home())
    }

    pub(super) fn disk(&self, number: usize) -> PathBuf {
        disk(&self.home(), number)
    }

    fn home(&self) -> PathBuf {
        states().join(&self.kind)
    }
}

/// Where states are kept.
fn states() -> PathBuf {
    paths::testbed().join("snapshots")
}

/// All that a state depends on beside `more`: what it ran, and these programs.
pub(crate) fn stamp(kernel: Kernel, programs: &[PathBuf], more: &str) -> BedResult<String> {
    let mut hasher = DefaultHasher::new();
    (more, assets::stamp(kernel)?).hash(&mut hasher);
    // The bed's server is in the guest's memory, and QEMU reads what QEMU has written.
    qemu::accelerator().hash(&mut hasher);
    let qemu = command::find(qemu::PROGRAM);
    let always = [Some(paths::testguest()), qemu];
    for program in always.iter().flatten().chain(programs) {
        let found = fs::metadata(program).and_then(|found| Ok((found.len(), found.modified()?)));
        let found = found.doing(|| format!("looking at {}", program.display()))?;
        found.hash(&mut hasher);
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn state(dir: &Path) -> PathBuf {
    dir.join("state")
}

/// The image of a disk, in a guest's directory and in one that keeps its state.
pub(super) fn disk(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("disk{number}.img"))
}

impl Qmp {
    /// Lets a guest go on whose kept state is being read: it comes back stopped, as it was kept.
    pub(super) fn go_on(&mut self) -> BedResult<()> {
        let read = poll_until(LIMIT, || {
            let status = self.execute("query-status", json!({}))?;
            Ok::<_, BedError>((!status.contains("\"inmigrate\"")).then_some(()))
        })?;
        read.ok_or(BedError::Timeout {
            what: "a guest's kept state".into(),
            limit: LIMIT,
        })?;
        self.command("cont")
    }
}

impl Guest {
    /// Goes on from a kept state; if there is none, or one that is out of date, that of the guest that `make` gives is kept first.
    ///
    /// # Errors
    /// As [`Guest::restore`], and those of `make`.
    pub(crate) fn go_on_from<E: From<BedError>>(
        saved: &Saved<'_>,
        make: impl FnOnce() -> Result<Self, E>,
    ) -> Result<Self, E> {
        let keep = |into: &Path| Ok::<(), E>(make()?.save(into)?);
        // Nobody replaces it while it is being read.
        let _lock = kept::directory(&states(), &saved.kind, &saved.stamp, keep)?;
        Ok(Self::restore(saved)?)
    }

    /// Stops the guest and keeps its memory, devices and disks in a directory. Nothing may be under way in it.
    ///
    /// # Errors
    /// QEMU refuses, or a file cannot be written.
    fn save(mut self, into: &Path) -> BedResult<()> {
        self.pause(true)?;
        let to = format!("file:{}", state(into).display());
        self.monitor.execute("migrate", json!({ "uri": to }))?;
        let ended = poll_until(LIMIT, || {
            let said = self.monitor.execute("query-migrate", json!({}))?;
            if said.contains("\"failed\"") {
                return Err(BedError::Setup(format!("QEMU keeps no state: {said}")));
            }
            Ok(said.contains("\"completed\"").then_some(()))
        })?;
        ended.ok_or(BedError::Timeout {
            what: "a guest's state".into(),
            limit: LIMIT,
        })?;
        for (number, image) in self.disks.iter().enumerate() {
            images::copy(image, &disk(into, number))?;
        }
        let dir = self.dir.clone();
        drop(self);
        fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))
    }
}
