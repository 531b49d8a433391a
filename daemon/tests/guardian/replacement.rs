//! The guardian's own life: when it ends, who takes its place, and that nothing is frozen without one.

use std::time::{Duration, Instant};

use hv_vssd::quiesce::guardian::{Guard, Guardian, GuardianError};
use hv_vssd::quiesce::ledger::Place;
use hv_vssd::quiesce::protocol::Call;
use hv_vssd::quiesce::{Engine, FreezeError, Limits};
use hv_vssd::telemetry::Gate;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scratch::{Disk, PATIENCE, ScratchKernel, in_namespace, until};
use super::{Checkpoint, NEVER, armed, children, ends, lives, pid, start};

#[test]
fn no_signal_to_every_process_of_the_name_ends_it_before_its_agent() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (checkpoint, mut guardian) = armed(&[&[&disk]], NEVER);
        let pid = pid(&guardian);
        checkpoint.freeze(0);
        for signal in Signal::iterator() {
            // The last one is its agent's death, if the agent sends it.
            if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGUSR1) {
                kill(pid, signal).unwrap();
            }
        }
        // Whoever answers an arming has taken the signals before it.
        checkpoint.call(0, Call::Thaw).unwrap();
        guardian.disarm();
        checkpoint.arm(&mut guardian, NEVER);
        assert!(lives(pid));
        checkpoint.agent_dies(guardian);
    });
}

#[test]
fn a_guardian_that_died_is_replaced_before_the_next_freeze() {
    in_namespace(|place| {
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
        checkpoint.agent_dies(guardian);
        assert!(!disk.is_frozen());
    });
}

#[test]
fn guardian_thaws_before_a_kernel_panics_over_those_who_wait() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let panic = Duration::from_secs(8);
        let kernel = ScratchKernel::new(&[&disk]).panicking_after(panic);
        let limits = Limits {
            flush: PATIENCE,
            freeze: PATIENCE,
            hold: PATIENCE,
        };
        let mut engine = Engine::new(kernel, limits, Gate::new(std::io::stderr()))
            .guarded(Box::new(start(false)), Place::Memory);
        let begun = Instant::now();
        engine.freeze().unwrap();
        assert!(disk.is_frozen());
        assert!(
            engine.hold_limit() <= panic / 2,
            "{:?}",
            engine.hold_limit()
        );
        // The agent does nothing at all.
        until("the guardian to thaw", || !disk.is_frozen());
        assert!(begun.elapsed() < panic, "after {:?}", begun.elapsed());
        assert!(begun.elapsed() >= panic / 2, "before the agent could");
        engine.thaw();
    });
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
    in_namespace(|place| {
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
    in_namespace(|place| {
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
    });
}

#[test]
fn a_stopped_guardian_is_not_waited_for_longer_than_its_patience() {
    in_namespace(|place| {
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
    });
}
