//! A booted Debian guest: systemd, udev, a persistent journal, and `/` on a disk that a
//! checkpoint freezes. How it is made is told in [`crate::debian`].
//!
//! ```no_run
//! # use tests::{error::Step, scenario::Bed, booted::{self, System}, steps::checkpoint};
//! # fn check(bed: &mut Bed) -> Step<()> {
//! // The agent under test is installed from its Debian package; the guest comes back when
//! // systemd has started everything and the agent is registered.
//! let mut guest = bed.boot_system(&System::new())?;
//! checkpoint(&mut guest)?;
//! println!("{}", booted::journal(&guest, bed.agent)?);
//! // With servers of the distribution's:
//! let guest = bed.boot_system(&System::new().packages(&["redis-server"]))?;
//! guest.sh("systemctl is-active redis-server")?;
//! # Ok(())
//! # }
//! ```
//!
//! A system to which nothing was added goes on from the kept state of one that has booted (`snapshot`): its clock then shows
//! the time of that boot. [`System::from_power_on`] has it boot.
//!
//! The guest's commands (`sh`, `read`, `write`, `spawn`, …) see the Debian system. The server
//! that carries them out is no unit of systemd's and lives in memory: it answers while `/` is
//! frozen and whatever systemd is told to stop. What a command touches may sleep all the same;
//! its time limit ends the wait, not the process.

mod snapshot;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::agent::Agent;
use crate::command;
use crate::debian::{Made, Variant};
use crate::error::{BedResult, Context, Failure, Step};
use crate::guest::{Disk, FsKind, Guest, SystemPlan, poll_until};
use crate::images;
use crate::package;

/// From the start of systemd to the end of all that it starts, on a busy machine.
const UP_LIMIT: Duration = Duration::from_secs(120);

/// Directories on the frozen file systems: one on `/`, one on the volume of LVM.
pub const WRITTEN: [&str; 2] = ["/var/tmp", "/srv"];

/// What to boot, and what to add to it.
#[derive(Debug, Clone)]
pub struct System<'a> {
    variant: Variant<'a>,
    files: Vec<(PathBuf, String)>,
    setup: String,
    disks: Vec<Disk>,
    plugged: bool,
    with_agent: bool,
    from_power_on: bool,
    memory_mib: u32,
}

impl Default for System<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> System<'a> {
    /// A system on ext4 with the agent under test, on a host that offers the VSS service.
    #[must_use]
    pub fn new() -> Self {
        Self {
            variant: Variant {
                root: FsKind::Ext4,
                packages: &[],
            },
            files: Vec::new(),
            setup: String::new(),
            disks: Vec::new(),
            plugged: true,
            with_agent: true,
            from_power_on: false,
            memory_mib: 768,
        }
    }

    /// With these Debian packages, and what they depend on. List the set in
    /// [`crate::debian::SETS`], or the first test to ask for it has to make it.
    #[must_use]
    pub fn packages(mut self, packages: &'a [&'a str]) -> Self {
        self.variant.packages = packages;
        self
    }

    /// With `/` on this file system: ext4 or xfs.
    #[must_use]
    pub fn root(mut self, kind: FsKind) -> Self {
        self.variant.root = kind;
        self
    }

    /// With a copy of a file of this machine, modes kept, at an absolute path.
    #[must_use]
    pub fn file(mut self, from: &Path, to: &str) -> Self {
        self.files.push((from.to_path_buf(), to.to_owned()));
        self
    }

    /// With shell commands run in the system before it boots. They see its root alone:
    /// no /proc, no other disk, no running systemd.
    #[must_use]
    pub fn setup(mut self, commands: &str) -> Self {
        self.setup.push_str(commands);
        self.setup.push('\n');
        self
    }

    /// With more disks: `/dev/vde`, `/dev/vdf`, …
    #[must_use]
    pub fn disks(mut self, disks: &[Disk]) -> Self {
        self.disks.extend_from_slice(disks);
        self
    }

    /// On a host that does not offer the VSS service, or not before [`Guest::plug_in`].
    #[must_use]
    pub fn unplugged(mut self) -> Self {
        self.plugged = false;
        self
    }

    /// Without hv-vssd. The distribution's hyperv-daemons are there in any case.
    #[must_use]
    pub fn without_hv_vssd(mut self) -> Self {
        self.with_agent = false;
        self
    }

    /// With this much memory instead of 768 MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Booted for this test alone, where the boot is a part of what is tested.
    #[must_use]
    pub fn from_power_on(mut self) -> Self {
        self.from_power_on = true;
        self
    }

    /// Whether any booted system of this kind will do.
    pub(crate) fn is_ordinary(&self) -> bool {
        let untouched = self.files.is_empty() && self.setup.is_empty() && self.disks.is_empty();
        untouched && self.plugged && self.with_agent && !self.from_power_on
    }

    /// The system on its disks.
    fn made(&self, agent: Agent) -> BedResult<Made> {
        if self.with_agent && agent == Agent::HvVssd {
            self.variant.with_package(&package::deb(1)?)
        } else {
            self.variant.find_or_make()
        }
    }

    /// Its disks, as they were made.
    pub(crate) fn fresh_disks(&self, agent: Agent) -> BedResult<Vec<Disk>> {
        Ok(self.made(agent)?.disks())
    }

    /// Powers it on.
    pub(crate) fn power_on(
        &self,
        mut disks: Vec<Disk>,
        bed_name: &str,
        kernel: crate::assets::Kernel,
    ) -> Step<Guest> {
        let overlay = tempfile::tempdir().doing(|| "making a directory for the overlay".into())?;
        fs::set_permissions(overlay.path(), fs::Permissions::from_mode(0o755))
            .doing(|| "opening the overlay".into())?;
        for (from, to) in &self.files {
            put(from, overlay.path(), to)?;
        }
        disks.extend_from_slice(&self.disks);
        Ok(Guest::boot_system(&SystemPlan {
            kernel,
            disks: &disks,
            root: self.variant.root,
            overlay: Some(overlay.path()),
            setup: &self.setup,
            plugged: self.plugged,
            memory_mib: self.memory_mib,
            name: bed_name.to_owned(),
        })?)
    }

    /// Waits until all of it is up, and the agent is registered if there is to be one.
    pub(crate) fn bring_up(&self, guest: &mut Guest, agent: Agent) -> Step<()> {
        wait_until_up(guest)?;
        if self.plugged {
            guest.connect_host()?;
            guest.host()?.negotiate()?;
            if self.with_agent {
                agent.wait_registered(guest)?;
            }
        }
        Ok(())
    }
}

/// Copies a file to an absolute path below `tree`.
fn put(from: &Path, tree: &Path, to: &str) -> BedResult<()> {
    let at = tree.join(to.trim_start_matches('/'));
    if let Some(dir) = at.parent() {
        fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    fs::copy(from, &at).doing(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// Waits until systemd has started all it was told to.
///
/// # Errors
/// It takes too long, or a unit has failed: they are named.
pub fn wait_until_up(guest: &Guest) -> Step<()> {
    let state = poll_until(UP_LIMIT, || {
        // Before systemd serves requests it fails at once.
        let ended = guest.exec(&["systemctl", "is-system-running", "--wait"], UP_LIMIT)?;
        let state = ended.stdout.trim().to_owned();
        let over = !matches!(
            state.as_str(),
            "" | "offline" | "unknown" | "starting" | "initializing"
        );
        Ok::<_, Failure>(over.then_some(state))
    })?;
    let state = state.unwrap_or_else(|| "not up in time".into());
    if state == "running" {
        return Ok(());
    }
    Err(Failure::Promise(format!(
        "the system is {state} after its boot; failed: {}",
        failed_units(guest)?.join(", ")
    )))
}

/// The units that have failed.
///
/// # Errors
/// systemd does not answer.
pub fn failed_units(guest: &Guest) -> Step<Vec<String>> {
    let listed = guest.sh("systemctl list-units --failed --plain --no-legend")?;
    let names = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.map(ToOwned::to_owned).collect())
}

/// No unit has failed.
///
/// # Errors
/// One has.
pub fn nothing_failed(guest: &Guest) -> Step<()> {
    let failed = failed_units(guest)?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Promise(format!("failed: {}", failed.join(", "))))
}

/// Copies the file system of the LVM volume out of its disk's image, as it is now.
///
/// # Errors
/// It cannot be copied.
pub fn copy_volume(guest: &Guest) -> BedResult<PathBuf> {
    let copy = guest.dir().join("volume-copy.img");
    // pvcreate puts the first extent, and so the only volume, at 1 MiB.
    command::run(
        Command::new("dd")
            .arg(format!("if={}", guest.image(2)?.display()))
            .arg(format!("of={}", copy.display()))
            .args(["bs=1M", "skip=1", "conv=sparse", "status=none"]),
    )?;
    Ok(copy)
}

/// The name of the agent's unit.
#[must_use]
pub fn unit(agent: Agent) -> &'static str {
    match agent {
        Agent::HvVssd => "hv-vssd.service",
        Agent::CDaemon => "hv-vss-daemon.service",
    }
}

/// A property of a unit, as `systemctl show` gives it.
///
/// # Errors
/// systemd does not answer.
pub fn property(guest: &Guest, unit: &str, name: &str) -> Step<String> {
    let value = guest.sh(&format!("systemctl show --value -p {name} {unit}"))?;
    Ok(value.trim().to_owned())
}

/// What the agent has written to the journal since boot.
///
/// # Errors
/// The journal cannot be read.
pub fn journal(guest: &Guest, agent: Agent) -> Step<String> {
    let unit = unit(agent);
    // What was written to the socket may not be stored yet.
    Ok(guest.sh(&format!(
        "journalctl --sync; journalctl -b -o cat -u {unit} --no-pager"
    ))?)
}

/// dpkg with its scripts, and systemd that reloads itself for each of a unit's names, on a busy machine.
const LONG: Duration = Duration::from_secs(180);

/// Runs shell commands that need more than the usual time.
///
/// # Errors
/// They fail, or take too long.
pub fn run(guest: &Guest, command: &str) -> Step<()> {
    let ended = guest.exec(&["/bin/sh", "-euc", command], LONG)?;
    crate::promise!(ended.status == Some(0), "{command}: {ended:?}");
    Ok(())
}

/// Copies of an ext4 `/` and of the volume, taken in a hold, need no repair, and hold all that was synced.
///
/// # Errors
/// They do, or records are missing.
pub fn clean_and_complete(root: &Path, synced: u64, volume: &Path) -> Step<()> {
    for copy in [root, volume] {
        if let Some(unclean) = images::unclean(FsKind::Ext4, copy)? {
            return Err(Failure::Promise(format!("{}: {unclean}", copy.display())));
        }
    }
    let content = images::extract(FsKind::Ext4, root, "var/tmp/records")?;
    let records = crate::writer::whole_records(&content);
    crate::promise!(
        records >= synced,
        "{records} records in the image, {synced} were fsynced"
    );
    Ok(())
}
