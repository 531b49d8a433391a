//! `hv-vssd freeze` on scratch disks: what it holds, what it tells, and that it thaws however it ends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod by_agent;
#[path = "../double/mod.rs"]
mod double;
#[path = "../driver/mod.rs"]
mod driver;
mod ending;
mod output;
mod refused;
#[path = "../scratch/mod.rs"]
mod scratch;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scratch::{Disk, PATIENCE, bind, in_namespace, own_run, until};
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
    in_namespace(|place| {
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
    });
}
