//! A guest: a small virtual machine with disks, its init, and the Hyper-V host's port.

mod control;
mod disk;
mod qemu;
mod qmp;
mod trace;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::assets::{self, Kernel};
use crate::error::{BedError, BedResult, Context};
use crate::host::Host;
use crate::paths;
use crate::proto::{Call, Ended, JobState, Reply, WriterState};
use control::Control;
pub use control::Pending;
pub use disk::{Disk, FsKind};
use qemu::{Machine, Qemu};
use qmp::Qmp;
pub use trace::Event;

/// A command in the guest has this long unless said otherwise.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// In the kernel's stack of a task that waits for a thaw (`sb_start_write`), and of no other.
const WAITS_FOR_THAW: [&str; 2] = ["percpu_rwsem_wait", "__percpu_down_read"];

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

/// Memory of a guest that is an initramfs alone, in MiB.
const MEMORY_MIB: u32 = 768;

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
            plan.kernel,
            dir,
            &initrd,
            plan.disks,
            MEMORY_MIB,
            "",
            "/lib",
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
        let modules = crate::proto::MODULES_DIR;
        Self::power_on(
            plan.kernel,
            dir,
            &initrd,
            plan.disks,
            plan.memory_mib,
            &append,
            modules,
        )
    }

    fn power_on(
        kernel: Kernel,
        dir: PathBuf,
        initrd: &Path,
        disks: &[Disk],
        memory_mib: u32,
        append: &str,
        modules: &'static str,
    ) -> BedResult<Self> {
        let mut images = Vec::new();
        let mut drives = Vec::new();
        for (number, disk) in disks.iter().enumerate() {
            let image = dir.join(format!("disk{number}.img"));
            disk.make(&image)?;
            drives.push((image.clone(), disk.drive_options()));
            images.push(image);
        }
        let (qemu, sockets) = Qemu::start(&Machine {
            vmlinuz: &assets::find(kernel)?.vmlinuz,
            initrd,
            disks: &drives,
            memory_mib,
            append,
            dir: &dir,
        })?;
        let control = Control::connect(sockets.control)?;
        Ok(Self {
            control,
            host: Some(Host::new(sockets.vmbus)?),
            monitor: Qmp::new(sockets.monitor)?,
            qemu,
            dir,
            jobs: std::cell::RefCell::default(),
            disks: images,
            modules,
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

    /// Plugs in the VSS service: the stand-in bus, the genuine hv_utils, the host's relay.
    ///
    /// # Errors
    /// A module does not load.
    pub fn plug_in(&self) -> BedResult<()> {
        self.plug_in_with("")
    }

    /// As [`Self::plug_in`], with parameters of the stand-in bus.
    ///
    /// # Errors
    /// A module does not load.
    pub fn plug_in_with(&self, parameters: &str) -> BedResult<()> {
        self.load("hv_vmbus", parameters)?;
        self.load("hv_utils", "")?;
        self.connect_host()
    }

    /// Loads one of the service's modules: `hv_vmbus` is the stand-in bus, `hv_utils` the driver.
    ///
    /// # Errors
    /// It does not load.
    pub fn load(&self, module: &str, parameters: &str) -> BedResult<()> {
        self.call(Call::LoadModule {
            path: format!("{}/{module}.ko", self.modules),
            parameters: parameters.into(),
        })?;
        Ok(())
    }

    /// Lets the host speak to a service that was plugged in from power-on.
    ///
    /// # Errors
    /// There is no such service.
    pub fn connect_host(&self) -> BedResult<()> {
        self.call(Call::Relay)?;
        Ok(())
    }

    /// The Hyper-V host.
    ///
    /// # Errors
    /// None while the guest lives.
    pub fn host(&mut self) -> BedResult<&mut Host> {
        self.host
            .as_mut()
            .ok_or_else(|| BedError::Setup("the host's port is gone".into()))
    }

    /// The host does something to the service: `probe`, `remove`, `suspend`, `resume`.
    /// Returns at once; the driver may wait for the agent.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn host_does(&self, word: &str) -> BedResult<Pending> {
        self.control.start(Call::VmbusControl { word: word.into() })
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

    /// Runs a command to its end, whatever its status.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn exec(&self, argv: &[&str], limit: Duration) -> BedResult<Ended> {
        let call = Call::Exec {
            argv: argv.iter().map(ToString::to_string).collect(),
            stdin: String::new(),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let grace = Duration::from_secs(20);
        match self.control.start(call)?.wait(limit + grace)? {
            Reply::Exec(ended) => Ok(ended),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a shell script that must succeed and returns what it printed.
    ///
    /// # Errors
    /// It fails or takes longer than [`COMMAND_LIMIT`].
    pub fn sh(&self, script: &str) -> BedResult<String> {
        let ended = self.exec(&["/bin/sh", "-euc", script], COMMAND_LIMIT)?;
        if ended.status == Some(0) {
            return Ok(ended.stdout);
        }
        Err(BedError::Command {
            command: script.into(),
            status: format!("{:?}, timed out: {}", ended.status, ended.timed_out),
            output: ended.stdout + &ended.stderr,
        })
    }

    /// Starts a background process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, job: &str, argv: &[&str]) -> BedResult<i32> {
        self.spawn_with(job, argv, &[])
    }

    /// As [`Self::spawn`], with variables added to its environment.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_with(&self, job: &str, argv: &[&str], env: &[(&str, &str)]) -> BedResult<i32> {
        let mut jobs = self.jobs.borrow_mut();
        if !jobs.iter().any(|known| known == job) {
            jobs.push(job.into());
        }
        drop(jobs);
        let call = Call::Spawn {
            job: job.into(),
            argv: argv.iter().map(ToString::to_string).collect(),
            env: env
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        };
        match self.call(call)? {
            Reply::Spawned { pid } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a signal to a background process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, job: &str, signal: Signal) -> BedResult<()> {
        self.call(Call::Signal {
            job: job.into(),
            signal: signal as i32,
        })?;
        Ok(())
    }

    /// The state of a background process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn job(&self, job: &str) -> BedResult<JobState> {
        match self.call(Call::Job { job: job.into() })? {
            Reply::Job(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts a writer in a directory of the guest and waits for its first record.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_writer(&self, directory: &str) -> BedResult<()> {
        let state = writer_state(directory);
        self.spawn(
            &format!("writer {directory}"),
            &["/sbin/hv-testguest", "writer", directory, &state],
        )?;
        let started = poll_until(COMMAND_LIMIT, || {
            let state = self.writer(directory)?;
            Ok::<_, BedError>((state.synced > 0).then_some(()))
        })?;
        started.ok_or_else(|| BedError::Timeout {
            what: format!("a first record in {directory}"),
            limit: COMMAND_LIMIT,
        })
    }

    /// Pauses the writer in a directory between two instructions, or lets it go on.
    ///
    /// # Errors
    /// There is none.
    pub fn pause_writer(&self, directory: &str, pause: bool) -> BedResult<()> {
        let signal = if pause {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        self.signal(&format!("writer {directory}"), signal)
    }

    /// The state of the writer in a directory.
    ///
    /// # Errors
    /// There is none.
    pub fn writer(&self, directory: &str) -> BedResult<WriterState> {
        let state = writer_state(directory);
        match self.call(Call::Writer { state })? {
            Reply::Writer(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether a process waits for a thaw, by its stack in the kernel.
    fn waits_for_thaw(&self, pid: i32) -> bool {
        let stack = self.read(&format!("/proc/{pid}/stack")).unwrap_or_default();
        WAITS_FOR_THAW.iter().any(|frame| stack.contains(frame))
    }

    /// Whether the writer in a directory waits for a thaw at this moment.
    ///
    /// # Errors
    /// There is no such writer.
    pub fn writer_sleeps(&self, directory: &str) -> BedResult<bool> {
        let job = format!("writer {directory}");
        Ok(self.waits_for_thaw(self.job(&job)?.pid))
    }

    /// Whether a write in a directory sleeps, as it does on a frozen file system: a new file
    /// is made there by a process of its own, which either ends or waits for a thaw. The process is left behind and ends after the thaw.
    ///
    /// # Errors
    /// The write fails, or neither happens in time.
    pub fn write_sleeps(&self, directory: &str) -> BedResult<bool> {
        let job = format!("probe {directory}");
        let file = format!("{directory}/.probe");
        let pid = self.spawn(&job, &["/bin/touch", &file])?;
        let sleeps = poll_until(COMMAND_LIMIT, || {
            let state = self.job(&job)?;
            match (state.running, state.status) {
                (true, _) => Ok(self.waits_for_thaw(pid).then_some(true)),
                (false, Some(0)) => Ok(Some(false)),
                _ => Err(BedError::Guest(format!("touch {file}: {}", state.output))),
            }
        })?;
        sleeps.ok_or_else(|| BedError::Timeout {
            what: format!("an end of touch {file}"),
            limit: COMMAND_LIMIT,
        })
    }

    /// Bind-mounts `from` at `under/0` … `under/count-1`.
    ///
    /// # Errors
    /// A mount fails.
    pub fn bind_mounts(&self, from: &str, under: &str, count: u32) -> BedResult<()> {
        let call = Call::BindMounts {
            from: from.into(),
            under: under.into(),
            count,
        };
        self.control.start(call)?.wait(COMMAND_LIMIT * 4)?;
        Ok(())
    }

    /// Mounts a file system that a process should serve (`fuse`, `autofs`); none does, so that
    /// whoever touches it waits for ever.
    ///
    /// # Errors
    /// The mount fails.
    pub fn mount_unserved(&self, kind: &str, at: &str) -> BedResult<()> {
        self.call(Call::MountUnserved {
            kind: kind.into(),
            at: at.into(),
        })?;
        Ok(())
    }

    /// Makes a listening socket.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_socket(&self, path: &str) -> BedResult<()> {
        self.call(Call::MakeSocket { path: path.into() })?;
        Ok(())
    }

    /// Reads a file of the guest.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, path: &str) -> BedResult<String> {
        match self.call(Call::Read { path: path.into() })? {
            Reply::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes a file of the guest.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, text: &str) -> BedResult<()> {
        self.call(Call::Write {
            path: path.into(),
            text: text.into(),
        })?;
        Ok(())
    }

    /// What was sent to syslog in the guest.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn syslog(&self) -> BedResult<String> {
        match self.call(Call::Syslog)? {
            Reply::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
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

/// A directory for the guest's files, and the base archive in it.
fn prepare(kernel: Kernel, name: &str) -> BedResult<(PathBuf, PathBuf)> {
    let assets = assets::find(kernel)?;
    let runs = paths::testbed().join("runs");
    std::fs::create_dir_all(&runs).doing(|| format!("making {}", runs.display()))?;
    let dir = tempfile::Builder::new()
        .prefix(&format!("{}.", name.replace([':', '/', ' '], "-")))
        .tempdir_in(&runs)
        .doing(|| "making the guest's directory".into())?
        .keep();
    let initrd = dir.join("initrd");
    std::fs::copy(&assets.base, &initrd).doing(|| "copying the base archive".into())?;
    Ok((dir, initrd))
}

fn writer_state(directory: &str) -> String {
    format!("/run/writer{}", directory.replace('/', "-"))
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
