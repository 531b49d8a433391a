//! `hv-vssd freeze` on scratch disks: what it holds, what it tells, and that it thaws however it ends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;
mod driver;
mod scratch;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use driver::Driver;
use hv_vssd::agent::Outlets;
use hv_vssd::agent::single::Single;
use hv_vssd::control::Client;
use hv_vssd::quiesce::Engine;
use hv_vssd::telemetry::Gate;
use hvutil_sys::freeze as ioctl;
use hvutil_sys::vss::{Operation, Status};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scratch::{Disk, PATIENCE, RUN, ScratchKernel, bind, in_namespace, own_run, until};
use serde_json::Value;

/// Longer than a test waits: only a signal, or an error, ends such a hold in time.
const LONG: &str = "--for=100s";

/// The command on paths of this test's own disks. Without a path it would freeze this machine.
fn freeze(arguments: &[&str], paths: &[&Path]) -> Command {
    assert!(!paths.is_empty(), "the whole machine is not to be frozen");
    for path in paths {
        let fstype = nix::sys::statfs::statfs(*path).unwrap().filesystem_type();
        let root = nix::sys::statfs::statfs("/").unwrap().filesystem_type();
        let own = path
            .ancestors()
            .any(|path| path.ends_with("run") || is_mount_point(path));
        assert!(
            own || fstype != root,
            "{} is none of this test's",
            path.display()
        );
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hv-vssd"));
    command.arg("freeze").args(arguments).args(paths);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env("LC_ALL", "C.UTF-8").env_remove("COLUMNS");
    command
}

/// A disk of [`Disk`] is mounted there.
fn is_mount_point(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().ends_with("-mounted"))
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Started, and in its hold.
fn held(mut command: Command, disk: &Disk) -> Child {
    let child = command.spawn().unwrap();
    until("the hold", || disk.is_frozen());
    child
}

fn wait(mut child: Child) -> Output {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the command does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn milliseconds(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn the_named_file_systems_are_held_for_the_time_and_reported() {
    in_namespace(
        "the_named_file_systems_are_held_for_the_time_and_reported",
        |place| {
            let ledger = own_run();
            let one = Disk::new(place, "one", "ext4");
            let two = Disk::new(place, "two", "xfs");
            let other = Disk::new(place, "other", "ext4");
            // A file deep inside, and another name of a disk.
            let file = one.mount_point.join("deep/er/file");
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "data").unwrap();
            let view = place.join("view-mounted");
            fs::create_dir(&view).unwrap();
            bind(&two.mount_point, &view);
            let paths = [&*file, &*view, &*two.mount_point];
            let child = held(freeze(&["--for", "700ms", "--json"], &paths), &one);
            until("the second", || two.is_frozen() || !ledger.exists());
            assert!(!other.is_frozen(), "it was not named");
            let output = wait(child);
            let (status, out, err) = text(&output);
            assert_eq!(status, Some(0), "{out}{err}");
            assert!(!one.is_frozen() && !two.is_frozen());
            assert!(!ledger.exists());

            let report: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(report["outcome"], "success");
            assert_eq!(report["asked_by"], "manual");
            let hold = report["phases"].as_array().unwrap();
            let hold = hold.iter().find(|phase| phase["phase"] == "hold").unwrap();
            assert!(milliseconds(&hold["duration_ms"]) >= 700.0, "{hold}");
            let all = report["file_systems"].as_array().unwrap();
            assert_eq!(all.len(), 2, "{out}");
            for fs in all {
                assert_eq!(fs["result"], "frozen");
                let end = milliseconds(&fs["freeze"]["start_ms"])
                    + milliseconds(&fs["freeze"]["duration_ms"]);
                assert!(milliseconds(&fs["thaw"]["start_ms"]) >= end + 700.0);
                assert!(milliseconds(&fs["stall_ms"]) > 0.0);
            }
        },
    );
}

#[test]
fn whatever_ends_it_thaws_first_and_is_told() {
    in_namespace("whatever_ends_it_thaws_first_and_is_told", |place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGTSTP,
        ] {
            let child = held(freeze(&[LONG], &[&disk.mount_point]), &disk);
            send(&child, signal);
            let (status, out, err) = text(&wait(child));
            assert_eq!(status, Some(4), "{signal}: {out}{err}");
            assert!(!disk.is_frozen(), "{signal}");
            assert!(out.lines().count() >= 3, "{out}");
            let last = err.lines().last().unwrap();
            let told = format!("hv-vssd: interrupted by {signal}: ");
            assert!(last.starts_with(&told), "{err}");
        }
    });
}

#[test]
fn killed_in_the_hold_it_is_thawed_for_by_the_guardian() {
    in_namespace(
        "killed_in_the_hold_it_is_thawed_for_by_the_guardian",
        |place| {
            own_run();
            let disk = Disk::new(place, "disk", "xfs");
            let child = held(freeze(&[LONG], &[&disk.mount_point]), &disk);
            send(&child, Signal::SIGKILL);
            until("the thaw", || !disk.is_frozen());
            let (status, out, _) = text(&wait(child));
            assert_eq!((status, out.as_str()), (None, ""));
            // And the next one works.
            let output = freeze(&["--for=10ms"], &[&disk.mount_point])
                .output()
                .unwrap();
            assert_eq!(text(&output).0, Some(0), "{:?}", text(&output));
        },
    );
}

#[test]
fn its_output_may_lie_on_what_it_freezes() {
    in_namespace("its_output_may_lie_on_what_it_freezes", |place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let [out, err] = ["out", "err"].map(|name| disk.mount_point.join(name));
        let mut command = freeze(&["--for=300ms", "--report"], &[&disk.mount_point]);
        command.stdout(File::create(&out).unwrap());
        command.stderr(File::create(&err).unwrap());
        command.current_dir(&disk.mount_point);
        let output = wait(held(command, &disk));
        assert_eq!(output.status.code(), Some(0));
        let told = fs::read_to_string(out).unwrap();
        assert!(told.contains("▒ freeze") && told.contains('█'), "{told}");
        assert!(!told.contains('\x1b'), "colours in a file: {told}");
        assert!(
            fs::read_to_string(err)
                .unwrap()
                .starts_with("freezing 1 file system")
        );
    });
}

#[test]
fn nothing_is_printed_while_anything_is_frozen() {
    in_namespace("nothing_is_printed_while_anything_is_frozen", |place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let mut child = held(freeze(&[LONG], &[&disk.mount_point]), &disk);
        // The disk is frozen, so everything that comes before is there.
        let mut before = vec![0; 64 * 1024];
        let length = child.stderr.as_mut().unwrap().read(&mut before).unwrap();
        let before = String::from_utf8_lossy(&before[..length]).into_owned();
        let first = "freezing 1 file system, holding for 1m 40s; Ctrl-C thaws at once\n";
        assert!(before.starts_with(first), "{before}");
        let streams = [
            child.stdout.as_ref().unwrap().as_fd(),
            child.stderr.as_ref().unwrap().as_fd(),
        ];
        let mut streams = streams.map(|stream| PollFd::new(stream, PollFlags::POLLIN));
        assert_eq!(poll(&mut streams, 300_u16), Ok(0), "{streams:?}");
        send(&child, Signal::SIGTERM);
        assert_eq!(text(&wait(child)).0, Some(4));
    });
}

#[test]
fn a_lost_terminal_and_its_interrupt_key_thaw() {
    in_namespace("a_lost_terminal_and_its_interrupt_key_thaw", |place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        for key in [Some(b"\x03"), None] {
            let terminal = nix::pty::openpty(None, None).unwrap();
            // Else the command would keep its own terminal alive.
            fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
            // Its own session, of which this is the terminal.
            let command = freeze(&[LONG, "--report"], &[&disk.mount_point]);
            let mut session = Command::new("setsid");
            session
                .arg("--ctty")
                .arg(command.get_program())
                .args(command.get_args());
            session.stdin(terminal.slave.try_clone().unwrap());
            session.stdout(terminal.slave.try_clone().unwrap());
            session.stderr(terminal.slave);
            session
                .env("TERM", "xterm")
                .env("LC_ALL", "C")
                .env_remove("NO_COLOR");
            let child = held(session, &disk);
            let mut master = File::from(terminal.master);
            match key {
                Some(key) => {
                    // The terminal sends SIGINT to the guardian too.
                    master.write_all(key).unwrap();
                    let mut told = String::new();
                    let mut some = [0; 4096];
                    // At its end the terminal is an error.
                    while let Ok(length @ 1..) = master.read(&mut some) {
                        told.push_str(&String::from_utf8_lossy(&some[..length]));
                    }
                    assert!(told.contains("interrupted by SIGINT"), "{told}");
                    assert!(told.contains("\x1b[36m#"), "in colour, in ASCII: {told}");
                    assert_eq!(wait(child).status.code(), Some(4));
                }
                None => {
                    drop(master);
                    assert_eq!(wait(child).status.code(), Some(4));
                }
            }
            until("the thaw", || !disk.is_frozen());
        }
    });
}

#[test]
fn what_someone_else_froze_fails_it_and_the_rest_is_thawed() {
    in_namespace(
        "what_someone_else_froze_fails_it_and_the_rest_is_thawed",
        |place| {
            own_run();
            let [one, two] = ["one", "two"].map(|name| Disk::new(place, name, "ext4"));
            ioctl::freeze(File::open(&two.mount_point).unwrap()).unwrap();
            let paths = [&*one.mount_point, &*two.mount_point];
            let output = freeze(&[LONG, "--report"], &paths).output().unwrap();
            let (status, out, err) = text(&output);
            assert_eq!(status, Some(1), "{out}{err}");
            assert!(
                out.starts_with("the freeze failed: 1 file system frozen"),
                "{out}"
            );
            assert!(out.contains(" foreign\n"), "{out}");
            let last = err.lines().last().unwrap();
            assert!(
                last.contains("two-mounted") && last.contains("someone else"),
                "{err}"
            );
            assert!(!one.is_frozen());
            assert!(two.is_frozen(), "it is not ours to thaw");
        },
    );
}

#[test]
fn two_by_hand_exclude_each_other() {
    in_namespace("two_by_hand_exclude_each_other", |place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let first = held(freeze(&[LONG], &[&disk.mount_point]), &disk);
        let output = freeze(&["--for=1s"], &[&disk.mount_point])
            .output()
            .unwrap();
        let (status, out, err) = text(&output);
        assert_eq!((status, out.as_str()), (Some(3), ""), "{err}");
        assert!(err.contains("another 'hv-vssd freeze' is at work"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(disk.is_frozen());
        send(&first, Signal::SIGINT);
        wait(first);
    });
}

/// An agent on these disks, as the service runs it, with its lock and its socket.
fn agent(disks: &[&Disk]) -> (Single, Driver) {
    let run = Path::new(RUN);
    let lock = Single::acquire(&run.join("lock")).unwrap();
    let kernel = ScratchKernel::new(disks);
    let make = || {
        let limits = double::limits(PATIENCE);
        Engine::new(kernel, limits, Gate::new(std::io::stderr()))
    };
    let outlets = Outlets {
        control: Some(run.join("control")),
        ..Outlets::default()
    };
    let driver = Driver::start_engine_of(make, outlets);
    until("the socket", || {
        Client::connect(&run.join("control")).is_ok()
    });
    (lock, driver)
}

#[test]
fn a_running_agent_does_it_and_the_command_tells() {
    in_namespace("a_running_agent_does_it_and_the_command_tells", |place| {
        own_run();
        let [one, two] = ["one", "two"].map(|name| Disk::new(place, name, "ext4"));
        let _agent = agent(&[&one, &two]);
        let file = one.mount_point.join("file");
        fs::write(&file, "data").unwrap();
        // Symbolic links are for the command to follow.
        let link = place.join("link-mounted");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let child = held(freeze(&["--for=300ms", "--json"], &[&link]), &one);
        assert!(!two.is_frozen(), "it was not named");
        let (status, out, err) = text(&wait(child));
        assert_eq!(status, Some(0), "{out}{err}");
        assert!(!one.is_frozen());
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["asked_by"], "manual");
        assert_eq!(report["file_systems"].as_array().unwrap().len(), 1, "{out}");

        // An interrupt: thawed at once, and reported all the same.
        let child = held(freeze(&[LONG], &[&one.mount_point]), &one);
        send(&child, Signal::SIGINT);
        let (status, out, err) = text(&wait(child));
        assert_eq!(status, Some(4), "{out}{err}");
        assert!(!one.is_frozen());
        assert!(out.lines().count() >= 3, "{out}");

        // Killed: its connection has gone.
        let child = held(freeze(&[LONG], &[&one.mount_point]), &one);
        send(&child, Signal::SIGKILL);
        until("the thaw", || !one.is_frozen());
        wait(child);
    });
}

#[test]
fn while_the_host_is_at_work_it_is_refused() {
    in_namespace("while_the_host_is_at_work_it_is_refused", |place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let (_lock, driver) = agent(&[&disk]);
        assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
        let output = freeze(&["--for=1s"], &[&disk.mount_point])
            .output()
            .unwrap();
        let (status, out, err) = text(&output);
        assert_eq!((status, out.as_str()), (Some(3), ""), "{err}");
        assert!(disk.is_frozen(), "the host's hold goes on");
        assert_eq!(driver.request(Operation::THAW), Status::Ok);
    });
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_frozen() {
    in_namespace(
        "what_cannot_be_meant_is_refused_before_anything_is_frozen",
        |place| {
            own_run();
            let disk = Disk::new(place, "disk", "ext4");
            let gone = disk.mount_point.join("gone");
            let run: PathBuf = RUN.into();
            for (arguments, path, status, told) in [
                (&[][..], &disk.mount_point, 2, "--for <TIME>"),
                (&["--for=5"], &disk.mount_point, 2, "time unit needed"),
                (&["--for=0s"], &disk.mount_point, 2, "at least 1ms"),
                (&["--for=1h"], &disk.mount_point, 2, "limits.hold"),
                (
                    &["--for=1s", "--json", "--report"],
                    &disk.mount_point,
                    2,
                    "cannot be used with",
                ),
                (
                    &["--for=1s"],
                    &run,
                    1,
                    "is on a file system that is not frozen (tmpfs on 0:",
                ),
            ] {
                let output = freeze(arguments, &[path]).output().unwrap();
                let (code, out, err) = text(&output);
                assert_eq!((code, out.as_str()), (Some(status), ""), "{err}");
                assert!(err.contains(told), "{told} is not in: {err}");
            }
            // One good path does not help a bad one.
            let mut command = freeze(&["--for=1s"], &[&disk.mount_point]);
            let (code, _, err) = text(&command.arg(&gone).output().unwrap());
            assert_eq!(code, Some(1));
            assert!(err.contains("gone cannot be used: No such file"), "{err}");
            assert!(!disk.is_frozen());
        },
    );
}

#[test]
fn without_root_it_says_so() {
    in_namespace("without_root_it_says_so", |place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        // Where anyone may run it.
        let program = Path::new(RUN).join("hv-vssd");
        fs::copy(env!("CARGO_BIN_EXE_hv-vssd"), &program).unwrap();
        let command = freeze(&["--for=1s"], &[&disk.mount_point]);
        let mut nobody = Command::new(&program);
        nobody.args(command.get_args()).uid(65534).gid(65534);
        let (code, out, err) = text(&nobody.output().unwrap());
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains("run this as root"), "{err}");
    });
}
