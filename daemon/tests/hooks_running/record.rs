//! The record of what owes its thaw, which outlives an agent.

use std::fs;
use std::path::Path;
use std::thread;

use hv_vssd::hooks::{Applications, Operation, Outcome};

use super::{Machine, dies, freeze, until};

#[test]
fn the_next_agent_thaws_what_a_dead_one_has_started() {
    let machine = Machine::new();
    machine.hook(
        "10-a",
        "[ $1 = thaw ] || { sleep 1000 & echo $! >$D/held; }",
    );
    machine.hook("20-b", "");
    let dead = machine.hooks();
    freeze(&dead).0.unwrap();
    // As a process that was killed: nothing is undone.
    std::mem::forget(dead);
    let hooks = machine.hooks().recovering();
    assert!(hooks.owes_thaw());
    let runs = hooks.thaw(Outcome::Failure);
    assert!(runs.iter().all(|run| run.operation == Operation::Thaw));
    assert_eq!(machine.calls()[2..], ["20-b thaw", "10-a thaw"]);
    dies(machine.pid("held"));
    assert!(!machine.record().exists());
    assert!(!machine.hooks().recovering().owes_thaw());
}

#[test]
fn a_hook_that_a_dead_agent_was_running_is_ended_before_its_thaw() {
    let machine = Machine::new();
    machine.hook("10-a", "[ $1 = thaw ] || { echo $$ >$D/hook; sleep 1000; }");
    thread::scope(|scope| {
        scope.spawn(|| {
            let dead = machine.hooks();
            let (result, _) = freeze(&dead);
            assert!(result.is_err(), "ended by the next agent");
            std::mem::forget(dead);
        });
        let hook = machine.pid("hook");
        let hooks = until("the record of the process", || {
            let text = fs::read_to_string(machine.record()).unwrap_or_default();
            text.contains("group").then(|| machine.hooks().recovering())
        });
        hooks.thaw(Outcome::Failure);
        dies(hook);
    });
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}

#[test]
fn a_damaged_record_is_put_aside_and_stops_nothing() {
    let machine = Machine::new();
    machine.hook("10-a", "");
    fs::create_dir(machine.path("run")).unwrap();
    fs::write(machine.record(), "no record").unwrap();
    let hooks = machine.hooks().recovering();
    assert!(!hooks.owes_thaw());
    assert!(Path::new(&machine.path("run/hooks.damaged")).exists());
    freeze(&hooks).0.unwrap();
}

#[test]
fn hooks_that_are_dropped_while_they_owe_thaw() {
    let machine = Machine::new();
    machine.hook("10-a", "");
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    drop(hooks);
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}
