//! What the guardian thaws at its limit while the agent lives, and what it leaves alone.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hv_vssd::quiesce::Kernel;
use hv_vssd::quiesce::guardian::Guard;
use hv_vssd::quiesce::handle::Handle;
use hv_vssd::quiesce::ledger::{Ledger, Mark, Place};
use hv_vssd::quiesce::slot::{Operation, Slot};
use hvutil_sys::freeze;

use super::scratch::{Disk, in_namespace, until};
use super::{Checkpoint, NEVER, SOON, agent_dies, armed, children, ends, pid, start};

#[test]
fn what_was_frozen_is_thawed_at_the_limit_and_the_guardian_stays() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "xfs");
        let (checkpoint, mut guardian) = armed(&[&[&disk]], NEVER);
        checkpoint.freeze(0);
        assert_eq!(checkpoint.mark(0), Mark::Frozen);
        guardian.hold(SOON);
        checkpoint.until_thawed(0);
        assert!(!disk.is_frozen());
        // It serves the next checkpoint, whose limit is that of the freeze now.
        guardian.disarm();
        guardian.check().unwrap();
        let checkpoint = Checkpoint::new(&[&[&disk]]);
        checkpoint.arm(&mut guardian, Duration::from_secs(1));
        checkpoint.freeze(0);
        checkpoint.until_thawed(0);
        assert!(!disk.is_frozen());
        agent_dies(guardian);
    });
}

#[test]
fn what_is_not_ours_or_was_only_planned_stays_as_it_is() {
    in_namespace(|place| {
        let names = ["ours", "theirs", "planned", "thawed"];
        let disks = names.map(|name| Disk::new(place, name, "ext4"));
        let disks: Vec<&Disk> = disks.iter().collect();
        let (checkpoint, mut guardian) = armed(&[&disks], NEVER);
        checkpoint.freeze(0);
        // By others, all three of them.
        for (index, mark) in [(1, Mark::NotOurs), (2, Mark::Planned), (3, Mark::Thawed)] {
            freeze::freeze(File::open(&disks[index].mount_point).unwrap()).unwrap();
            checkpoint.ledger.set(index, mark);
        }
        // At the limit, and at the agent's death.
        guardian.hold(SOON);
        checkpoint.until_thawed(0);
        agent_dies(guardian);
        assert!(!disks[0].is_frozen());
        for (index, mark) in [(1, Mark::NotOurs), (2, Mark::Planned), (3, Mark::Thawed)] {
            assert_eq!(checkpoint.mark(index), mark);
            assert!(disks[index].is_frozen(), "{} was thawed", names[index]);
        }
    });
}

#[test]
fn an_agent_that_wakes_after_the_limit_leaves_the_freeze_of_someone_else_alone() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let kernel = Kernel::of_own_namespace();
        let target = disk.target(&[&disk.mount_point]);
        let ledger = Arc::new(Ledger::create(&Place::Memory, [target.clone()].iter()).unwrap());
        let slot: Slot<Kernel> = Slot::new(target.clone(), Handle::open(&target).unwrap());
        slot.record_in(Arc::clone(&ledger), 0);
        let mut guardian = start(false);
        let stages = [vec![(slot.handle().as_fd(), 0)]];
        guardian.arm(&ledger, &stages, NEVER).unwrap();
        slot.begin(Operation::Freeze);
        slot.run(&kernel, Operation::Freeze);
        assert_eq!(ledger.get(0), Some(Mark::Frozen));
        // The agent is stopped here, until its limit has passed.
        guardian.hold(SOON);
        until("the guardian to thaw", || {
            ledger.get(0) == Some(Mark::Thawed)
        });
        let administrator = File::open(&disk.mount_point).unwrap();
        freeze::freeze(&administrator).unwrap();
        slot.begin(Operation::Thaw);
        slot.run(&kernel, Operation::Thaw);
        let told = slot.take_failure().and_then(|error| error.raw_os_error());
        assert_eq!(told, Some(libc::EINVAL), "the hold was not kept");
        assert!(!slot.is_frozen());
        assert!(disk.is_frozen(), "the administrator's freeze was thawed");
        freeze::thaw(&administrator).unwrap();
    });
}

#[test]
fn a_freeze_that_an_agent_stopped_in_it_could_not_note_is_thawed_at_the_limit() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "xfs");
        let (checkpoint, mut guardian) = armed(&[&[&disk]], NEVER);
        checkpoint.freeze(0);
        checkpoint.ledger.set(0, Mark::Freezing);
        guardian.hold(SOON);
        checkpoint.until_thawed(0);
        assert!(!disk.is_frozen());
    });
}

#[test]
fn after_its_limit_nothing_goes_on_thawing_what_is_not_ours_any_more() {
    in_namespace(|place| {
        let disks = ["frozen", "slow"].map(|name| Disk::new(place, name, "ext4"));
        let (checkpoint, mut guardian) = armed(&[&[&disks[0], &disks[1]]], NEVER);
        let pid = pid(&guardian);
        checkpoint.freeze(0);
        // FIFREEZE has been called, and does not return before the limit.
        checkpoint.ledger.set(1, Mark::Freezing);
        guardian.hold(SOON);
        checkpoint.until_thawed(0);
        // It fails at last; the agent lives, and lets the guardian go.
        checkpoint.ledger.set(1, Mark::NotOurs);
        guardian.disarm();
        until("the last attempt to thaw to end", || {
            children(pid).into_iter().all(|child| {
                let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
                stat.is_ok_and(|stat| stat.contains(") Z "))
            })
        });
        freeze::freeze(File::open(&disks[1].mount_point).unwrap()).unwrap();
        assert_eq!(checkpoint.mark(1), Mark::NotOurs);
        assert!(disks[1].is_frozen());
        agent_dies(guardian);
        assert!(disks[1].is_frozen());
    });
}

#[test]
fn a_freeze_that_does_not_return_keeps_one_process_busy() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (checkpoint, guardian) = armed(&[&[&disk]], SOON);
        let pid = pid(&guardian);
        checkpoint.ledger.set(0, Mark::Freezing);
        until("the attempt", || children(pid).len() == 1);
        // The guardian looks again after 10 s, twice in this time.
        let end = Instant::now() + Duration::from_secs(25);
        while Instant::now() < end {
            assert_eq!(children(pid).len(), 1);
            thread::sleep(SOON);
        }
        checkpoint.ledger.set(0, Mark::NotOurs);
        agent_dies(guardian);
    });
}

#[test]
fn a_second_freeze_that_the_agent_dies_in_after_the_limit_is_thawed_too() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (checkpoint, guardian) = armed(&[&[&disk]], SOON);
        let pid = pid(&guardian);
        checkpoint.ledger.set(0, Mark::Freezing);
        until("the attempt", || children(pid).len() == 1);
        // The agent wakes: someone else had frozen it. The attempt ends, and the agent tries once more.
        checkpoint.ledger.set(0, Mark::NotOurs);
        until("the attempt to end", || children(pid).is_empty());
        checkpoint.freeze(0);
        checkpoint.ledger.set(0, Mark::Freezing);
        drop(guardian);
        checkpoint.until_thawed(0);
        ends(pid);
        assert!(!disk.is_frozen());
    });
}
