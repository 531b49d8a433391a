//! What the guardian thaws when its agent dies, and in which order.

use std::fs::File;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hv_vssd::quiesce::guardian::{Guard, Guardian};
use hv_vssd::quiesce::ledger::Mark;
use hvutil_sys::freeze;

use super::scratch::{Disk, in_namespace, until};
use super::{Checkpoint, NEVER, agent_dies, armed, ends, lives, pid, start};

/// A thread that lives until it is told to end.
struct Thread {
    end: mpsc::Sender<()>,
    handle: JoinHandle<()>,
}

impl Thread {
    fn end(self) {
        drop(self.end);
        self.handle.join().unwrap();
    }
}

/// A guardian whose parent is another thread than the one that holds its socket.
fn started_by_a_thread() -> (Guardian, Thread) {
    let (offer, guardian) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let handle = thread::spawn(move || {
        offer.send(start(false)).unwrap();
        let _ = ended.recv();
    });
    (guardian.recv().unwrap(), Thread { end, handle })
}

#[test]
fn what_was_frozen_is_thawed_when_the_agents_end_closes() {
    in_namespace(|place| {
        let disks = ["ext4", "xfs", "btrfs"].map(|fstype| Disk::new(place, fstype, fstype));
        let (checkpoint, mut guardian) = armed(&[&[&disks[0], &disks[1]], &[&disks[2]]], NEVER);
        (0..3).for_each(|index| checkpoint.freeze(index));
        guardian.hold(NEVER);
        agent_dies(guardian);
        assert!((0..3).all(|index| checkpoint.mark(index) == Mark::Thawed));
        assert!(disks.iter().all(|disk| !disk.is_frozen()));
    });
}

#[test]
fn what_was_frozen_is_thawed_when_the_thread_that_started_it_ends() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let checkpoint = Checkpoint::new(&[&[&disk]]);
        // The socket stays open, as it does while a thread of the agent is stuck in the kernel.
        let (mut guardian, thread) = started_by_a_thread();
        checkpoint.arm(&mut guardian, NEVER);
        checkpoint.freeze(0);
        assert!(lives(pid(&guardian)));
        assert_eq!(checkpoint.mark(0), Mark::Frozen);
        thread.end();
        checkpoint.until_thawed(0);
        assert!(!disk.is_frozen());
        ends(pid(&guardian));
    });
}

#[test]
fn a_guardian_that_is_disarmed_in_time_thaws_nothing() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (checkpoint, mut guardian) = armed(&[&[&disk]], NEVER);
        // Someone else's, whom the agent's record would betray if anyone still went by it.
        let administrator = File::open(&disk.mount_point).unwrap();
        freeze::freeze(&administrator).unwrap();
        checkpoint.ledger.set(0, Mark::Frozen);
        guardian.disarm();
        agent_dies(guardian);
        assert_eq!(checkpoint.mark(0), Mark::Frozen);
        freeze::thaw(&administrator).unwrap();
    });
}

#[test]
fn a_freeze_whose_outcome_the_dead_agent_could_not_note_is_thawed() {
    in_namespace(|place| {
        let disks = ["unseen", "failed", "never"].map(|name| Disk::new(place, name, "ext4"));
        let disks: Vec<&Disk> = disks.iter().collect();
        let (checkpoint, guardian) = armed(&[&disks], NEVER);
        checkpoint.freeze(0);
        checkpoint.ledger.set(0, Mark::Freezing);
        checkpoint.freeze(1);
        checkpoint.ledger.set(1, Mark::Failed);
        checkpoint.ledger.set(2, Mark::Freezing);
        agent_dies(guardian);
        assert!((0..3).all(|index| checkpoint.mark(index) == Mark::Thawed));
        assert!(disks.iter().all(|disk| !disk.is_frozen()));
    });
}

#[test]
fn a_freeze_that_succeeds_after_the_agents_death_is_thawed_too() {
    in_namespace(|place| {
        let disks = ["frozen", "stuck"].map(|name| Disk::new(place, name, "ext4"));
        let checkpoint = Checkpoint::new(&[&[&disks[0]], &[&disks[1]]]);
        let (mut guardian, agent) = started_by_a_thread();
        let pid = pid(&guardian);
        checkpoint.arm(&mut guardian, NEVER);
        checkpoint.freeze(0);
        checkpoint.ledger.set(1, Mark::Freezing);
        agent.end();
        checkpoint.until_thawed(0);
        // This thread plays the one that was stuck in FIFREEZE when the others died: it keeps the socket open.
        assert!(lives(pid));
        assert_eq!(checkpoint.mark(1), Mark::Freezing);
        freeze::freeze(&checkpoint.stages[1][0].0).unwrap();
        checkpoint.until_thawed(1);
        assert!(!disks[1].is_frozen());
        agent_dies(guardian);
    });
}

#[test]
fn stages_are_thawed_in_reverse_and_a_stuck_one_does_not_keep_the_others() {
    in_namespace(|place| {
        let outer = Disk::new(place, "outer", "xfs");
        let inner = Disk::with_image(&outer.mount_point, place, "inner", "ext4");
        let other = Disk::new(place, "other", "ext4");
        // The wrong way round on purpose: the thaw of the inner one, first in turn, waits until the outer one is thawed.
        let (checkpoint, guardian) = armed(&[&[&outer], &[&other], &[&inner]], NEVER);
        let pid = pid(&guardian);
        checkpoint.freeze(2);
        checkpoint.freeze(1);
        checkpoint.freeze(0);
        let died = Instant::now();
        drop(guardian);
        checkpoint.until_thawed(1);
        let waited = died.elapsed();
        // The stage before waits for the stuck one, but not for ever.
        assert!(waited >= Duration::from_secs(1), "{waited:?}");
        ends(pid);
        assert!((0..3).all(|index| checkpoint.mark(index) == Mark::Thawed));
        assert!(!inner.is_frozen() && !outer.is_frozen() && !other.is_frozen());
    });
}

#[test]
fn an_image_on_a_disk_is_thawed_after_the_disk_at_once() {
    in_namespace(|place| {
        let outer = Disk::new(place, "outer", "ext4");
        let inner = Disk::with_image(&outer.mount_point, place, "inner", "ext4");
        let (checkpoint, guardian) = armed(&[&[&inner], &[&outer]], NEVER);
        let pid = pid(&guardian);
        checkpoint.freeze(0);
        checkpoint.freeze(1);
        drop(guardian);
        until("all to be thawed", || {
            let inner_is_thawed = checkpoint.mark(0) == Mark::Thawed;
            let outer_is_thawed = checkpoint.mark(1) == Mark::Thawed;
            assert!(outer_is_thawed || !inner_is_thawed, "the inner one first");
            inner_is_thawed
        });
        ends(pid);
        assert!(!inner.is_frozen() && !outer.is_frozen());
    });
}

#[test]
fn more_handles_than_a_message_takes_are_all_guarded() {
    in_namespace(|place| {
        let ours = ["first", "middle", "last"].map(|name| Disk::new(place, name, "ext4"));
        let theirs = Disk::new(place, "theirs", "ext4");
        // 300 lines, of which three are ours: in the first message, at the seam, and in the last.
        let (middle, last) = (253, 299);
        let disks: Vec<&Disk> = (0..300)
            .map(|index| match index {
                0 => &ours[0],
                _ if index == middle => &ours[1],
                _ if index == last => &ours[2],
                _ => &theirs,
            })
            .collect();
        let (checkpoint, guardian) = armed(&[&disks[..100], &disks[100..]], NEVER);
        freeze::freeze(File::open(&theirs.mount_point).unwrap()).unwrap();
        for index in [0, middle, last] {
            checkpoint.freeze(index);
        }
        checkpoint.ledger.set(1, Mark::NotOurs);
        agent_dies(guardian);
        assert!(ours.iter().all(|disk| !disk.is_frozen()));
        assert!(theirs.is_frozen());
        assert_eq!(checkpoint.mark(last), Mark::Thawed);
        assert_eq!(checkpoint.mark(298), Mark::Planned);
    });
}
