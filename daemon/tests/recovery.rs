//! Recovery: what an agent and a guardian that both died have left frozen on scratch disks, by the ledger and by hand.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scratch;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hv_vssd::quiesce::error::with_causes;
use hv_vssd::quiesce::ledger::{Ledger, Mark, Place};
use hv_vssd::quiesce::recovery::{self, Outcome, Thaw};
use hvutil_sys::freeze;
use nix::mount::{MsFlags, mount};
use scratch::{Disk, RUN, in_namespace, own_run};

const NONE: Option<&str> = None;

fn freeze(disk: &Disk) {
    freeze::freeze(File::open(&disk.mount_point).unwrap()).unwrap();
}

/// A ledger in memory, as that of the service is: it must not lie on what may be frozen.
fn ledger_in(place: &Path) -> PathBuf {
    let directory = place.join("run");
    fs::create_dir(&directory).unwrap();
    let tmpfs = Some("tmpfs");
    mount(tmpfs, &directory, tmpfs, MsFlags::empty(), NONE).unwrap();
    directory.join("ledger")
}

/// As a dead agent leaves it.
fn record(path: &Path, disks: &[(&Disk, Mark)]) {
    let targets: Vec<_> = disks
        .iter()
        .map(|(disk, _)| disk.target(&[&disk.mount_point]))
        .collect();
    let ledger = Ledger::create(&Place::File(path.to_owned()), targets.iter()).unwrap();
    for (index, (_, mark)) in disks.iter().enumerate() {
        ledger.set(index, *mark);
    }
}

fn told(outcomes: &[Outcome]) -> Vec<(String, Result<Thaw, &str>)> {
    outcomes
        .iter()
        .map(|outcome| {
            let name = Path::new(&outcome.name).file_name().unwrap();
            let result = outcome.result.as_ref().map(|thaw| *thaw);
            (
                name.to_str().unwrap().to_owned(),
                result.map_err(String::as_str),
            )
        })
        .collect()
}

#[test]
fn what_the_ledger_has_as_frozen_is_thawed_in_reverse_and_nothing_else_is() {
    in_namespace(
        "what_the_ledger_has_as_frozen_is_thawed_in_reverse_and_nothing_else_is",
        |place| {
            let marks = [
                ("frozen", Mark::Frozen),
                ("unseen", Mark::Freezing),
                ("failed", Mark::Failed),
                ("unfrozen", Mark::Frozen),
                ("planned", Mark::Planned),
                ("theirs", Mark::NotOurs),
                ("thawed", Mark::Thawed),
            ];
            let disks = marks.map(|(name, mark)| (Disk::new(place, name, "ext4"), mark));
            let ledger = ledger_in(place);
            let disks: Vec<_> = disks.iter().map(|(disk, mark)| (disk, *mark)).collect();
            for (number, (disk, _)) in disks.iter().enumerate() {
                if number != 3 {
                    freeze(disk);
                }
            }
            record(&ledger, &disks);
            let outcomes = recovery::by_ledger(&ledger, true).unwrap();
            assert_eq!(
                told(&outcomes),
                [
                    ("unfrozen-mounted".to_owned(), Ok(Thaw::NotFrozen)),
                    ("failed-mounted".to_owned(), Ok(Thaw::Thawed)),
                    ("unseen-mounted".to_owned(), Ok(Thaw::Thawed)),
                    ("frozen-mounted".to_owned(), Ok(Thaw::Thawed)),
                ]
            );
            let frozen: Vec<bool> = disks.iter().map(|(disk, _)| disk.is_frozen()).collect();
            assert_eq!(frozen, [false, false, false, false, true, true, true]);
            assert!(!ledger.exists());
            // Nothing is left to do.
            assert!(recovery::by_ledger(&ledger, true).unwrap().is_empty());
        },
    );
}

#[test]
fn the_record_of_another_stays_where_it_is() {
    in_namespace("the_record_of_another_stays_where_it_is", |place| {
        let disk = Disk::new(place, "disk", "xfs");
        let ledger = ledger_in(place);
        freeze(&disk);
        record(&ledger, &[(&disk, Mark::Frozen)]);
        let outcomes = recovery::by_ledger(&ledger, false).unwrap();
        assert_eq!(outcomes[0].result, Ok(Thaw::Thawed));
        assert!(ledger.exists());
        assert!(!disk.is_frozen());
    });
}

#[test]
fn a_disk_whose_mounts_changed_while_it_was_frozen_is_found() {
    in_namespace(
        "a_disk_whose_mounts_changed_while_it_was_frozen_is_found",
        |place| {
            let ledger = ledger_in(place);
            for fstype in ["ext4", "xfs", "btrfs"] {
                let names = ["unmounted", "moved", "covered", "copied"];
                let disks = names.map(|name| Disk::new(place, &format!("{name}-{fstype}"), fstype));
                let frozen: Vec<_> = disks.iter().map(|disk| (disk, Mark::Frozen)).collect();
                disks.iter().for_each(freeze);
                record(&ledger, &frozen);
                let elsewhere = |name: &str| {
                    let directory = place.join(format!("{name}-{fstype}-elsewhere"));
                    fs::create_dir(&directory).unwrap();
                    directory
                };
                disks[0].umount().unwrap();
                let (to, empty) = (elsewhere("moved"), MsFlags::empty());
                mount(
                    Some(&disks[1].mount_point),
                    &to,
                    NONE,
                    MsFlags::MS_MOVE,
                    NONE,
                )
                .unwrap();
                let tmpfs = Some("tmpfs");
                mount(tmpfs, &disks[2].mount_point, tmpfs, empty, NONE).unwrap();
                scratch::bind(&disks[3].mount_point, &elsewhere("copied"));
                disks[3].umount().unwrap();
                let outcomes = recovery::by_ledger(&ledger, true).unwrap();
                for Outcome { name, result } in &outcomes {
                    assert_eq!(*result, Ok(Thaw::Thawed), "{name}");
                }
                assert_eq!(outcomes.len(), 4);
                assert!(disks.iter().all(|disk| !disk.is_frozen()), "{fstype}");
                assert!(!ledger.exists());
                nix::mount::umount2(&to, nix::mount::MntFlags::MNT_DETACH).unwrap();
            }
        },
    );
}

#[test]
fn a_disk_in_a_container_alone_is_thawed_where_it_is() {
    in_namespace(
        "a_disk_in_a_container_alone_is_thawed_where_it_is",
        |place| {
            let disk = Disk::new(place, "disk", "ext4");
            let ledger = ledger_in(place);
            let mut container = Command::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c"])
                .arg("echo > $0/ready; read end")
                .arg(place)
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            scratch::until("the container", || place.join("ready").exists());
            freeze(&disk);
            record(&ledger, &[(&disk, Mark::Frozen)]);
            disk.umount().unwrap();
            let outcomes = recovery::by_ledger(&ledger, true).unwrap();
            assert_eq!(outcomes[0].result, Ok(Thaw::Thawed));
            assert!(!disk.is_frozen());
            drop(container.stdin.take());
            container.wait().unwrap();
        },
    );
}

#[test]
fn what_cannot_be_reached_is_told_and_keeps_its_record_but_not_the_others() {
    in_namespace(
        "what_cannot_be_reached_is_told_and_keeps_its_record_but_not_the_others",
        |place| {
            let (disk, lost) = (
                Disk::new(place, "disk", "ext4"),
                Disk::new(place, "lost", "ext4"),
            );
            let ledger = ledger_in(place);
            freeze(&disk);
            let targets = [
                disk.target(&[&disk.mount_point]),
                hv_vssd::quiesce::backend::Target {
                    source: "/dev/no-such-disk".into(),
                    ..lost.target(&[&lost.mount_point])
                },
            ];
            lost.umount().unwrap();
            let record = Ledger::create(&Place::File(ledger.clone()), targets.iter()).unwrap();
            record.set(0, Mark::Frozen);
            record.set(1, Mark::Frozen);
            let outcomes = recovery::by_ledger(&ledger, true).unwrap();
            assert!(outcomes[0].name.ends_with("lost-mounted"));
            assert!(outcomes[0].result.is_err());
            assert_eq!(outcomes[1].result, Ok(Thaw::Thawed));
            assert!(!disk.is_frozen());
            assert!(ledger.exists(), "it is tried again at the next start");
        },
    );
}

#[test]
fn a_file_that_is_no_ledger_is_told_and_kept() {
    in_namespace("a_file_that_is_no_ledger_is_told_and_kept", |place| {
        let path = place.join("ledger");
        for garbage in [&b""[..], b"F 8:1\n", b"hv-vssd ledger 1\nF\n", b"\xff\0"] {
            fs::write(&path, garbage).unwrap();
            let error = recovery::by_ledger(&path, true).unwrap_err();
            let text = with_causes(&error);
            assert!(text.contains(path.to_str().unwrap()), "{text}");
            assert!(text.contains("thaw --all"), "{text}");
            // Kept for whoever wants to know; but it does not stand in the way of the next checkpoint.
            assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), garbage);
            assert!(!path.exists());
        }
        assert!(
            recovery::by_ledger(&place.join("none"), true)
                .unwrap()
                .is_empty()
        );
    });
}

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
    in_namespace("the_command_thaws_what_is_on_record_and_says_so", |place| {
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
    in_namespace("the_command_leaves_the_record_of_a_living_agent", |place| {
        let ledger = own_run();
        let agent = hv_vssd::agent::single::Single::acquire(&Path::new(RUN).join("lock")).unwrap();
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
    in_namespace(
        "the_command_thaws_the_named_mount_points_whoever_froze_them",
        |place| {
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
            // A name that is no mount point does not keep the others.
            let (status, out, err) = thaw(&[place, one, two]);
            assert_eq!(status, Some(1));
            let lines: Vec<&str> = out.lines().collect();
            assert!(
                lines[0].contains("NOT THAWED: nothing is mounted there"),
                "{out}"
            );
            assert!(lines[1].ends_with(": was not frozen"), "{out}");
            assert!(lines[2].ends_with(": thawed"), "{out}");
            assert!(err.contains("not everything could be thawed"), "{err}");
            assert!(!disks[1].is_frozen());
        },
    );
}

#[test]
fn the_command_tells_that_the_ledger_cannot_be_read() {
    in_namespace("the_command_tells_that_the_ledger_cannot_be_read", |_| {
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

/// All that `thaw --all` could find here; the script ends before it when it finds anything else.
const SCRIPT: &str = r#"
/busybox mount -t proc proc /proc || exit 90
/busybox cat /proc/[0-9]*/mountinfo >/tables || exit 91
/busybox grep -qF " $DISK " /tables || exit 92
others=$(/busybox grep -vE ' - (tmpfs|proc|sysfs|devtmpfs) ' /tables | /busybox grep -vcF " $DISK ")
[ "$others" = 0 ] || exit 93
/hv-vssd thaw --all
"#;

/// Copies a program, with the libraries it loads, to where `root` will be the root directory.
fn install(root: &Path, program: &Path, name: &str) {
    fs::copy(program, root.join(name)).unwrap();
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
}

#[test]
fn the_command_thaws_all_that_it_can_see() {
    in_namespace("the_command_thaws_all_that_it_can_see", |place| {
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "this test needs busybox-static");
        // A machine of its own: a root directory in memory, one disk, and no process but its own.
        let root = place.join("root");
        fs::create_dir(&root).unwrap();
        let empty = MsFlags::empty();
        let make = |fstype: &str, to: &Path| {
            fs::create_dir_all(to).unwrap();
            mount(Some(fstype), to, Some(fstype), empty, NONE).unwrap();
        };
        make("tmpfs", &root);
        make("sysfs", &root.join("sys"));
        make("devtmpfs", &root.join("dev"));
        for name in ["proc", "old", "disk"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        install(&root, Path::new(env!("CARGO_BIN_EXE_hv-vssd")), "hv-vssd");
        install(&root, busybox, "busybox");
        let disk = Disk::new(place, "disk", "ext4");
        scratch::mount_on(disk.device(), &root.join("disk"), "ext4");
        disk.umount().unwrap();
        freeze::freeze(File::open(root.join("disk")).unwrap()).unwrap();
        let dev = disk.dev.to_string();

        nix::unistd::pivot_root(&root, &root.join("old")).unwrap();
        nix::unistd::chdir("/").unwrap();
        nix::mount::umount2("/old", nix::mount::MntFlags::MNT_DETACH).unwrap();
        // From here on this process has nothing else mounted; its children are the first of their own process numbers.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
        let run = || {
            Command::new("/busybox")
                .args(["sh", "-c", SCRIPT])
                .env("DISK", &dev)
                .output()
                .unwrap()
        };
        let output = run();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        assert!(
            out.starts_with("/disk") && out.ends_with(": thawed\n"),
            "{out}"
        );
        assert_eq!(out.lines().count(), 1, "{out}");
        assert!(!disk.is_frozen());
    });
}

#[test]
fn the_command_tells_a_program_what_it_did() {
    in_namespace("the_command_tells_a_program_what_it_did", |place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        freeze(&disk);
        let json = Path::new("--json");
        let point = disk.mount_point.to_str().unwrap();
        for (result, error) in [("thawed", false), ("not-frozen", false), ("failed", true)] {
            let path = if error { place } else { Path::new(point) };
            let (status, out, _) = thaw(&[json, path]);
            assert_eq!(status, Some(i32::from(error)));
            let told: serde_json::Value = serde_json::from_str(&out).unwrap();
            let file_system = &told["file_systems"][0];
            assert_eq!(file_system["name"], path.to_str().unwrap());
            assert_eq!(file_system["result"], result);
            assert_eq!(file_system["error"].is_string(), error);
            assert_eq!(told["hooks"], serde_json::json!([]));
        }
        assert!(!disk.is_frozen());
    });
}
