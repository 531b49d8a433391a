//! The guest's init and everything the bed needs inside the guest.
//!
//! As PID 1 it mounts the kernel's file systems, starts `serve` and reaps orphans.
//! Its root is the initramfs: no freeze of a disk can stop it. Told `root=` by the kernel's
//! command line it hands over to the system on that disk instead ([`boot`]).

mod boot;
mod clock;
mod crowd;
mod fuse;
mod listener;
mod load;
mod mounts;
mod out_of_sight;
mod processes;
mod qga;
mod relay;
mod serve;
mod shut_down;
mod sleeper;
mod syslog;
mod writer;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let outcome = match words.as_slice() {
        _ if std::process::id() == 1 => init(),
        ["serve"] => serve::serve(),
        ["serve-system"] => serve::serve_system(),
        ["writer", directory, state] => writer::run(directory, state),
        ["out-of-sight", how, disk, directory, state] => {
            out_of_sight::run(how, disk, directory, state)
        }
        ["listener", paths @ ..] => listener::run(paths),
        ["probe", directory, file] => load::probe(directory, file),
        ["dirty", file, bytes] => load::dirty(file, bytes),
        ["stream", file, rate, bytes] => load::stream(file, rate, bytes),
        ["small-files", directory] => load::small_files(directory),
        ["cpu", pids @ ..] => clock::cpu(pids),
        ["wall"] => clock::wall(),
        ["qga", socket, command] => qga::run(socket, command),
        ["sleeper", how, file, source, uid, threads] => {
            sleeper::run(how, file, source, uid, threads)
        }
        ["shut-down", at] => shut_down::run(at),
        ["silent-fuse", at] => fuse::run(at),
        ["crowd", uid, binds, namespaces] => crowd::run(uid, binds, namespaces),
        ["crowd-member"] => crowd::member(),
        _ => Err(
            "usage: hv-testguest serve | serve-system | writer DIRECTORY STATE-FILE | \
                  out-of-sight chroot|thread|detached DISK DIRECTORY STATE-FILE | listener PATH… | \
                  probe DIRECTORY FILE | dirty FILE BYTES | stream FILE RATE BYTES | \
                  small-files DIRECTORY | cpu PID… | wall | qga SOCKET COMMAND | \
                  sleeper splice|copy|sendfile|map FILE SOURCE UID THREADS | silent-fuse DIRECTORY | \
                  shut-down DIRECTORY | crowd UID BINDS NAMESPACES | crowd-member"
                .into(),
        ),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hv-testguest: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn init() -> Outcome {
    // As the root directory of a system is, and not as the initramfs has it.
    std::fs::set_permissions("/", PermissionsExt::from_mode(0o755))?;
    for (kind, at) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
    ] {
        std::fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    for module in std::fs::read_to_string("/etc/boot-modules")?.lines() {
        Command::new("/sbin/modprobe").arg(module).status()?;
    }
    if let Some(system) = boot::System::of(&std::fs::read_to_string("/proc/cmdline")?) {
        match system.start()? {}
    }
    let server = Command::new("/proc/self/exe").arg("serve").spawn()?;
    let server = nix::unistd::Pid::from_raw(i32::try_from(server.id())?);
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if pid == server => {
                eprintln!("hv-testguest: the server has ended, powering off");
                nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF)?;
            }
            _ => {}
        }
    }
}
