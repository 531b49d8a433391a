//! How a hook is started: in a transient unit of systemd's, outside the agent's sandbox, or directly.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Operation;

/// Where programs are looked for, by the agent and by hooks that are started directly.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `systemd-run --wait` needs the bus itself (man 1 systemd-run).
const BUS: &str = "/run/dbus/system_bus_socket";

/// systemd ends the unit this long after the limit, should the agent not do it: it may be dead by then.
const BACKSTOP: Duration = Duration::from_secs(10);

/// How hooks are started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each in a transient unit.
    Unit,
    /// By `hv-vssd hook-exec`, of this binary: with root's rights where systemd does not confine the agent.
    Direct(PathBuf),
}

impl Way {
    /// As this machine allows it now.
    #[must_use]
    pub fn here() -> Self {
        let is_socket = |path| fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
        if runs_systemd() && is_socket(BUS) && program("systemd-run").is_some() {
            Self::Unit
        } else {
            // The running binary itself, also when a package upgrade has put another in its place.
            Self::Direct("/proc/self/exe".into())
        }
    }
}

/// Whether systemd is the init of this machine (man 3 sd_booted).
#[must_use]
pub fn runs_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// One call of a hook, as it is started.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) path: &'a Path,
    /// What was looked at, and may be executed.
    pub(super) file: File,
    pub(super) operation: Operation,
    /// Of the transient unit.
    pub(super) unit: String,
    pub(super) environment: &'a [(&'static str, String)],
    pub(super) limit: Duration,
}

impl Call<'_> {
    /// The process to start: the leader of a process group of its own, with nothing to read. One that is started directly is given the file itself;
    /// systemd takes a path alone, every component of which only root can change.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn command(&self, way: &Way) -> io::Result<Command> {
        let mut stdin = Stdio::null();
        let mut command = match way {
            Way::Unit => self.transient_unit(),
            Way::Direct(program) => {
                let mut command = Command::new(program);
                command.arg("hook-exec").arg("--");
                bare(&mut command);
                let environment = self.environment.iter().map(|(key, value)| (key, value));
                command.envs(environment);
                stdin = self.file.try_clone()?.into();
                command
            }
        };
        command.arg(self.path).arg(self.operation.as_str());
        command.current_dir("/").stdin(stdin).process_group(0);
        Ok(command)
    }

    fn transient_unit(&self) -> Command {
        let mut command = Command::new(program("systemd-run").unwrap_or("systemd-run".into()));
        bare(&mut command);
        command.args([
            "--quiet",
            "--wait",
            "--pipe",
            "--collect",
            "--no-ask-password",
        ]);
        command.arg(format!("--unit={}", self.unit));
        let operation = self.operation.as_str();
        command.arg(format!(
            "--description=hv-vssd hook: {} {operation}",
            self.path.display()
        ));
        // What a hook leaves behind when it freezes may have to live until its thaw: a session that holds a lock.
        let kill_mode = match self.operation {
            Operation::Freeze => "process",
            Operation::Thaw => "control-group",
        };
        let limit = (self.limit + BACKSTOP).as_secs();
        for property in [
            format!("KillMode={kill_mode}"),
            format!("RuntimeMaxSec={limit}"),
            "TimeoutStopSec=2".to_owned(),
            "WorkingDirectory=/".to_owned(),
            "UMask=0022".to_owned(),
            // A thaw has to be possible while the machine shuts down.
            "DefaultDependencies=no".to_owned(),
        ] {
            command.arg(format!("--property={property}"));
        }
        for (key, value) in self.environment {
            command.arg(format!("--setenv={key}={value}"));
        }
        command.arg("--");
        command
    }
}

/// The command that sends a signal to all processes of a unit.
pub(super) fn signal_unit(unit: &str, signal: &str) -> Command {
    let mut command = Command::new(program("systemctl").unwrap_or("systemctl".into()));
    bare(&mut command);
    command
        .args(["kill", "--quiet", "--no-ask-password"])
        .arg(format!("--signal={signal}"))
        .arg(unit)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Nothing that systemd has told the agent: $NOTIFY_SOCKET would let a child speak for it.
fn bare(command: &mut Command) {
    command.env_clear().env("PATH", PATH);
}

fn program(name: &str) -> Option<PathBuf> {
    let mut places = PATH
        .split(':')
        .map(|directory| Path::new(directory).join(name));
    places.find(|path| path.is_file())
}
