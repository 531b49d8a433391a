//! `hv-vssd run` as a process of its own, with a terminal in place of the driver's device: which signals it heeds, what becomes of it, and what it starts.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scratch;

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use hv_vssd::control::{Client, Request};
use hv_vssd::status::Status;
use nix::sys::signal::Signal;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use scratch::{Disk, PATIENCE, RUN, in_namespace, own_run, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hv-vssd");

/// Cores as large as they get, in whatever the working directory is.
const WITH_CORES: [&str; 2] = ["prlimit", "--core=unlimited"];

/// What nobody means as an end, and would be one (man 7 signal): `killall -USR2 hv-vssd`.
fn harmless() -> Vec<i32> {
    let named = [
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGXCPU,
        Signal::SIGXFSZ,
        Signal::SIGPIPE,
        Signal::SIGCHLD,
        Signal::SIGCONT,
        Signal::SIGURG,
        Signal::SIGWINCH,
    ];
    // The real-time signals that the C library leaves to programs.
    named
        .map(|signal| signal as i32)
        .into_iter()
        .chain(34..=64)
        .collect()
}

/// By number, also those that have no name.
fn send(pid: u32, signal: i32) {
    let kill = format!("kill -{signal} {pid}");
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success(), "{kill}");
}

/// As `/proc/PID/stat` has it: `S` for a process that sleeps, `T` for a stopped one, `Z` for a dead one.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let state = stat.rsplit_once(") ").unwrap().1.chars().next();
    state.unwrap()
}

fn lives_on(pid: u32, signal: i32) {
    send(pid, signal);
    // A stop or an end comes before the process runs again; it is given some turns.
    for _ in 0..20 {
        let state = state(pid);
        assert!(!matches!(state, 'T' | 'Z'), "{state} after signal {signal}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The service, registered.
struct Service {
    child: Child,
    /// The driver's end of the channel, and the device kept open.
    _driver: (File, OwnedFd),
}

impl Service {
    /// `before` is what starts it: prlimit or nothing.
    fn start(place: &Path, before: &[&str]) -> Self {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut raw = tcgetattr(&terminal.slave).unwrap();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal.slave, SetArg::TCSANOW, &raw).unwrap();
        let device = nix::unistd::ttyname(&terminal.slave).unwrap();
        let words = [before, &[PROGRAM, "run", "--device"]].concat();
        let child = Command::new(words[0])
            .args(&words[1..])
            .arg(device)
            .current_dir(place)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut driver = File::from(terminal.master);
        driver.read_exact(&mut [0; 12]).unwrap();
        driver.write_all(&129u32.to_ne_bytes()).unwrap();
        let service = Self {
            child,
            _driver: (driver, terminal.slave),
        };
        until("the registration", || {
            service
                .status()
                .is_some_and(|status| status.service.registered)
        });
        service
    }

    fn status(&self) -> Option<Status> {
        let mut client = Client::connect(&Path::new(RUN).join("control")).ok()?;
        client.ask(&Request::Status).ok()
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `hv-vssd freeze` of a test's own disk, in its hold.
fn freeze(disk: &Disk, before: &[&str], place: &Path) -> Child {
    let words = [before, &[PROGRAM, "freeze", "--for=100s"]].concat();
    let child = Command::new(words[0])
        .args(&words[1..])
        .arg(&disk.mount_point)
        .current_dir(place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the hold", || disk.is_frozen());
    child
}

/// Whether root may look into a process of no more rights than its own, if it may not look into any process
/// (`ptrace_may_access` in kernel/ptrace.c, `cap_ptrace_access_check` in security/commoncap.c).
fn is_dumpable(pid: u32) -> bool {
    let Output { status, stdout, .. } = Command::new("setpriv")
        .args(["--bounding-set=-sys_ptrace", "readlink"])
        .arg(format!("/proc/{pid}/exe"))
        .output()
        .unwrap();
    assert_eq!(status.success(), !stdout.is_empty());
    status.success()
}

fn child_of(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

fn cores(place: &Path) -> Vec<String> {
    let names = fs::read_dir(place).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("core"))
        .collect()
}

#[test]
fn signals_that_nobody_means_as_an_end_neither_end_the_service_nor_a_hold() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let mut service = Service::start(place, &[]);
        let mut command = freeze(&disk, &[], place);
        // Ctrl-Z in a terminal as well.
        for signal in harmless().into_iter().chain([Signal::SIGTSTP as i32]) {
            lives_on(service.pid(), signal);
        }
        assert!(disk.is_frozen());
        assert!(service.status().is_some(), "it does not answer any more");
        // What means an end still is one.
        send(service.pid(), Signal::SIGTERM as i32);
        assert!(wait(&mut service.child).success());
        assert!(!disk.is_frozen());
        wait(&mut command);
    });
}

#[test]
fn signals_that_nobody_means_as_an_end_do_not_end_a_freeze_by_hand() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        // In this process, and for an agent.
        for service in [None, Some(())] {
            let _service = service.map(|()| Service::start(place, &[]));
            let mut command = freeze(&disk, &[], place);
            for signal in harmless().into_iter().chain([Signal::SIGUSR1 as i32]) {
                lives_on(command.id(), signal);
            }
            assert!(disk.is_frozen());
            send(command.id(), Signal::SIGINT as i32);
            assert_eq!(wait(&mut command).code(), Some(4));
            assert!(!disk.is_frozen());
        }
    });
}

#[test]
fn neither_the_service_nor_its_guardian_nor_a_freeze_by_hand_leaves_a_core() {
    in_namespace(|place| {
        own_run();
        // A program that may leave one does, here.
        let mut sh = Command::new("prlimit");
        sh.args(["--core=unlimited", "sh", "-c", "kill -ABRT $$"]);
        let status = sh.current_dir(place).status().unwrap();
        assert!(status.core_dumped(), "no cores here: {status}");
        let mut other = Command::new("setpriv");
        other.args(["--bounding-set=-sys_ptrace", "sleep", "60"]);
        let mut other = other.spawn().unwrap();
        until("the other program", || is_dumpable(other.id()));
        other.kill().unwrap();
        other.wait().unwrap();
        cores(place)
            .iter()
            .for_each(|core| fs::remove_file(place.join(core)).unwrap());

        let disk = Disk::new(place, "disk", "ext4");
        for by_hand in [true, false] {
            let mut service = (!by_hand).then(|| Service::start(place, &WITH_CORES));
            let mut command = freeze(&disk, &WITH_CORES, place);
            let holder = match &mut service {
                Some(service) => &mut service.child,
                None => &mut command,
            };
            let guardian = child_of(holder.id());
            assert!(!is_dumpable(guardian), "by hand: {by_hand}");
            send(holder.id(), Signal::SIGABRT as i32);
            let status = wait(holder);
            assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
            assert!(!status.core_dumped(), "by hand: {by_hand}");
            until("the guardian's thaw", || !disk.is_frozen());
            if service.is_some() {
                wait(&mut command);
            }
        }
        assert_eq!(cores(place), [""; 0]);
    });
}

/// A control group of its own, with these processes in it, frozen until it is dropped; `None` where none can be had.
struct FrozenGroup {
    place: PathBuf,
    switch: (&'static str, &'static str, &'static str),
    pids: Vec<u32>,
}

impl FrozenGroup {
    /// Of version 2, or of version 1.
    fn new(root: &str, pids: &[u32]) -> Option<Self> {
        let switch = match root.ends_with("freezer") {
            true => ("freezer.state", "FROZEN", "THAWED"),
            false => ("cgroup.freeze", "1", "0"),
        };
        let place = Path::new(root).join(format!("hv-vssd-test-{}", std::process::id()));
        fs::create_dir(&place).ok()?;
        let group = Self {
            place,
            switch,
            pids: pids.to_vec(),
        };
        let (file, on, _) = switch;
        if !group.place.join(file).exists() {
            return None;
        }
        for pid in pids {
            fs::write(group.place.join("cgroup.procs"), pid.to_string()).unwrap();
        }
        fs::write(group.place.join(file), on).unwrap();
        Some(group)
    }
}

impl Drop for FrozenGroup {
    fn drop(&mut self) {
        let (file, _, off) = self.switch;
        let _ = fs::write(self.place.join(file), off);
        for pid in &self.pids {
            let root = self.place.parent().unwrap().join("cgroup.procs");
            let _ = fs::write(root, pid.to_string());
        }
        let _ = fs::remove_dir(&self.place);
    }
}

/// What a command prints, which must not take long.
fn told(words: &[&str]) -> (Option<i32>, String, String) {
    let started = Instant::now();
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(PROGRAM).args(words).output().unwrap();
    assert!(started.elapsed().as_secs() < 4, "{words:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// `status` says `why`, and `thaw` thaws all the same.
fn is_told_and_thawed_without(disk: &Disk, why: &str) {
    let (status, _, err) = told(&["status"]);
    assert_eq!(status, Some(1));
    assert!(err.contains(why), "{err}");
    let (status, out, err) = told(&["thaw"]);
    assert_eq!(status, Some(0), "{err}");
    let thawed = format!("{}: thawed\n", disk.mount_point.display());
    assert_eq!(out, thawed);
    assert!(
        err.contains(why) && err.contains("thawing without it"),
        "{err}"
    );
    assert!(!disk.is_frozen());
}

#[test]
fn sigstopped_agent_and_guardian_are_told_and_thawed_without() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let service = Service::start(place, &[]);
        let mut command = freeze(&disk, &[], place);
        let all = [service.pid(), child_of(service.pid())];
        for pid in all {
            send(pid, Signal::SIGSTOP as i32);
            until("the stop", || state(pid) == 'T');
        }
        let pid = service.pid();
        let why = format!("the agent, process {pid}, is stopped by a signal");
        is_told_and_thawed_without(&disk, &why);
        let (_, _, err) = told(&["status"]);
        assert!(
            err.contains(&format!("'kill -CONT {pid}' lets it go on")),
            "{err}"
        );
        for pid in all {
            send(pid, Signal::SIGCONT as i32);
        }
        until("an answer", || service.status().is_some());
        command.kill().unwrap();
        command.wait().unwrap();
    });
}

#[test]
fn agent_and_guardian_in_a_frozen_cgroup_are_told_and_thawed_without() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let service = Service::start(place, &[]);
        for root in [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/freezer",
        ] {
            let mut command = freeze(&disk, &[], place);
            let all = [service.pid(), child_of(service.pid())];
            let group = FrozenGroup::new(root, &all);
            if let Some(group) = &group {
                let place = group.place.display().to_string();
                let switch = group.place.join(group.switch.0);
                until("the agent to be frozen", || {
                    let text = fs::read_to_string(&switch).unwrap();
                    text.trim() == group.switch.1
                });
                is_told_and_thawed_without(&disk, "the control group of hv-vssd is frozen");
                let (_, _, err) = told(&["status"]);
                assert!(
                    err.contains(&format!("'echo {} >{place}/", group.switch.2)),
                    "{err}"
                );
            }
            eprintln!(
                "{root}: {}",
                if group.is_some() {
                    "frozen"
                } else {
                    "left out"
                }
            );
            drop(group);
            command.kill().unwrap();
            command.wait().unwrap();
            until("an idle agent", || {
                service.status().is_some_and(|status| status.hold.is_none())
            });
        }
    });
}

#[test]
fn hooks_keep_their_core_dumps_and_get_every_signal() {
    in_namespace(|place| {
        own_run();
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let has_core_files = !pattern.starts_with(['|', '/', '@']);
        let etc = Path::new("/etc");
        let (tmpfs, flags) = (Some("tmpfs"), nix::mount::MsFlags::empty());
        nix::mount::mount(tmpfs, etc, tmpfs, flags, None::<&str>).unwrap();
        // A tmpfs is everybody's, and no hook is run below such a directory.
        fs::set_permissions(etc, Permissions::from_mode(0o755)).unwrap();
        let hooks = etc.join("hv-vssd/hooks.d");
        fs::create_dir_all(&hooks).unwrap();
        let hook = hooks.join("10-aborts");
        // The shell itself reads: while it starts a program it blocks signals of its own.
        let script = format!(
            "#!/bin/sh\n\
            cd {}\n\
            while read key value; do [ $key != SigBlk: ] || echo $value; done </proc/$$/status >mask\n\
            ulimit -c unlimited\n\
            [ $1 = thaw ] || kill -ABRT $$\n",
            place.display()
        );
        fs::write(&hook, script).unwrap();
        fs::set_permissions(&hook, Permissions::from_mode(0o755)).unwrap();
        let disk = Disk::new(place, "disk", "ext4");
        let Output { status, stderr, .. } = Command::new(PROGRAM)
            .args(["freeze", "--for=10ms"])
            .arg(&disk.mount_point)
            .output()
            .unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{told}");
        assert!(told.contains("ended by signal 6"), "{told}");
        let mask = fs::read_to_string(place.join("mask")).unwrap();
        assert_eq!(mask, "0000000000000000\n");
        if has_core_files {
            assert_eq!(cores(place).len(), 1, "the hook's");
        }
    });
}
