//! `hv-vssd demo` from outside: what it says, how it ends, and that it leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(60);

fn demo(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hv-vssd"));
    command
        .arg("demo")
        .arg("--dir")
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn need_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root: it makes loop devices and mounts"
    );
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Files that loop devices are attached to below `directory`.
fn attached(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir("/sys/block")
        .unwrap()
        .filter_map(|entry| {
            let file = entry.unwrap().path().join("loop/backing_file");
            let text = fs::read_to_string(file).ok()?;
            Some(PathBuf::from(text.trim_end()))
        })
        .filter(|path| path.starts_with(directory))
        .collect()
}

/// No file, no loop device, no mount.
fn assert_nothing_left(directory: &Path) {
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
    // The kernel detaches the last of them after the process has gone.
    until("the loop devices to go", || attached(directory).is_empty());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(directory.to_str().unwrap()));
    assert!(
        !mounts.lines().any(|line| line.contains(" - tmpfs demo ")),
        "{mounts}"
    );
}

fn wait(mut child: Child) -> (Option<i32>, String, String) {
    until("the demo to end", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_demo_ends_well_says_so_and_leaves_nothing_behind() {
    need_root();
    let directory = tempfile::tempdir().unwrap();
    let child = demo(directory.path()).spawn().unwrap();
    let (status, said, errors) = wait(child);
    assert_eq!(status, Some(0), "{said}{errors}");
    assert_eq!(errors, "");
    assert!(said.contains("file-system-consistent production checkpoint"));
    for operation in ["HOT_BACKUP", "FREEZE", "THAW"] {
        let answered = said
            .lines()
            .any(|line| line.contains(operation) && line.contains("success"));
        assert!(answered, "{operation}: {said}");
    }
    assert_nothing_left(directory.path());
}

/// Interrupts the demo once a line with `moment` is shown.
fn interrupt(moment: &str, signal: Signal) {
    need_root();
    let directory = tempfile::tempdir().unwrap();
    let mut child = demo(directory.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let shown = lines.find(|line| line.as_ref().unwrap().contains(moment));
    assert!(shown.is_some(), "the demo ended before {moment}");
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, signal).unwrap();
    let rest = thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let (status, _, errors) = wait(child);
    rest.join().unwrap();
    assert_eq!(status, Some(1), "{errors}");
    // Where it fell into the freeze, the agent tells of that first.
    let last = errors.lines().last().unwrap_or_default();
    assert_eq!(
        last,
        "hv-vssd: interrupted: everything is thawed and removed"
    );
    assert_nothing_left(directory.path());
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind_while_it_writes() {
    interrupt("The checkpoint", Signal::SIGTERM);
    interrupt("Scratch disks", Signal::SIGINT);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind_while_it_is_frozen() {
    interrupt("FREEZE", Signal::SIGINT);
    interrupt("FREEZE", Signal::SIGHUP);
}

#[test]
fn a_reader_that_goes_away_does_not_keep_the_demo_from_cleaning_up() {
    need_root();
    let directory = tempfile::tempdir().unwrap();
    let mut child = demo(directory.path()).spawn().unwrap();
    drop(child.stdout.take());
    let (status, _, errors) = wait(child);
    assert_eq!(status, Some(0), "{errors}");
    assert_nothing_left(directory.path());
}

#[test]
fn a_directory_that_does_not_exist_is_named_together_with_the_option() {
    need_root();
    let child = demo(Path::new("/nonexistent/place")).spawn().unwrap();
    let (status, _, errors) = wait(child);
    assert_eq!(status, Some(1));
    assert!(
        errors.contains("/nonexistent/place") && errors.contains("--dir"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn without_root_it_says_so_in_one_line() {
    need_root();
    let directory = tempfile::tempdir().unwrap();
    // Where everybody may run it.
    let copy = directory.path().join("hv-vssd");
    fs::copy(env!("CARGO_BIN_EXE_hv-vssd"), &copy).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), open).unwrap();
    let output = Command::new(&copy)
        .arg("demo")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("run this as root"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
