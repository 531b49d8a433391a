//! The guardian as a real process on scratch disks: what it thaws, when, in which order, and what it leaves alone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scratch;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hv_vssd::quiesce::backend::Target;
use hv_vssd::quiesce::guardian::{Guard, Guardian, GuardianError};
use hv_vssd::quiesce::handle::Handle;
use hv_vssd::quiesce::ledger::{Ledger, Mark, Place};
use hv_vssd::quiesce::slot::{Operation, Slot};
use hv_vssd::quiesce::{Engine, FreezeError, Kernel, Limits};
use hv_vssd::telemetry::Gate;
use hvutil_sys::{freeze, mount};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use scratch::{Disk, PATIENCE, ScratchKernel, in_namespace, until};

/// Far more than any test takes.
const NEVER: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(100);

fn start(replace: bool) -> Guardian {
    Guardian::start_program(Path::new(env!("CARGO_BIN_EXE_hv-vssd")), replace).unwrap()
}

fn pid(guardian: &Guardian) -> Pid {
    Pid::from_raw(guardian.pid().unwrap().try_into().unwrap())
}

/// The end of a process that this one has started, and nobody has waited for.
fn ends(pid: Pid) {
    until("the guardian to end", || {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => false,
            // It was waited for when it was dropped.
            Err(Errno::ECHILD) => true,
            Ok(WaitStatus::Exited(_, 0)) => true,
            other => panic!("{other:?}"),
        }
    });
}

/// Whether a signal has reached it and it goes on. Only for a process that handles its signals in order.
fn lives(pid: Pid) -> bool {
    matches!(
        waitpid(pid, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive)
    )
}

/// Those of all threads of a process, also the dead that nobody has waited for.
fn children(pid: Pid) -> Vec<Pid> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let list = std::fs::read_to_string(task.unwrap().path().join("children"));
        // A thread that has just ended has none.
        for pid in list.unwrap_or_default().split_whitespace() {
            children.push(Pid::from_raw(pid.parse().unwrap()));
        }
    }
    children
}

/// What an agent has: the ledger, and a handle of its own for each line of it.
struct Checkpoint {
    ledger: Ledger,
    stages: Vec<Vec<(OwnedFd, usize)>>,
}

impl Checkpoint {
    fn new(stages: &[&[&Disk]]) -> Self {
        let targets: Vec<Target> = stages
            .iter()
            .copied()
            .flatten()
            .map(|disk| disk.target(&[&disk.mount_point]))
            .collect();
        let ledger = Ledger::create(&Place::Memory, targets.iter()).unwrap();
        let mut index = 0;
        let mut handle = |disk: &&Disk| {
            let place = File::open(&disk.mount_point).unwrap();
            let root = mount::open_root(mount::clone_mount(&place).unwrap()).unwrap();
            index += 1;
            (root, index - 1)
        };
        let stages = stages
            .iter()
            .map(|stage| stage.iter().map(&mut handle).collect())
            .collect();
        Self { ledger, stages }
    }

    fn arm(&self, guardian: &mut Guardian, limit: Duration) {
        let stages: Vec<Vec<(BorrowedFd<'_>, usize)>> = self
            .stages
            .iter()
            .map(|stage| {
                stage
                    .iter()
                    .map(|(fd, index)| (fd.as_fd(), *index))
                    .collect()
            })
            .collect();
        guardian.arm(&self.ledger, &stages, limit).unwrap();
    }

    /// As the agent does it.
    fn freeze(&self, index: usize) {
        self.ledger.set(index, Mark::Freezing);
        let (fd, _) = self
            .stages
            .iter()
            .flatten()
            .find(|(_, place)| *place == index)
            .unwrap();
        freeze::freeze(fd).unwrap();
        self.ledger.set(index, Mark::Frozen);
    }

    fn mark(&self, index: usize) -> Mark {
        self.ledger.get(index).unwrap()
    }

    fn until_thawed(&self, index: usize) {
        until("the guardian to thaw", || self.mark(index) == Mark::Thawed);
    }
}

#[test]
fn what_was_frozen_is_thawed_when_the_agents_end_closes() {
    in_namespace(
        "what_was_frozen_is_thawed_when_the_agents_end_closes",
        |place| {
            let disks = ["ext4", "xfs", "btrfs"].map(|fstype| Disk::new(place, fstype, fstype));
            let checkpoint = Checkpoint::new(&[&[&disks[0], &disks[1]], &[&disks[2]]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
            (0..3).for_each(|index| checkpoint.freeze(index));
            guardian.hold(NEVER);
            drop(guardian);
            ends(pid);
            assert!((0..3).all(|index| checkpoint.mark(index) == Mark::Thawed));
            assert!(disks.iter().all(|disk| !disk.is_frozen()));
        },
    );
}

#[test]
fn what_was_frozen_is_thawed_when_the_thread_that_started_it_ends() {
    in_namespace(
        "what_was_frozen_is_thawed_when_the_thread_that_started_it_ends",
        |place| {
            let disk = Disk::new(place, "disk", "ext4");
            let checkpoint = Checkpoint::new(&[&[&disk]]);
            let (offer, guardian) = mpsc::channel();
            let (end, ended) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                offer.send(start(false)).unwrap();
                let _ = ended.recv();
            });
            // The socket stays open, as it does while a thread of the agent is stuck in the kernel.
            let mut guardian = guardian.recv().unwrap();
            checkpoint.arm(&mut guardian, NEVER);
            checkpoint.freeze(0);
            assert!(lives(pid(&guardian)));
            assert_eq!(checkpoint.mark(0), Mark::Frozen);
            drop(end);
            thread.join().unwrap();
            checkpoint.until_thawed(0);
            assert!(!disk.is_frozen());
            ends(pid(&guardian));
        },
    );
}

#[test]
fn what_was_frozen_is_thawed_at_the_limit_and_the_guardian_stays() {
    in_namespace(
        "what_was_frozen_is_thawed_at_the_limit_and_the_guardian_stays",
        |place| {
            let disk = Disk::new(place, "disk", "xfs");
            let checkpoint = Checkpoint::new(&[&[&disk]]);
            let mut guardian = start(false);
            checkpoint.arm(&mut guardian, NEVER);
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
            let pid = pid(&guardian);
            drop(guardian);
            ends(pid);
        },
    );
}

#[test]
fn a_guardian_that_is_disarmed_in_time_thaws_nothing() {
    in_namespace(
        "a_guardian_that_is_disarmed_in_time_thaws_nothing",
        |place| {
            let disk = Disk::new(place, "disk", "ext4");
            let checkpoint = Checkpoint::new(&[&[&disk]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
            // Someone else's, whom the agent's record would betray if anyone still went by it.
            let administrator = File::open(&disk.mount_point).unwrap();
            freeze::freeze(&administrator).unwrap();
            checkpoint.ledger.set(0, Mark::Frozen);
            guardian.disarm();
            drop(guardian);
            ends(pid);
            assert_eq!(checkpoint.mark(0), Mark::Frozen);
            freeze::thaw(&administrator).unwrap();
        },
    );
}

#[test]
fn what_is_not_ours_or_was_only_planned_stays_as_it_is() {
    in_namespace(
        "what_is_not_ours_or_was_only_planned_stays_as_it_is",
        |place| {
            let names = ["ours", "theirs", "planned", "thawed"];
            let disks = names.map(|name| Disk::new(place, name, "ext4"));
            let disks: Vec<&Disk> = disks.iter().collect();
            let checkpoint = Checkpoint::new(&[&disks]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
            checkpoint.freeze(0);
            // By others, all three of them.
            for (index, mark) in [(1, Mark::NotOurs), (2, Mark::Planned), (3, Mark::Thawed)] {
                freeze::freeze(File::open(&disks[index].mount_point).unwrap()).unwrap();
                checkpoint.ledger.set(index, mark);
            }
            // At the limit, and at the agent's death.
            guardian.hold(SOON);
            checkpoint.until_thawed(0);
            drop(guardian);
            ends(pid);
            assert!(!disks[0].is_frozen());
            for (index, mark) in [(1, Mark::NotOurs), (2, Mark::Planned), (3, Mark::Thawed)] {
                assert_eq!(checkpoint.mark(index), mark);
                assert!(disks[index].is_frozen(), "{} was thawed", names[index]);
            }
        },
    );
}

#[test]
fn a_freeze_whose_outcome_the_dead_agent_could_not_note_is_thawed() {
    in_namespace(
        "a_freeze_whose_outcome_the_dead_agent_could_not_note_is_thawed",
        |place| {
            let disks = ["unseen", "failed", "never"].map(|name| Disk::new(place, name, "ext4"));
            let disks: Vec<&Disk> = disks.iter().collect();
            let checkpoint = Checkpoint::new(&[&disks]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
            checkpoint.freeze(0);
            checkpoint.ledger.set(0, Mark::Freezing);
            checkpoint.freeze(1);
            checkpoint.ledger.set(1, Mark::Failed);
            checkpoint.ledger.set(2, Mark::Freezing);
            drop(guardian);
            ends(pid);
            assert!((0..3).all(|index| checkpoint.mark(index) == Mark::Thawed));
            assert!(disks.iter().all(|disk| !disk.is_frozen()));
        },
    );
}

#[test]
fn a_freeze_that_succeeds_after_the_agents_death_is_thawed_too() {
    in_namespace(
        "a_freeze_that_succeeds_after_the_agents_death_is_thawed_too",
        |place| {
            let disks = ["frozen", "stuck"].map(|name| Disk::new(place, name, "ext4"));
            let checkpoint = Checkpoint::new(&[&[&disks[0]], &[&disks[1]]]);
            let (offer, guardian) = mpsc::channel();
            let (end, ended) = mpsc::channel::<()>();
            let agent = thread::spawn(move || {
                offer.send(start(false)).unwrap();
                let _ = ended.recv();
            });
            let mut guardian = guardian.recv().unwrap();
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
            checkpoint.freeze(0);
            checkpoint.ledger.set(1, Mark::Freezing);
            drop(end);
            agent.join().unwrap();
            checkpoint.until_thawed(0);
            // This thread plays the one that was stuck in FIFREEZE when the others died: it keeps the socket open.
            assert!(lives(pid));
            assert_eq!(checkpoint.mark(1), Mark::Freezing);
            freeze::freeze(&checkpoint.stages[1][0].0).unwrap();
            checkpoint.until_thawed(1);
            assert!(!disks[1].is_frozen());
            drop(guardian);
            ends(pid);
        },
    );
}

#[test]
fn stages_are_thawed_in_reverse_and_a_stuck_one_does_not_keep_the_others() {
    in_namespace(
        "stages_are_thawed_in_reverse_and_a_stuck_one_does_not_keep_the_others",
        |place| {
            let outer = Disk::new(place, "outer", "xfs");
            let inner = Disk::with_image(&outer.mount_point, place, "inner", "ext4");
            let other = Disk::new(place, "other", "ext4");
            // The wrong way round on purpose: the thaw of the inner one, first in turn, waits until the outer one is thawed.
            let checkpoint = Checkpoint::new(&[&[&outer], &[&other], &[&inner]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
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
        },
    );
}

#[test]
fn an_image_on_a_disk_is_thawed_after_the_disk_at_once() {
    in_namespace(
        "an_image_on_a_disk_is_thawed_after_the_disk_at_once",
        |place| {
            let outer = Disk::new(place, "outer", "ext4");
            let inner = Disk::with_image(&outer.mount_point, place, "inner", "ext4");
            let checkpoint = Checkpoint::new(&[&[&inner], &[&outer]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
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
        },
    );
}

#[test]
fn more_handles_than_a_message_takes_are_all_guarded() {
    in_namespace(
        "more_handles_than_a_message_takes_are_all_guarded",
        |place| {
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
            let checkpoint = Checkpoint::new(&[&disks[..100], &disks[100..]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
            freeze::freeze(File::open(&theirs.mount_point).unwrap()).unwrap();
            for index in [0, middle, last] {
                checkpoint.freeze(index);
            }
            checkpoint.ledger.set(1, Mark::NotOurs);
            drop(guardian);
            ends(pid);
            assert!(ours.iter().all(|disk| !disk.is_frozen()));
            assert!(theirs.is_frozen());
            assert_eq!(checkpoint.mark(last), Mark::Thawed);
            assert_eq!(checkpoint.mark(298), Mark::Planned);
        },
    );
}

#[test]
fn a_stop_of_the_service_ends_it_only_while_nothing_is_frozen() {
    in_namespace(
        "a_stop_of_the_service_ends_it_only_while_nothing_is_frozen",
        |place| {
            let disk = Disk::new(place, "disk", "ext4");
            let checkpoint = Checkpoint::new(&[&[&disk]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
            checkpoint.freeze(0);
            for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
                kill(pid, signal).unwrap();
            }
            // Whoever answers an arming has taken the signals before it.
            checkpoint.arm(&mut guardian, NEVER);
            assert!(lives(pid));
            // The stop counts once nothing is left to thaw.
            freeze::thaw(&checkpoint.stages[0][0].0).unwrap();
            guardian.disarm();
            until("it to end", || {
                matches!(guardian.check(), Err(GuardianError::Died))
            });
        },
    );
}

#[test]
fn a_guardian_that_died_is_replaced_before_the_next_freeze() {
    in_namespace(
        "a_guardian_that_died_is_replaced_before_the_next_freeze",
        |place| {
            let disk = Disk::new(place, "disk", "ext4");
            let mut guardian = start(true);
            let first = pid(&guardian);
            kill(first, Signal::SIGKILL).unwrap();
            until("another to take its place", || {
                guardian.check().unwrap();
                pid(&guardian) != first
            });
            let checkpoint = Checkpoint::new(&[&[&disk]]);
            checkpoint.arm(&mut guardian, NEVER);
            checkpoint.freeze(0);
            let second = pid(&guardian);
            drop(guardian);
            ends(second);
            assert!(!disk.is_frozen());
        },
    );
}

fn engine(disk: &Disk, guardian: Guardian) -> Engine<ScratchKernel> {
    let limits = Limits {
        flush: PATIENCE,
        freeze: PATIENCE,
        hold: PATIENCE,
    };
    Engine::new(
        ScratchKernel::new(&[disk]),
        limits,
        Gate::new(std::io::stderr()),
    )
    .guarded(Box::new(guardian), Place::Memory)
}

#[test]
fn without_a_guardian_nothing_is_frozen() {
    in_namespace("without_a_guardian_nothing_is_frozen", |place| {
        let disk = Disk::new(place, "disk", "ext4");
        let guardian = start(false);
        let pid = pid(&guardian);
        let mut engine = engine(&disk, guardian);
        engine.freeze().unwrap();
        assert!(engine.thaw().unwrap().is_clean());
        kill(pid, Signal::SIGKILL).unwrap();
        until("the loss to be noticed", || {
            matches!(
                engine.check(),
                Err(FreezeError::Guardian(GuardianError::Died))
            )
        });
        let error = engine.freeze().unwrap_err();
        assert!(matches!(error, FreezeError::Guardian(_)), "{error:?}");
        assert!(!disk.is_frozen());
    });
}

#[test]
fn a_guardian_that_dies_between_two_freezes_is_replaced_and_leaves_no_process_behind() {
    in_namespace(
        "a_guardian_that_dies_between_two_freezes_is_replaced_and_leaves_no_process_behind",
        |place| {
            let disk = Disk::new(place, "disk", "xfs");
            let guardian = start(true);
            let mut last = pid(&guardian);
            let mut engine = engine(&disk, guardian);
            for _ in 0..3 {
                engine.freeze().unwrap();
                // In the hold: the agent thaws by itself all the same.
                kill(last, Signal::SIGKILL).unwrap();
                assert!(engine.thaw().unwrap().is_clean());
                until("a replacement", || {
                    engine.check().unwrap();
                    let new = children(Pid::this()).into_iter().find(|pid| *pid != last);
                    last = new.unwrap_or(last);
                    new.is_some()
                });
            }
            assert_eq!(children(Pid::this()), [last], "one guardian, and no zombie");
            drop(engine);
            ends(last);
            assert!(!disk.is_frozen());
        },
    );
}

#[test]
fn a_stopped_guardian_is_not_waited_for_longer_than_its_patience() {
    in_namespace(
        "a_stopped_guardian_is_not_waited_for_longer_than_its_patience",
        |place| {
            let disk = Disk::new(place, "disk", "ext4");
            let guardian = start(true);
            let pid = pid(&guardian);
            let mut engine = engine(&disk, guardian);
            kill(pid, Signal::SIGSTOP).unwrap();
            let started = Instant::now();
            let error = engine.freeze().unwrap_err();
            assert!(matches!(error, FreezeError::Guardian(_)), "{error:?}");
            assert!(started.elapsed() < PATIENCE);
            assert!(!disk.is_frozen());
            // A new one serves.
            engine.freeze().unwrap();
            assert!(engine.thaw().unwrap().is_clean());
        },
    );
}

#[test]
fn an_agent_that_wakes_after_the_limit_leaves_the_freeze_of_someone_else_alone() {
    in_namespace(
        "an_agent_that_wakes_after_the_limit_leaves_the_freeze_of_someone_else_alone",
        |place| {
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
        },
    );
}

#[test]
fn a_freeze_that_an_agent_stopped_in_it_could_not_note_is_thawed_at_the_limit() {
    in_namespace(
        "a_freeze_that_an_agent_stopped_in_it_could_not_note_is_thawed_at_the_limit",
        |place| {
            let disk = Disk::new(place, "disk", "xfs");
            let checkpoint = Checkpoint::new(&[&[&disk]]);
            let mut guardian = start(false);
            checkpoint.arm(&mut guardian, NEVER);
            checkpoint.freeze(0);
            checkpoint.ledger.set(0, Mark::Freezing);
            guardian.hold(SOON);
            checkpoint.until_thawed(0);
            assert!(!disk.is_frozen());
        },
    );
}

#[test]
fn after_its_limit_nothing_goes_on_thawing_what_is_not_ours_any_more() {
    in_namespace(
        "after_its_limit_nothing_goes_on_thawing_what_is_not_ours_any_more",
        |place| {
            let disks = ["frozen", "slow"].map(|name| Disk::new(place, name, "ext4"));
            let checkpoint = Checkpoint::new(&[&[&disks[0], &disks[1]]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, NEVER);
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
            drop(guardian);
            ends(pid);
            assert!(disks[1].is_frozen());
        },
    );
}

#[test]
fn a_freeze_that_does_not_return_keeps_one_process_busy() {
    in_namespace(
        "a_freeze_that_does_not_return_keeps_one_process_busy",
        |place| {
            let disk = Disk::new(place, "disk", "ext4");
            let checkpoint = Checkpoint::new(&[&[&disk]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, SOON);
            checkpoint.ledger.set(0, Mark::Freezing);
            until("the attempt", || children(pid).len() == 1);
            // The guardian looks again after 10 s, twice in this time.
            let end = Instant::now() + Duration::from_secs(25);
            while Instant::now() < end {
                assert_eq!(children(pid).len(), 1);
                thread::sleep(SOON);
            }
            checkpoint.ledger.set(0, Mark::NotOurs);
            drop(guardian);
            ends(pid);
        },
    );
}

#[test]
fn a_second_freeze_that_the_agent_dies_in_after_the_limit_is_thawed_too() {
    in_namespace(
        "a_second_freeze_that_the_agent_dies_in_after_the_limit_is_thawed_too",
        |place| {
            let disk = Disk::new(place, "disk", "ext4");
            let checkpoint = Checkpoint::new(&[&[&disk]]);
            let mut guardian = start(false);
            let pid = pid(&guardian);
            checkpoint.arm(&mut guardian, SOON);
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
        },
    );
}
