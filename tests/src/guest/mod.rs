//! A guest: a small virtual machine with disks, its init, and the Hyper-V host's port.

mod control;
mod disk;
mod qemu;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::assets::{self, Kernel};
use crate::error::{BedError, BedResult, Context};
use crate::host::Host;
use crate::paths;
use crate::proto::{Call, Ended, JobState, Reply, WriterState};
use control::Control;
pub use control::Pending;
pub use disk::{Disk, FsKind};
use qemu::Qemu;

/// A command in the guest has this long unless said otherwise.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);

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

/// A running guest. It is killed, by process id, when dropped.
#[derive(Debug)]
pub struct Guest {
    control: Control,
    host: Option<Host>,
    qemu: Qemu,
    dir: Option<TempDir>,
    disks: Vec<PathBuf>,
}

impl Guest {
    /// Boots a guest and waits until its init serves requests.
    ///
    /// # Errors
    /// Something is not prepared, or the guest does not come up in time.
    pub fn boot(plan: &Plan<'_>) -> BedResult<Self> {
        let assets = assets::find(plan.kernel)?;
        let runs = paths::testbed().join("runs");
        std::fs::create_dir_all(&runs).doing(|| format!("making {}", runs.display()))?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}.", plan.name.replace([':', '/', ' '], "-")))
            .tempdir_in(&runs)
            .doing(|| "making the guest's directory".into())?;
        let initrd = dir.path().join("initrd");
        std::fs::copy(&assets.base, &initrd).doing(|| "copying the base archive".into())?;
        assets::append_programs(&initrd, plan.with_hv_vssd)?;
        let mut disks = Vec::new();
        for (number, disk) in plan.disks.iter().enumerate() {
            let image = dir.path().join(format!("disk{number}.img"));
            disk.make(&image)?;
            disks.push(image);
        }
        let (qemu, sockets) = Qemu::start(&assets.vmlinuz, &initrd, &disks, dir.path())?;
        let control = Control::connect(sockets.control)?;
        Ok(Self {
            control,
            host: Some(Host::new(sockets.vmbus)?),
            qemu,
            dir: Some(dir),
            disks,
        })
    }

    /// Keeps the guest's files (console, disks) and returns where they are.
    #[must_use]
    pub fn keep(&mut self) -> Option<PathBuf> {
        self.dir.take().map(TempDir::keep)
    }

    /// The file that holds what the guest printed on its console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.qemu.console().to_path_buf()
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
        for (path, parameters) in [("/lib/hv_vmbus.ko", parameters), ("/lib/hv_utils.ko", "")] {
            self.call(Call::LoadModule {
                path: path.into(),
                parameters: parameters.into(),
            })?;
        }
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
        let call = Call::Spawn {
            job: job.into(),
            argv: argv.iter().map(ToString::to_string).collect(),
            env: vec![],
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
    pub fn signal(&self, job: &str, signal: nix::sys::signal::Signal) -> BedResult<()> {
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

    /// Starts a writer in a directory of the guest. It goes by the directory's name.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_writer(&self, directory: &str) -> BedResult<()> {
        let state = writer_state(directory);
        self.spawn(
            &format!("writer {directory}"),
            &["/sbin/hv-testguest", "writer", directory, &state],
        )?;
        Ok(())
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
