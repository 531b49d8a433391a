//! Every order of the steps of all parties, and every death in between, for one file system: in the end nothing of ours is frozen,
//! nobody else's freeze was thawed, and the host was told the truth.
//!
//! The parties carry out the parts of `quiesce/protocol.rs` themselves; each swap of the mark, and each begin and return of a call, is one step.
//! The kernel is as Linux 6.1: one freeze at a time, `EBUSY` and `EINVAL` for what comes too often. Any of agent, freezer, guardian
//! and its child may be killed at any step, the agent may be stopped or end in order, the guardian's limit may pass, `FITHAW` may fail, and
//! someone else may freeze and thaw.
//!
//! "In the end": from every state there is a way to a settled one by moves that happen sooner or later. No death, no error and nobody else
//! is needed for that; nor is a later start, as long as one of our processes lives.
//!
//! What the rules do not give, and the search does not ask for:
//! - A process that is killed between its claim of the mark and the note of how its call went (in the call, or some instructions before or after it)
//!   leaves it open whether a freeze is ours. The next `FITHAW` for it is let off, should it hit someone else's; none after that.
//! - A child of the guardian's killed there, and the guardian killed too: the living agent does not know, and has to be restarted.
//! - An agent stopped there, in a call of its own after the freezer's death, has to be continued. So has one whose guardian is dead.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "protocol_model/kernel.rs"]
mod kernel;
#[path = "protocol_model/old.rs"]
mod old;
#[path = "protocol_model/parties.rs"]
mod parties;
#[path = "protocol_model/search.rs"]
mod search;

use old::Old;
use parties::{Bounds, TOOK_THEIRS};
use search::{Model, NEVER_SETTLED, search};

/// More than this is a mistake in a model.
const MAX_STATES: usize = 2_000_000;

#[track_caller]
fn assert_holds(model: &impl Model, at_least: usize) {
    let found = search(model, MAX_STATES);
    println!("{} states", found.states);
    if let Some(broken) = found.broken {
        panic!("{}:\n{}", broken.promise, broken.trace);
    }
    assert!(found.states >= at_least, "{} states", found.states);
}

/// Gives the way there.
#[track_caller]
fn assert_breaks(model: &impl Model, promise: &str) -> String {
    let found = search(model, MAX_STATES);
    let broken = found.broken.unwrap();
    println!("{}:\n{}", broken.promise, broken.trace);
    assert_eq!(broken.promise, promise, "{}", broken.trace);
    broken.trace
}

const NO_DEATH: Bounds = Bounds {
    kills: 0,
    foreign: 2,
    thaw_failures: 1,
    hasty_start: false,
};

#[test]
fn rules_hold_while_all_live() {
    assert_holds(&NO_DEATH, 5_000);
}

#[test]
fn rules_hold_with_one_death_at_any_step() {
    let bounds = Bounds {
        kills: 1,
        ..NO_DEATH
    };
    assert_holds(&bounds, 100_000);
}

#[test]
fn rules_hold_with_two_deaths_at_any_steps() {
    let bounds = Bounds {
        kills: 2,
        foreign: 1,
        ..NO_DEATH
    };
    assert_holds(&bounds, 200_000);
}

#[test]
fn start_that_takes_all_for_dead_thaws_what_others_have_frozen() {
    let bounds = Bounds {
        kills: 1,
        hasty_start: true,
        ..NO_DEATH
    };
    assert_breaks(&bounds, TOOK_THEIRS);
}

#[test]
fn old_guardian_took_a_closed_socket_for_the_end_of_a_freeze_in_progress() {
    let old = Old {
        closes: true,
        ..Old::default()
    };
    let trace = assert_breaks(&old, NEVER_SETTLED);
    assert!(trace.contains("FITHAW returns: NotFrozen"), "{trace}");
    assert!(trace.trim_end().ends_with("Ours 'T'"), "{trace}");
}

#[test]
fn old_agent_forgot_a_freeze_that_the_guardian_had_marked_thawed() {
    let old = Old {
        limit: true,
        foreign: 1,
        ..Old::default()
    };
    let trace = assert_breaks(&old, NEVER_SETTLED);
    assert!(trace.trim_end().ends_with("Ours 'T'"), "{trace}");
}

#[test]
fn old_guardian_retried_until_it_thawed_what_others_had_frozen() {
    let old = Old {
        kills: 1,
        foreign: 1,
        minds_foreign: true,
        ..Old::default()
    };
    let trace = assert_breaks(&old, TOOK_THEIRS);
    assert!(trace.contains("FITHAW returns: NotFrozen"), "{trace}");
}
