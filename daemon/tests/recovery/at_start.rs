//! The next start thaws what is on record, whatever else then keeps it from serving; only a running agent keeps it from thawing.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use hv_vssd::agent::single::Single;
use hv_vssd::quiesce::ledger::Mark;
use nix::mount::{MsFlags, mount};

use super::scratch::{Disk, RUN, in_namespace, own_run};
use super::{NONE, freeze, record};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hv-vssd");
const NO_DEVICE: [&str; 3] = ["run", "--device", "/nonexistent/hv_vss"];

/// The words of a command, in a process that has given something up before.
fn output(words: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .env_remove("JOURNAL_STREAM")
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// Freezes the disk and leaves it on record, starts, and says how that ended. The last line is the command's own.
fn start_with_left_over(disk: &Disk, ledger: &Path, words: &[&str]) -> (Option<i32>, String) {
    freeze(disk);
    record(ledger, &[(disk, Mark::Frozen)]);
    let (status, told) = output(words);
    assert!(!disk.is_frozen(), "{words:?}: {told}");
    let thawed = told
        .lines()
        .filter(|line| line.contains("was left frozen by an earlier agent: thawed"));
    assert_eq!(thawed.count(), 1, "{told}");
    (status, told.lines().last().unwrap().to_owned())
}

/// Nothing can be written there any more.
fn read_only() {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, Path::new(RUN), NONE, flags, NONE).unwrap();
}

fn writable() {
    mount(NONE, Path::new(RUN), NONE, MsFlags::MS_REMOUNT, NONE).unwrap();
}

#[test]
fn a_broken_configuration_does_not_keep_a_start_from_thawing() {
    in_namespace(|place| {
        let ledger = own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let config = place.join("config.toml");
        for text in ["limits = = 3\n", "[limits]\nhodl = 3\n"] {
            fs::write(&config, text).unwrap();
            let config = config.to_str().unwrap();
            let run = [PROGRAM, "run", "--config", config];
            let (status, last) = start_with_left_over(&disk, &ledger, &run);
            assert_eq!(status, Some(2), "{last}");
            assert!(
                last.starts_with(&format!("hv-vssd: {config}, line ")),
                "{last}"
            );
            assert!(!ledger.exists());
        }
        let missing = [PROGRAM, "run", "--config", "/nonexistent.toml"];
        let (status, last) = start_with_left_over(&disk, &ledger, &missing);
        assert_eq!(status, Some(2), "{last}");
        // A freeze by hand is a start, too.
        let (config, path) = (config.to_str().unwrap(), disk.mount_point.to_str().unwrap());
        let by_hand = [PROGRAM, "freeze", "--for=1s", "--config", config, path];
        let (status, last) = start_with_left_over(&disk, &ledger, &by_hand);
        assert_eq!(status, Some(2), "{last}");
        assert!(!ledger.exists());
    });
}

#[test]
fn a_start_without_the_device_thaws() {
    in_namespace(|place| {
        let ledger = own_run();
        let disk = Disk::new(place, "disk", "xfs");
        let words = [&[PROGRAM][..], &NO_DEVICE].concat();
        let (status, last) = start_with_left_over(&disk, &ledger, &words);
        assert_eq!(status, Some(1));
        assert!(
            last.starts_with("hv-vssd: /nonexistent/hv_vss does not exist"),
            "{last}"
        );
    });
}

#[test]
fn a_start_without_a_capability_thaws() {
    in_namespace(|place| {
        let ledger = own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let without = ["setpriv", "--bounding-set=-dac_read_search", PROGRAM];
        let words = [&without[..], &NO_DEVICE].concat();
        let (status, last) = start_with_left_over(&disk, &ledger, &words);
        assert_eq!(status, Some(1));
        assert!(last.contains("CAP_DAC_READ_SEARCH is missing"), "{last}");
    });
}

#[test]
fn a_start_that_cannot_lock_its_memory_thaws() {
    in_namespace(|place| {
        let ledger = own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let without = [
            "setpriv",
            "--bounding-set=-ipc_lock,-sys_resource",
            "prlimit",
            "--memlock=0",
            PROGRAM,
        ];
        let words = [&without[..], &NO_DEVICE].concat();
        let (status, last) = start_with_left_over(&disk, &ledger, &words);
        assert_eq!(status, Some(1));
        assert!(
            last.contains("/nonexistent/hv_vss does not exist"),
            "{last}"
        );
    });
}

#[test]
fn a_start_on_a_read_only_run_thaws() {
    in_namespace(|place| {
        let ledger = own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let words = [&[PROGRAM][..], &NO_DEVICE].concat();
        let lock = Path::new(RUN).join("lock");
        let start = || {
            freeze(&disk);
            record(&ledger, &[(&disk, Mark::Frozen)]);
            read_only();
            let (status, told) = output(&words);
            writable();
            assert_eq!(status, Some(1));
            let last = told.lines().last().unwrap();
            assert!(
                last.contains("the lock /run/hv-vssd/lock cannot be taken: "),
                "{told}"
            );
            assert!(!disk.is_frozen(), "{told}");
        };
        // Without a lock file no agent can be running; with one that nobody holds neither.
        assert!(!lock.exists());
        start();
        drop(Single::acquire(&lock).unwrap());
        start();
    });
}

#[test]
fn a_start_beside_a_running_agent_thaws_nothing() {
    in_namespace(|place| {
        let ledger = own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let lock = Path::new(RUN).join("lock");
        // Open for reading alone, or it could not become read-only.
        fs::write(&lock, "17").unwrap();
        let agent = Single::acquire_existing(&lock).unwrap().unwrap();
        freeze(&disk);
        record(&ledger, &[(&disk, Mark::Frozen)]);
        let words = [&[PROGRAM][..], &NO_DEVICE].concat();
        let broken = [PROGRAM, "run", "--config", "/nonexistent.toml"];
        for is_read_only in [false, true] {
            if is_read_only {
                read_only();
            }
            let (status, told) = output(&broken);
            assert_eq!((status, told.lines().count()), (Some(2), 1), "{told}");
            let (status, told) = output(&words);
            assert_eq!(status, Some(1));
            let reason = if is_read_only {
                "the lock "
            } else {
                "hv-vssd runs already"
            };
            assert!(told.starts_with(&format!("hv-vssd: {reason}")), "{told}");
            assert!(disk.is_frozen(), "it is the agent's");
            assert!(ledger.exists());
        }
        writable();
        drop(agent);
    });
}
