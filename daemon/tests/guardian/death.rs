//! What the guardian thaws when its agent dies, and in which order.

use std::fs::File;
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hv_vssd::quiesce::guardian::{Guard, Guardian};
use hv_vssd::quiesce::ledger::Mark;
use hv_vssd::quiesce::protocol::Call;
use hvutil_sys::freeze;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scratch::{Disk, in_namespace, until};
use super::{Checkpoint, Foreign, NEVER, armed, children, ends, lives, pid, stacked, start};

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

/// A process that this one has not started, or its entry without anybody who asks.
fn has_ended(pid: &Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    !stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A thread of this process waits in `FIFREEZE`.
fn is_freezing(_: &thread::Thread) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let mut calls =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("syscall")).ok());
    calls.any(|call| call.contains("0xc0045877"))
}

#[test]
fn what_was_frozen_is_thawed_when_the_agents_end_closes() {
    in_namespace(|place| {
        let disks = ["ext4", "xfs", "btrfs"].map(|fstype| Disk::new(place, fstype, fstype));
        let (checkpoint, mut guardian) = armed(&[&[&disks[0], &disks[1]], &[&disks[2]]], NEVER);
        (0..3).for_each(|index| checkpoint.freeze(index));
        guardian.renew(NEVER);
        checkpoint.agent_dies(guardian);
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
        let _administrator = Foreign::of(&disk);
        checkpoint.ledger.set(0, Mark::Frozen);
        guardian.disarm();
        let freezers = children(pid(&guardian));
        checkpoint.agent_dies(guardian);
        until("the process for it to end", || {
            freezers.iter().all(has_ended)
        });
        assert_eq!(checkpoint.mark(0), Mark::Frozen);
        assert!(disk.is_frozen());
    });
}

#[test]
fn a_freeze_whose_outcome_a_dead_process_could_not_note_is_thawed() {
    in_namespace(|place| {
        let disks = ["unseen", "failed", "never"].map(|name| Disk::new(place, name, "ext4"));
        let disks: Vec<&Disk> = disks.iter().collect();
        let (checkpoint, guardian) = armed(&[&disks], NEVER);
        checkpoint.freeze(0);
        checkpoint.freeze(1);
        for freezer in children(pid(&guardian)) {
            kill(freezer, Signal::SIGKILL).unwrap();
        }
        checkpoint.ledger.set(0, Mark::Freezing);
        checkpoint.ledger.set(1, Mark::Failed);
        checkpoint.ledger.set(2, Mark::Freezing);
        checkpoint.agent_dies(guardian);
        assert!((0..3).all(|index| checkpoint.mark(index) == Mark::Thawed));
        assert!(disks.iter().all(|disk| !disk.is_frozen()));
    });
}

#[test]
fn a_freeze_that_succeeds_after_the_agents_death_is_thawed_too() {
    in_namespace(|place| {
        let (outer, inner) = stacked(place);
        let frozen = Disk::new(place, "frozen", "ext4");
        let (checkpoint, guardian) = armed(&[&[&frozen], &[&inner]], NEVER);
        let pid = pid(&guardian);
        checkpoint.freeze(0);
        let theirs = Foreign::of(&outer);
        let stuck = checkpoint.begin_freeze(1);
        checkpoint.freezers.lock().unwrap().clear();
        drop(guardian);
        checkpoint.until_thawed(0);
        checkpoint.until_marked(1, Mark::GivenUp);
        // It stays as long as something is unknown.
        assert!(lives(pid));
        drop(theirs);
        checkpoint.until_thawed(1);
        ends(pid);
        assert!(!inner.is_frozen());
        let told = stuck.join().unwrap().unwrap_err().raw_os_error();
        assert_eq!(told, Some(libc::ECANCELED));
    });
}

#[test]
fn a_freeze_of_someone_else_that_the_dead_agents_waits_behind_is_left_to_them() {
    in_namespace(|place| {
        let (outer, inner) = stacked(place);
        let place = File::open(&inner.mount_point).unwrap();
        let (checkpoint, guardian) = armed(&[&[&inner]], NEVER);
        let pid = pid(&guardian);
        let slow = Foreign::of(&outer);
        // Theirs waits for the outer one, ours for theirs.
        let theirs = thread::spawn(move || freeze::freeze(&place).map(|()| place));
        until("their freeze to begin", || is_freezing(theirs.thread()));
        let ours = checkpoint.begin_freeze(0);
        checkpoint.freezers.lock().unwrap().clear();
        drop(guardian);
        checkpoint.until_marked(0, Mark::GivenUp);
        drop(slow);
        let theirs = theirs.join().unwrap().unwrap();
        assert!(ours.join().unwrap().is_err());
        ends(pid);
        assert_eq!(checkpoint.mark(0), Mark::Thawed);
        assert!(inner.is_frozen(), "theirs was thawed");
        freeze::thaw(&theirs).unwrap();
    });
}

#[test]
fn what_is_frozen_when_agent_and_guardian_are_killed_is_thawed_by_who_made_the_calls() {
    in_namespace(|place| {
        let disks = ["one", "two"].map(|name| Disk::new(place, name, "ext4"));
        let (checkpoint, guardian) = armed(&[&[&disks[0]], &[&disks[1]]], NEVER);
        checkpoint.freeze(0);
        checkpoint.freeze(1);
        kill(pid(&guardian), Signal::SIGKILL).unwrap();
        // The agent lives as yet, and may thaw as ever.
        checkpoint.call(1, Call::Thaw).unwrap();
        assert!(disks[0].is_frozen());
        checkpoint.freezers.lock().unwrap().clear();
        drop(guardian);
        checkpoint.until_thawed(0);
        assert!(disks.iter().all(|disk| !disk.is_frozen()));
    });
}

#[test]
fn the_signal_of_the_agents_death_is_not_believed_of_others() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let checkpoint = Checkpoint::new(&[&[&disk]]);
        let (mut guardian, thread) = started_by_a_thread();
        checkpoint.arm(&mut guardian, NEVER);
        checkpoint.freeze(0);
        let pid = pid(&guardian);
        let send = format!("kill -USR1 {pid}");
        assert!(
            Command::new("sh")
                .args(["-c", &send])
                .status()
                .unwrap()
                .success()
        );
        // Longer than it has doubts.
        let end = Instant::now() + Duration::from_millis(1300);
        while Instant::now() < end {
            assert!(lives(pid));
            assert_eq!(checkpoint.mark(0), Mark::Frozen);
            thread::sleep(Duration::from_millis(20));
        }
        thread.end();
        checkpoint.until_thawed(0);
        ends(pid);
    });
}

#[test]
fn the_guardian_is_in_no_process_group_of_the_agents() {
    let guardian = start(false);
    let theirs = nix::unistd::getpgid(Some(pid(&guardian))).unwrap();
    assert_eq!(theirs, pid(&guardian));
    assert_ne!(theirs, nix::unistd::getpgrp());
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
        checkpoint.freezers.lock().unwrap().clear();
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
        checkpoint.freezers.lock().unwrap().clear();
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
        checkpoint.agent_dies(guardian);
        assert!(ours.iter().all(|disk| !disk.is_frozen()));
        assert!(theirs.is_frozen());
        assert_eq!(checkpoint.mark(last), Mark::Thawed);
        // Nor is it frozen later.
        assert_eq!(checkpoint.mark(298), Mark::Thawed);
    });
}
