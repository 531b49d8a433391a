//! What was gathered, before anything is made of it.

use super::halted::Halted;
use std::time::Duration;

use crate::filesystems::{Plan, Process};

/// All that a report is made of, at one moment.
#[derive(Debug)]
pub struct Facts {
    /// The machine and the way to the host.
    pub machine: Machine,
    /// Who has the driver's device open.
    pub holders: Vec<Process>,
    /// The running agent.
    pub agent: Option<Agent>,
    /// What the ledger has as frozen or being frozen: mount points.
    pub in_ledger: Vec<String>,
    /// What matters of the configuration.
    pub settings: Settings,
    /// What would be frozen; or why there is no plan.
    pub plan: Result<Plan, String>,
    /// What the plan alone does not tell.
    pub disks: Disks,
    /// Processes that sleep in a write until some file system is thawed.
    pub waiting: Vec<Process>,
    /// Programs that sleep in a write to a file system of the plan, and so would hold up its freeze.
    pub writers: Vec<SleepingWriter>,
    /// The hooks' files.
    pub hooks: Hooks,
}

impl Default for Facts {
    /// Nothing at all was found.
    fn default() -> Self {
        Self {
            machine: Machine::default(),
            holders: Vec::new(),
            agent: None,
            in_ledger: Vec::new(),
            settings: Settings::default(),
            plan: Ok(Plan::default()),
            disks: Disks::default(),
            waiting: Vec::new(),
            writers: Vec::new(),
            hooks: Hooks::default(),
        }
    }
}

/// A program that sleeps in a write.
#[derive(Debug, Clone)]
pub struct SleepingWriter {
    /// Which, in which system call, to which file.
    pub text: String,
    /// A freeze that waits for it interrupts it.
    pub is_interrupted: bool,
}

/// The machine and the way to the host.
#[derive(Debug, Default, Clone)]
pub struct Machine {
    /// As the hypervisor calls itself.
    pub hypervisor: Option<String>,
    /// The firmware's word for whoever made the machine and what it is (DMI `sys_vendor`, `product_name`).
    pub firmware: Option<(String, String)>,
    /// The kernel has the VMBus.
    pub bus: bool,
    /// Services that the host offers on it.
    pub services: usize,
    /// One of them is that for backups.
    pub vss: bool,
    /// The module `hv_utils` is there.
    pub driver: bool,
    /// The driver has made its device.
    pub device: bool,
    /// The device has a node below /dev.
    pub node: bool,
    /// The kernel's version, such as 6.12, where it tells.
    pub kernel: Option<(u32, u32)>,
    /// It panics when a program waits for this time.
    pub panics_after: Option<Duration>,
}

impl Machine {
    /// Whether this is a guest of Hyper-V: its bus tells, or the hypervisor, or the firmware.
    #[must_use]
    pub fn is_hyper_v(&self) -> bool {
        let firmware = |(vendor, product): &(String, String)| {
            vendor == "Microsoft Corporation" && product == "Virtual Machine"
        };
        self.services > 0
            || self.hypervisor.as_deref() == Some("Microsoft Hv")
            || self.firmware.as_ref().is_some_and(firmware)
    }
}

/// A running agent.
#[derive(Debug, Default, Clone)]
pub struct Agent {
    /// Its process.
    pub pid: u32,
    /// It is registered with the driver.
    pub registered: bool,
    /// The second process, as far as that is known.
    pub guardian: Guardian,
    /// It is freezing, holding or thawing.
    pub busy: bool,
    /// What keeps it from running; it is not asked then.
    pub halted: Option<Halted>,
    /// Why it could not be asked.
    pub silent: Option<String>,
}

/// The process that thaws should the agent die.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Guardian {
    /// It lives.
    Alive,
    /// There is none.
    Missing,
    /// Nobody could tell.
    #[default]
    Unknown,
}

/// What matters of the configuration.
#[derive(Debug, Default, Clone)]
pub struct Settings {
    /// Why it cannot be used.
    pub error: Option<String>,
    /// A file system that cannot be frozen makes a checkpoint fail.
    pub strict: bool,
    /// Nothing is frozen.
    pub flush_only: bool,
    /// Hooks are run.
    pub hooks_enabled: bool,
    /// The longest freeze and hold together.
    pub frozen: Duration,
    /// They are that long also where the kernel panics before.
    pub ignore_hung_task_panic: bool,
}

/// What sysfs and the mount table tell of single disks.
#[derive(Debug, Default, Clone)]
pub struct Disks {
    /// A file system, and the operation of its own that a freeze would wait for.
    pub at_work: Vec<(String, String)>,
    /// A file system, and the device beneath it that takes no writes.
    pub suspended: Vec<(String, String)>,
    /// File systems that are frozen and lie on device mapper.
    pub mapped: Vec<String>,
    /// File systems of the plan that take no writes any more, though no table shows it.
    pub dead: Vec<String>,
    /// File systems of the plan that do not open, each with the reason; and whether a mount table shows it, so that every checkpoint fails.
    pub unreached: Vec<(String, bool)>,
    /// File systems that were mounted writable and are so no more.
    pub broken: Vec<Broken>,
}

/// A file system that its driver has made read-only.
#[derive(Debug, Default, Clone)]
pub struct Broken {
    /// Where it is mounted.
    pub place: String,
    /// How many errors the driver has on record, where it tells.
    pub errors: Option<u64>,
    /// The mount table shows it as read-only, so that no freeze is tried; a freeze of one that only acts so fails.
    pub shown: bool,
}

/// The hooks' files.
#[derive(Debug, Default, Clone)]
pub struct Hooks {
    /// Those that are run.
    pub accepted: Vec<String>,
    /// Those that are not, with the reason; and whether a checkpoint fails for it.
    pub refused: Vec<(String, String, bool)>,
}
