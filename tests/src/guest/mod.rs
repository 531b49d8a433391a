//! A guest: a small virtual machine with disks, its init, and the Hyper-V host's port.

mod control;
mod disk;
mod files;
mod plugged;
mod processes;
mod qemu;
mod qmp;
mod ready;
pub(crate) mod saved;
mod service;
mod trace;
mod writers;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::assets::{self, Kernel};
use crate::error::{BedError, BedResult, Context};
use crate::host::Host;
use crate::paths;
use crate::proto::{Call, Reply};
use control::Control;
pub use control::Pending;
pub use disk::{Disk, FsKind};
pub(crate) use qemu::has_died;
use qemu::{Machine, Qemu};
use qmp::Qmp;
pub use saved::Saved;
pub use trace::Event;

/// A command in the guest has this long unless said otherwise.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What to boot.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The kernel.
    pub kernel: Kernel,
    /// Copy hv-vssd into the guest.
    pub with_hv_vssd: bool,
    /// Its disks: `/dev/vda`, `/dev/vdb`, …
    pub disks: &'a [Disk],
    /// A name for the kept files of a failed run.
    pub name: String,
}

/// Which system of a disk to boot.
#[derive(Debug)]
pub struct SystemPlan<'a> {
    /// The kernel.
    pub kernel: Kernel,
    /// Its disks: `/dev/vda`, which holds the system, `/dev/vdb`, …
    pub disks: &'a [Disk],
    /// Type of the system's file system.
    pub root: FsKind,
    /// Files that are put into the system: a tree like its own.
    pub overlay: Option<&'a Path>,
    /// Shell commands run in the system before it boots; they see its disk alone.
    pub setup: &'a str,
    /// Whether the host offers the VSS service from power-on.
    pub plugged: bool,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// A name for the kept files of a failed run.
    pub name: String,
}

/// What all kinds of guests are started from.
struct PowerOn<'a> {
    kernel: Kernel,
    initrd: &'a Path,
    disks: &'a [Disk],
    memory_mib: u32,
    append: &'a str,
    state: Option<PathBuf>,
    /// Where its modules are.
    modules: &'static str,
}

/// Memory of a guest that is an initramfs alone, in MiB.
const MEMORY_MIB: u32 = 768;

/// Where the bus and the driver are in it.
const MODULES: &str = "/lib";

/// A running guest. When dropped it is killed, by process id; what its processes said is
/// kept in `jobs.log` beside its console.
#[derive(Debug)]
pub struct Guest {
    control: Control,
    host: Option<Host>,
    monitor: Qmp,
    #[expect(dead_code, reason = "held to be killed with the guest")]
    qemu: Qemu,
    dir: PathBuf,
    jobs: std::cell::RefCell<Vec<String>>,
    disks: Vec<PathBuf>,
    modules: &'static str,
}

impl Guest {
    /// Boots a guest and waits until its init serves requests.
    ///
    /// # Errors
    /// Something is not prepared, or the guest does not come up in time.
    pub fn boot(plan: &Plan<'_>) -> BedResult<Self> {
        let (dir, initrd) = prepare(plan.kernel, &plan.name)?;
        assets::append_programs(&initrd, plan.with_hv_vssd)?;
        Self::power_on(
            PowerOn {
                kernel: plan.kernel,
                initrd: &initrd,
                disks: plan.disks,
                memory_mib: MEMORY_MIB,
                append: "",
                state: None,
                modules: MODULES,
            },
            dir,
        )
    }

    /// Boots the system on the first disk and waits until the bed's server in it serves
    /// requests; this is before systemd has started anything.
    ///
    /// # Errors
    /// Something is not prepared, or the guest does not come up in time.
    pub fn boot_system(plan: &SystemPlan<'_>) -> BedResult<Self> {
        let (dir, initrd) = prepare(plan.kernel, &plan.name)?;
        assets::append_programs(&initrd, false)?;
        assets::append_system(&initrd, plan.overlay, plan.setup)?;
        let append = format!(
            "root=/dev/vda rootfstype={} systemd.journald.forward_to_console=1{}",
            plan.root.name(),
            if plan.plugged {
                " hv_testbed.plugged"
            } else {
                ""
            }
        );
        Self::power_on(
            PowerOn {
                kernel: plan.kernel,
                initrd: &initrd,
                disks: plan.disks,
                memory_mib: plan.memory_mib,
                append: &append,
                state: None,
                modules: crate::proto::MODULES_DIR,
            },
            dir,
        )
    }

    /// Goes on from a kept state.
    ///
    /// # Errors
    /// QEMU does not take it, or the guest does not answer in time.
    fn restore(saved: &Saved<'_>) -> BedResult<Self> {
        let dir = run_dir(&saved.name)?;
        let disks = (0..saved.disks).map(|number| Disk::copy_of(&saved.disk(number)));
        let restored = Self::power_on(
            PowerOn {
                kernel: saved.kernel,
                // It has done its work; QEMU wants one all the same.
                initrd: &assets::find(saved.kernel)?.base,
                disks: &disks.collect::<Vec<_>>(),
                memory_mib: saved.memory_mib,
                append: "",
                state: Some(saved.state()),
                modules: saved.modules,
            },
            dir,
        );
        let mut guest = restored.inspect_err(|_| saved.discard())?;
        guest.add_disks(saved.more)?;
        Ok(guest)
    }

    fn power_on(plan: PowerOn<'_>, dir: PathBuf) -> BedResult<Self> {
        let mut images = Vec::new();
        let mut drives = Vec::new();
        for (number, disk) in plan.disks.iter().enumerate() {
            let image = saved::disk(&dir, number);
            drives.push((image.clone(), disk.drive_options()));
            images.push(image);
        }
        let machine = Machine {
            vmlinuz: &assets::find(plan.kernel)?.vmlinuz,
            initrd: plan.initrd,
            disks: &drives,
            memory_mib: plan.memory_mib,
            append: plan.append,
            state: plan.state,
            dir: &dir,
        };
        let (qemu, control, vmbus, monitor) = started(&machine, plan.disks)?;
        Ok(Self {
            control,
            host: Some(Host::new(vmbus)?),
            monitor,
            qemu,
            dir,
            jobs: std::cell::RefCell::default(),
            disks: images,
            modules: plan.modules,
        })
    }

    /// The directory with its console log and disks. It stays when the guest is dropped.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The image of a disk, by its number.
    ///
    /// # Errors
    /// There is no such disk.
    pub fn image(&self, number: usize) -> BedResult<&Path> {
        let path = self.disks.get(number);
        path.map(PathBuf::as_path)
            .ok_or_else(|| BedError::Setup(format!("the guest has no disk {number}")))
    }

    fn call(&self, call: Call) -> BedResult<Reply> {
        self.control.start(call)?.wait(COMMAND_LIMIT)
    }

    /// Pauses the whole machine, its clock too, or lets it go on.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn pause(&mut self, pause: bool) -> BedResult<()> {
        self.monitor.command(if pause { "stop" } else { "cont" })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let limit = Duration::from_secs(2);
        let mut log = String::new();
        for job in self.jobs.take() {
            let ask = self.control.start(Call::Job { job: job.clone() });
            if let Ok(Reply::Job(state)) = ask.and_then(|asked| asked.wait(limit)) {
                log.push_str(&format!("{job}: {:?}\n{}\n", state.status, state.output));
            }
        }
        if let Ok(Reply::Text(text)) = self
            .control
            .start(Call::Syslog)
            .and_then(|asked| asked.wait(limit))
        {
            log.push_str(&text);
        }
        let _ = std::fs::write(self.dir.join("jobs.log"), log);
    }
}

/// QEMU's software emulation now and then dies of an assertion of its own at power-on. So often it is started.
const STARTS: u32 = 3;

/// Makes a machine's disks and powers it on until its init answers; anew, if the emulator has died.
fn started(machine: &Machine<'_>, disks: &[Disk]) -> BedResult<(Qemu, Control, UnixStream, Qmp)> {
    let mut starts = 0;
    loop {
        starts += 1;
        for (disk, (image, _)) in disks.iter().zip(machine.disks) {
            // What is left of a dead start would be added to.
            let _ = std::fs::remove_file(image);
            disk.make(image)?;
        }
        let (qemu, sockets) = Qemu::start(machine)?;
        let answers = Qmp::new(sockets.monitor).and_then(|mut monitor| {
            let control = if machine.state.is_some() {
                monitor.go_on()?;
                Control::resume(sockets.control)?
            } else {
                Control::connect(sockets.control)?
            };
            Ok((control, monitor))
        });
        match answers {
            Ok((control, monitor)) => return Ok((qemu, control, sockets.vmbus, monitor)),
            Err(error) => {
                drop(qemu);
                if starts == STARTS || !has_died(machine.dir) {
                    return Err(error);
                }
                println!("the emulator died at power-on: once more");
            }
        }
    }
}

/// A directory for the guest's files, and the base archive in it.
fn prepare(kernel: Kernel, name: &str) -> BedResult<(PathBuf, PathBuf)> {
    let assets = assets::find(kernel)?;
    let dir = run_dir(name)?;
    let initrd = dir.join("initrd");
    std::fs::copy(&assets.base, &initrd).doing(|| "copying the base archive".into())?;
    Ok((dir, initrd))
}

/// A directory for the guest's files.
fn run_dir(name: &str) -> BedResult<PathBuf> {
    let runs = paths::testbed().join("runs");
    std::fs::create_dir_all(&runs).doing(|| format!("making {}", runs.display()))?;
    Ok(tempfile::Builder::new()
        .prefix(&format!("{}.", name.replace([':', '/', ' '], "-")))
        .tempdir_in(&runs)
        .doing(|| "making the guest's directory".into())?
        .keep())
}

fn unexpected(reply: &Reply) -> BedError {
    BedError::Guest(format!("unexpected answer {reply:?}"))
}

/// Polls until `ready` gives a value, or the limit has passed (`None`).
///
/// # Errors
/// Those of `ready`.
pub fn poll_until<T, E>(
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
