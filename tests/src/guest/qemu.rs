//! The QEMU process.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::{BedError, BedResult, Context};
use crate::guest::poll_until;
use crate::proto::{CONTROL_PORT, VMBUS_PORT};

/// Both virtio-serial ports and QEMU's monitor, as sockets.
pub(super) struct Sockets {
    pub(super) control: UnixStream,
    pub(super) vmbus: UnixStream,
    pub(super) monitor: UnixStream,
}

/// What is powered on.
pub(super) struct Machine<'a> {
    pub(super) vmlinuz: &'a Path,
    pub(super) initrd: &'a Path,
    /// The disks' images and options.
    pub(super) disks: &'a [(PathBuf, String)],
    pub(super) memory_mib: u32,
    /// Words added to the kernel's command line.
    pub(super) append: &'a str,
    /// The state that it goes on from, in place of a boot.
    pub(super) state: Option<PathBuf>,
    /// For its logs.
    pub(super) dir: &'a Path,
}

pub(super) const PROGRAM: &str = "qemu-system-x86_64";

#[derive(Debug)]
pub(super) struct Qemu {
    child: Child,
}

/// Emulation works everywhere; /dev/kvm may exist and yet hang a guest.
pub(super) fn accelerator() -> &'static str {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtualises = cpus
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|f| f == "vmx" || f == "svm"));
    if virtualises && File::options().write(true).open("/dev/kvm").is_ok() {
        "kvm:tcg"
    } else {
        "tcg"
    }
}

/// Whether the emulator whose log is in this directory ended by an assertion of its own.
pub(crate) fn has_died(dir: &Path) -> bool {
    let log = std::fs::read_to_string(dir.join("qemu.log"));
    log.is_ok_and(|log| log.contains("Assertion `"))
}

impl Qemu {
    /// Starts the process; QEMU connects to the sockets before it powers the guest on.
    pub(super) fn start(machine: &Machine<'_>) -> BedResult<(Self, Sockets)> {
        let dir = machine.dir;
        // Socket paths are short of 108 bytes only outside deep target directories.
        let sockets = tempfile::Builder::new()
            .prefix("hv-testbed.")
            .tempdir()
            .doing(|| "making a directory for sockets".into())?;
        let control = Listening::at(sockets.path().join("control"))?;
        let vmbus = Listening::at(sockets.path().join("vmbus"))?;
        let monitor = Listening::at(sockets.path().join("monitor"))?;
        let console = dir.join("console.log");
        let log = dir.join("qemu.log");
        let log = File::create(&log).doing(|| format!("creating {}", log.display()))?;
        let mut command = Command::new(PROGRAM);
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-machine", &format!("pc,accel={}", accelerator())])
            .args([
                "-cpu",
                "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+rdseed",
            ])
            .args(["-smp", "2", "-m", &machine.memory_mib.to_string()])
            .arg("-kernel")
            .arg(machine.vmlinuz)
            .arg("-initrd")
            .arg(machine.initrd)
            .args([
                "-append",
                // no_timer_check: on a busy machine an emulated timer looks dead at boot.
                &format!(
                    "console=ttyS0 loglevel=6 panic=-1 mitigations=off tsc=reliable \
                     no_timer_check random.trust_cpu=on {}",
                    machine.append
                ),
            ])
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-device", "virtio-serial-pci"]);
        for (port, listening) in [(CONTROL_PORT, &control), (VMBUS_PORT, &vmbus)] {
            let id = port.replace('.', "-");
            command
                .args([
                    "-chardev",
                    &format!("socket,id={id},path={}", listening.path.display()),
                ])
                .args([
                    "-device",
                    &format!("virtserialport,chardev={id},name={port}"),
                ]);
        }
        command
            .args([
                "-chardev",
                &format!("socket,id=monitor,path={}", monitor.path.display()),
            ])
            .args(["-mon", "chardev=monitor,mode=control"]);
        for (number, (disk, options)) in machine.disks.iter().enumerate() {
            command
                .args([
                    "-drive",
                    &format!(
                        "if=none,id=d{number},file={},format=raw,cache=none,discard=unmap{options}",
                        disk.display()
                    ),
                ])
                .args(["-device", &format!("virtio-blk-pci,drive=d{number}")]);
        }
        if let Some(state) = &machine.state {
            command.args(["-incoming", &format!("file:{}", state.display())]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().doing(|| "cloning qemu.log".into())?)
            .stderr(log)
            .spawn()
            .doing(|| "starting qemu-system-x86_64 (tests/run as root installs it)".into())?;
        let mut qemu = Self { child };
        let sockets = Sockets {
            control: qemu.accept(&control)?,
            vmbus: qemu.accept(&vmbus)?,
            monitor: qemu.accept(&monitor)?,
        };
        Ok((qemu, sockets))
    }

    fn accept(&mut self, listening: &Listening) -> BedResult<UnixStream> {
        let limit = Duration::from_secs(20);
        let stream = poll_until(limit, || match listening.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                match self.child.try_wait() {
                    Ok(Some(status)) => Err(BedError::Setup(format!(
                        "QEMU ended at once ({status}): see qemu.log"
                    ))),
                    _ => Ok(None),
                }
            }
            Err(error) => Err(error).doing(|| "accepting QEMU's connection".into()),
        })?;
        let stream = stream.ok_or(BedError::Timeout {
            what: "QEMU's connection".into(),
            limit,
        })?;
        stream
            .set_nonblocking(false)
            .doing(|| "making a socket blocking".into())?;
        Ok(stream)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Listening {
    path: PathBuf,
    listener: UnixListener,
}

impl Listening {
    fn at(path: PathBuf) -> BedResult<Self> {
        let listener = UnixListener::bind(&path).doing(|| format!("binding {}", path.display()))?;
        listener
            .set_nonblocking(true)
            .doing(|| "making a listener non-blocking".into())?;
        Ok(Self { path, listener })
    }
}
