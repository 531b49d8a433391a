//! What the engine needs of the system: the seam between the real kernel and a double with scripted faults.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::handle::HandleError;
pub use super::target::Target;
use super::writeback::{Disks, Sample};
use super::writers::Writers;
use crate::filesystems::{Appeared, DeviceNumber, Plan, ScanError};

/// What a plan made ahead comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// Its [gaps](Plan::gaps).
    pub gaps: Vec<Target>,
    /// As [`Plan::unseen`].
    pub unseen: Vec<String>,
    /// What is to be opened and frozen; and whether a mount table shows it.
    pub to_freeze: Vec<(Target, bool)>,
}

impl Foreseen {
    /// What this plan comes to.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let to_freeze = plan.superblocks();
        Self {
            gaps: plan.gaps().map(Target::from).collect(),
            unseen: plan.unseen().collect(),
            to_freeze: to_freeze
                .map(|superblock| (superblock.into(), !superblock.mounts.is_empty()))
                .collect(),
        }
    }
}

/// The engine's view of the system.
pub trait Backend: std::fmt::Debug + Send + Sync + 'static {
    /// What an open file system is held by.
    type Handle: std::fmt::Debug + Send + Sync + 'static;

    /// Reads the mount tables and decides what is to be frozen, in which order.
    ///
    /// # Errors
    /// [`ScanError`]: a table cannot be read or understood.
    fn plan(&self) -> Result<Plan, ScanError>;

    /// Makes a plan ahead, for a later call of [`Backend::plan`] to use if it is still right by then.
    ///
    /// # Errors
    /// As [`Backend::plan`].
    fn foresee(&self) -> Result<Foreseen, ScanError> {
        self.plan().map(|plan| Foreseen::of(&plan))
    }

    /// Whether [`Backend::open`] would succeed.
    ///
    /// # Errors
    /// As [`Backend::open`].
    fn probe(&self, target: &Target) -> Result<(), HandleError>;

    /// Opens a file system for the other calls, and verifies that it is the one meant.
    ///
    /// # Errors
    /// [`HandleError`]: no way leads to it.
    fn open(&self, target: &Target) -> Result<Self::Handle, HandleError>;

    /// Whether what was opened is what the last plan meant: `false` when the mount table has changed so that it may
    /// not be. A double's never changes.
    fn is_settled(&self, _handles: &[&Self::Handle]) -> bool {
        true
    }

    /// What has appeared since the last plan. Called while all is frozen: opens nothing, looks up no path, and takes no more than
    /// some milliseconds.
    ///
    /// # Errors
    /// In that time it cannot be told.
    fn appeared(&self) -> io::Result<Appeared> {
        Ok(Appeared::default())
    }

    /// The checkpoint is over, or was given up: hands out what was held open to see whether something appears, to be dropped where
    /// that may take its time.
    fn let_go(&self) -> Option<Box<dyn Send>> {
        None
    }

    /// The freeze begins, or has come to its end: the moment to hurry the kernel.
    fn hurry(&self, _on: bool) {}

    /// The handle's descriptor, for the guardian; a double has none.
    fn descriptor<'a>(&self, _handle: &'a Self::Handle) -> Option<BorrowedFd<'a>> {
        None
    }

    /// Starts writing back what is dirty, without committing or waiting.
    fn start_write_back(&self) {}

    /// What waits to be written back; `None` where nobody knows, and no write-back is waited for.
    fn dirty(&self) -> Option<Sample> {
        None
    }

    /// The disks of these file systems, to be watched while they write.
    fn disks<'a>(&self, _targets: impl Iterator<Item = &'a Target>) -> Disks {
        Disks::default()
    }

    /// Commits a journal that would otherwise be committed in the middle of write-back, and writes metadata back, without
    /// writing data; does nothing to a file system that has no such journal. It is only faster with it.
    fn commit(&self, _handle: &Self::Handle) {}

    /// `syncfs`.
    ///
    /// # Errors
    /// What the kernel says.
    fn sync(&self, handle: &Self::Handle) -> io::Result<()>;

    /// `FIFREEZE`.
    ///
    /// # Errors
    /// What the kernel says.
    fn freeze(&self, handle: &Self::Handle) -> io::Result<()>;

    /// `FITHAW`.
    ///
    /// # Errors
    /// What the kernel says.
    fn thaw(&self, handle: &Self::Handle) -> io::Result<()>;

    /// Whether nothing can be written to it any more, whoever tries: asked after a call on it has failed, while nothing is frozen.
    fn is_dead(&self, handle: &Self::Handle) -> bool;

    /// Who sleeps while it holds write access to one of these superblocks. Opens nothing but what the kernel tells of processes.
    fn writers(&self, devices: &[DeviceNumber]) -> Writers;

    /// How long a program may wait for a file system before the kernel panics; `None` if it does not, or that is not to be heeded.
    fn panics_after(&self) -> Option<Duration>;

    /// What keeps this file system from being frozen as long as it lasts, in words, such as a scrub.
    fn at_work(&self, handle: &Self::Handle) -> Option<String>;

    /// Of those of the plan made ahead, the first that something keeps from being frozen, and what.
    fn first_at_work(&self) -> Option<(Target, String)>;

    /// Whether someone else keeps its device frozen, beside whatever we did: a suspended device-mapper device. Since Linux 6.8 the two
    /// nest, and `FITHAW`, which lets go of ours, says `EINVAL` as long as the other lasts. Opens nothing.
    fn is_suspended(&self, handle: &Self::Handle) -> bool;
}
