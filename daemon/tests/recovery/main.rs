//! Recovery: what an agent and a guardian that both died have left frozen on scratch disks, by the ledger and by hand.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod at_start;
mod command;
mod paths;
#[path = "../scratch/mod.rs"]
mod scratch;
mod thaw_all;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use hv_vssd::quiesce::error::with_causes;
use hv_vssd::quiesce::ledger::{Ledger, Mark, Place};
use hv_vssd::quiesce::recovery::{self, Outcome, Thaw};
use hvutil_sys::freeze;
use nix::mount::{MsFlags, mount};
use scratch::{Disk, in_namespace};

const NONE: Option<&str> = None;

fn freeze(disk: &Disk) {
    freeze_at(&disk.mount_point);
}

fn freeze_at(mount_point: &Path) {
    freeze::freeze(File::open(mount_point).unwrap()).unwrap();
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
    in_namespace(|place| {
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
    });
}

#[test]
fn the_record_of_another_stays_where_it_is() {
    in_namespace(|place| {
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
    in_namespace(|place| {
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
    });
}

#[test]
fn a_disk_in_a_container_alone_is_thawed_where_it_is() {
    in_namespace(|place| {
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
    });
}

#[test]
fn what_cannot_be_reached_is_told_and_keeps_its_record_but_not_the_others() {
    in_namespace(|place| {
        let (disk, lost) = (
            Disk::new(place, "disk", "ext4"),
            Disk::new(place, "lost", "ext4"),
        );
        let ledger = ledger_in(place);
        freeze(&disk);
        let targets = [
            disk.target(&[&disk.mount_point]),
            hv_vssd::quiesce::backend::Target {
                dev: hv_vssd::filesystems::DeviceNumber::new(4095, 1),
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
    });
}

#[test]
fn a_file_that_is_no_ledger_is_told_and_kept() {
    in_namespace(|place| {
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
