//! How long a hook may take, how much it may say, and what it may leave running.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hv_vssd::config::{HookOverride, OnFailure};
use hv_vssd::hooks::{Applications, HookError, Outcome};

use super::{Machine, checkpoint, dies, freeze, lines, lives};

#[test]
fn a_hook_that_hangs_and_ignores_signals_is_ended_with_all_it_started() {
    let mut machine = Machine::new();
    machine.hook(
        "10-a",
        "[ $1 = thaw ] && exit\ntrap '' TERM\nsleep 1000 & echo $! >$D/child\nwhile :; do sleep 1; done",
    );
    machine.settings.limit = 1;
    let hooks = machine.hooks();
    let (result, runs) = freeze(&hooks);
    assert!(matches!(result, Err(HookError::Failed(..))));
    let failure = runs[0].failure.as_deref().unwrap();
    assert_eq!(failure, "it was not done within 1 s, and was ended");
    dies(machine.pid("child"));
    hooks.thaw(Outcome::Failure);
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}

#[test]
fn all_hooks_together_have_a_limit() {
    let mut machine = Machine::new();
    machine.hook("10-a", "[ $1 = thaw ] || sleep 1000");
    machine.hook("20-b", "");
    machine.settings.total = 1;
    machine.settings.on_failure = OnFailure::Continue;
    let hooks = machine.hooks();
    let (result, _) = freeze(&hooks);
    assert!(matches!(result, Err(HookError::Total(name, _)) if name == "20-b"));
    hooks.thaw(Outcome::Failure);
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}

#[test]
fn a_flood_of_output_neither_stops_a_hook_nor_is_kept() {
    let machine = Machine::new();
    machine.hook(
        "10-a",
        "echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last >&2",
    );
    let hooks = machine.hooks();
    let (result, runs) = freeze(&hooks);
    result.unwrap();
    let told = lines(&runs[0]);
    assert_eq!(
        (told[0].as_str(), told.last().unwrap().as_str()),
        ("first", "last")
    );
    assert!(told.concat().len() < 5000);
    assert!(runs[0].output.dropped() > 19_000_000);
}

#[test]
fn what_a_freeze_leaves_behind_lives_until_its_thaw_has_returned_and_no_longer() {
    let machine = Machine::new();
    // Both keep the pipe open; the second is forked twice.
    machine.hook(
        "10-a",
        "if [ $1 = freeze ]; then\n  sleep 1000 & echo $! >$D/held\n\
         \x20 (sleep 1000 & echo $! >$D/twice) &\n  wait $!\nelse\n\
         \x20 kill -0 $(cat $D/held) && kill -0 $(cat $D/twice) && echo still held\nfi",
    );
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    let left = [machine.pid("held"), machine.pid("twice")];
    assert!(left.iter().all(|pid| lives(*pid)), "held as long as needed");
    let runs = hooks.thaw(Outcome::Success);
    assert_eq!(lines(&runs[0]), ["still held"]);
    left.into_iter().for_each(dies);
}

#[test]
fn what_a_thaw_leaves_behind_is_ended() {
    let machine = Machine::new();
    machine.hook(
        "10-a",
        "[ $1 = freeze ] || { sleep 1000 & echo $! >$D/left; }",
    );
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    assert_eq!(hooks.thaw(Outcome::Success)[0].failure, None);
    dies(machine.pid("left"));
}

#[test]
fn a_thaw_that_hangs_or_fails_is_told_and_keeps_no_other_from_its_own() {
    let mut machine = Machine::new();
    machine.hook("10-a", "");
    machine.hook("20-b", "[ $1 = freeze ] || exit 7");
    machine.hook("30-c", "[ $1 = freeze ] || sleep 1000");
    let short = HookOverride {
        on_failure: None,
        limit: Some(1),
    };
    machine.settings.by_name.insert("30-c".to_owned(), short);
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    let runs = hooks.thaw(Outcome::Success);
    let failures: Vec<_> = runs.iter().map(|run| run.failure.as_deref()).collect();
    let late = "it was not done within 1 s, and was ended";
    assert_eq!(
        failures,
        [Some(late), Some("it ended with exit status 7"), None]
    );
    assert!(!machine.record().exists());
}

#[test]
fn giving_up_ends_the_hook_at_work() {
    let machine = Machine::new();
    machine.hook("10-a", "[ $1 = thaw ] || { echo $$ >$D/hook; sleep 1000; }");
    machine.hook("20-b", "");
    let hooks = machine.hooks();
    let given_up = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&given_up);
    let mut runs = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            machine.pid("hook");
            given_up.store(true, Ordering::SeqCst);
        });
        let aborted = || flag.load(Ordering::SeqCst);
        let result = hooks.freeze(&checkpoint(), &aborted, &mut runs);
        assert!(matches!(result, Err(HookError::Aborted)), "{result:?}");
    });
    dies(machine.pid("hook"));
    hooks.thaw(Outcome::Failure);
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}
