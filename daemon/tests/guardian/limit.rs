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
use hv_vssd::quiesce::protocol::Call;
use hv_vssd::quiesce::slot::{Operation, Slot};
use hvutil_sys::freeze;
use nix::sys::signal::{Signal, kill};

use super::scratch::{Disk, in_namespace, until};
use super::{Checkpoint, Foreign, NEVER, SOON, armed, children, pid, stacked, start};

#[test]
fn what_was_frozen_is_thawed_at_the_limit_and_the_guardian_stays() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "xfs");
        let (checkpoint, mut guardian) = armed(&[&[&disk]], NEVER);
        checkpoint.freeze(0);
        assert_eq!(checkpoint.mark(0), Mark::Frozen);
        guardian.renew(SOON);
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
        checkpoint.agent_dies(guardian);
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
        guardian.renew(SOON);
        checkpoint.until_thawed(0);
        checkpoint.agent_dies(guardian);
        assert!(!disks[0].is_frozen());
        for (index, mark) in [(1, Mark::NotOurs), (2, Mark::Planned), (3, Mark::Thawed)] {
            // Nor is it frozen later.
            assert_eq!(checkpoint.mark(index), Mark::Thawed, "was {mark:?}");
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
        let freezers = guardian.arm(&ledger, &stages, NEVER).unwrap();
        freezers
            .into_iter()
            .for_each(|freezer| slot.use_freezer(freezer));
        slot.begin(Operation::Freeze);
        slot.run(&kernel, Operation::Freeze);
        assert_eq!(ledger.get(0), Some(Mark::Frozen));
        // The agent is stopped here, until its limit has passed.
        guardian.renew(SOON);
        until("the guardian to thaw", || {
            ledger.get(0) == Some(Mark::Thawed)
        });
        let administrator = File::open(&disk.mount_point).unwrap();
        freeze::freeze(&administrator).unwrap();
        slot.begin(Operation::Thaw);
        slot.run(&kernel, Operation::Thaw);
        let told = slot.take_failure().and_then(|error| error.raw_os_error());
        assert_eq!(told, Some(libc::EALREADY), "the hold was not kept");
        assert!(!slot.is_frozen());
        assert!(disk.is_frozen(), "the administrator's freeze was thawed");
        freeze::thaw(&administrator).unwrap();
    });
}

#[test]
fn a_freeze_that_returns_after_the_limit_is_thawed_at_once_and_no_other_after_it() {
    in_namespace(|place| {
        let (outer, inner) = stacked(place);
        let (checkpoint, mut guardian) = armed(&[&[&inner]], NEVER);
        let theirs = Foreign::of(&outer);
        let stuck = checkpoint.begin_freeze(0);
        guardian.renew(SOON);
        checkpoint.until_marked(0, Mark::GivenUp);
        drop(theirs);
        checkpoint.until_thawed(0);
        let told = stuck.join().unwrap().unwrap_err().raw_os_error();
        assert_eq!(told, Some(libc::ECANCELED));
        assert!(!inner.is_frozen());
        // What the agent begins late comes to nothing, and what someone else freezes stays.
        assert_eq!(
            checkpoint.call(0, Call::Freeze).unwrap_err().raw_os_error(),
            Some(libc::ECANCELED)
        );
        let _theirs = Foreign::of(&inner);
        assert_eq!(
            checkpoint.call(0, Call::Thaw).unwrap_err().raw_os_error(),
            Some(libc::EALREADY)
        );
        checkpoint.agent_dies(guardian);
        assert!(inner.is_frozen());
    });
}

#[test]
fn a_process_that_someone_stopped_in_a_freeze_is_woken_at_the_limit() {
    in_namespace(|place| {
        let (outer, inner) = stacked(place);
        let (checkpoint, mut guardian) = armed(&[&[&inner]], NEVER);
        let theirs = Foreign::of(&outer);
        let stuck = checkpoint.begin_freeze(0);
        kill(children(pid(&guardian))[0], Signal::SIGSTOP).unwrap();
        drop(theirs);
        until("the freeze", || inner.is_frozen());
        assert_eq!(checkpoint.mark(0), Mark::Freezing);
        guardian.renew(SOON);
        checkpoint.until_thawed(0);
        assert!(!inner.is_frozen());
        // Noted, or given up: whichever came first.
        let _ = stuck.join().unwrap();
        checkpoint.agent_dies(guardian);
    });
}

#[test]
fn a_freeze_that_does_not_return_keeps_one_process_busy() {
    in_namespace(|place| {
        let (outer, inner) = stacked(place);
        let (checkpoint, mut guardian) = armed(&[&[&inner]], NEVER);
        let pid = pid(&guardian);
        let theirs = Foreign::of(&outer);
        let stuck = checkpoint.begin_freeze(0);
        guardian.renew(SOON);
        checkpoint.until_marked(0, Mark::GivenUp);
        until("the guardian's own child to end", || {
            children(pid).len() == 1
        });
        // The guardian looks again after 10 s, twice in this time.
        let end = Instant::now() + Duration::from_secs(25);
        while Instant::now() < end {
            // The child of a look lives for a moment.
            until("the guardian's own child to end again", || {
                children(pid).len() == 1
            });
            thread::sleep(SOON);
        }
        drop(theirs);
        assert!(stuck.join().unwrap().is_err());
        checkpoint.agent_dies(guardian);
    });
}
