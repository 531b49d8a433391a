//! `hv-vssd thaw`: by the record, and by names.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hv_vssd::agent::single::Single;
use hv_vssd::quiesce::ledger::Mark;

use super::scratch::{Disk, RUN, in_namespace, own_run};
use super::{freeze, record};

/// `hv-vssd thaw`, with a /run/hv-vssd of its own.
fn thaw(arguments: &[&Path]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
        .arg("thaw")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_command_thaws_what_is_on_record_and_says_so() {
    in_namespace(|place| {
        let ledger = own_run();
        let (status, out, err) = thaw(&[]);
        assert_eq!((status, err.as_str()), (Some(0), ""));
        assert!(out.starts_with("nothing is on record"), "{out}");

        let disks = ["frozen", "unfrozen"].map(|name| Disk::new(place, name, "ext4"));
        freeze(&disks[0]);
        record(
            &ledger,
            &[(&disks[0], Mark::Frozen), (&disks[1], Mark::Freezing)],
        );
        let (status, out, err) = thaw(&[]);
        assert_eq!((status, err.as_str()), (Some(0), ""));
        let expected = format!(
            "{}: was not frozen\n{}: thawed\n",
            disks[1].mount_point.display(),
            disks[0].mount_point.display()
        );
        assert_eq!(out, expected);
        assert!(!ledger.exists());
    });
}

#[test]
fn the_command_leaves_the_record_of_a_living_agent() {
    in_namespace(|place| {
        let ledger = own_run();
        let agent = Single::acquire(&Path::new(RUN).join("lock")).unwrap();
        let disk = Disk::new(place, "disk", "ext4");
        freeze(&disk);
        record(&ledger, &[(&disk, Mark::Frozen)]);
        let (status, out, _) = thaw(&[]);
        assert_eq!(status, Some(0), "{out}");
        assert!(ledger.exists());
        assert!(!disk.is_frozen());
        drop(agent);
    });
}

#[test]
fn the_command_thaws_the_named_mount_points_whoever_froze_them() {
    in_namespace(|place| {
        own_run();
        let disks = ["one", "two"].map(|name| Disk::new(place, name, "xfs"));
        freeze(&disks[0]);
        freeze(&disks[1]);
        let [one, two] = [&*disks[0].mount_point, &*disks[1].mount_point];
        let (status, out, _) = thaw(&[one]);
        assert_eq!(
            (status, out),
            (Some(0), format!("{}: thawed\n", one.display()))
        );
        assert!(!disks[0].is_frozen());
        assert!(disks[1].is_frozen(), "it was not named");
        // A name that leads nowhere does not keep the others.
        let (status, out, err) = thaw(&[&place.join("none"), one, two]);
        assert_eq!(status, Some(1));
        let lines: Vec<&str> = out.lines().collect();
        assert!(
            lines[0].contains("none: NOT THAWED: ") && lines[0].contains("No such file"),
            "{out}"
        );
        assert!(lines[1].ends_with(": was not frozen"), "{out}");
        assert!(lines[2].ends_with(": thawed"), "{out}");
        assert!(err.contains("not everything could be thawed"), "{err}");
        assert!(!disks[1].is_frozen());
    });
}

#[test]
fn the_command_tells_that_the_ledger_cannot_be_read() {
    in_namespace(|_| {
        let ledger = own_run();
        fs::write(&ledger, "garbage").unwrap();
        let (status, out, err) = thaw(&[]);
        assert_eq!((status, out.as_str()), (Some(1), ""));
        assert!(err.contains("/run/hv-vssd/ledger"), "{err}");
        assert!(err.contains("this is no ledger of hv-vssd"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(ledger.with_extension("damaged").exists());
    });
}

#[test]
fn the_command_tells_a_program_what_it_did() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        freeze(&disk);
        let json = Path::new("--json");
        let point = disk.mount_point.to_str().unwrap();
        for (result, error) in [("thawed", false), ("not-frozen", false), ("failed", true)] {
            let none = place.join("none");
            let path = if error { &*none } else { Path::new(point) };
            let (status, out, _) = thaw(&[json, path]);
            assert_eq!(status, Some(i32::from(error)));
            let told: serde_json::Value = serde_json::from_str(&out).unwrap();
            let file_system = &told["file_systems"][0];
            assert_eq!(file_system["path"], path.to_str().unwrap());
            assert_eq!(file_system["name"], path.to_str().unwrap());
            assert_eq!(file_system["result"], result);
            assert_eq!(file_system["error"].is_string(), error);
            assert_eq!(told["hooks"], serde_json::json!([]));
        }
        assert!(!disk.is_frozen());
    });
}
