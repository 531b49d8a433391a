//! The paths of a checkpoint through the session, told one by one.

use std::time::{Duration, Instant};

use hv_vssd::agent::note::Note;
use hv_vssd::agent::session::{Action, Event, Limits, Session, State};
use hvutil_sys::vss::{Operation, Status};

use super::{FROZEN, LIMITS, ok, ready};

const fn request(operation: Operation) -> Event {
    Event::Request(operation)
}

const fn fail(operation: Operation) -> Action {
    Action::Reply(operation, Status::Fail)
}

fn freezing() -> (Session, Instant) {
    let (mut session, now) = ready();
    let actions = session.handle(request(Operation::FREEZE), now);
    assert_eq!(actions, [Action::StartFreeze]);
    (session, now)
}

fn held() -> (Session, Instant) {
    let (mut session, now) = freezing();
    assert_eq!(session.handle(FROZEN, now), [ok(Operation::FREEZE)]);
    (session, now)
}

#[test]
fn a_checkpoint_is_answered_step_by_step() {
    let (mut session, now) = ready();
    let actions = session.handle(request(Operation::HOT_BACKUP), now);
    assert_eq!(actions, [Action::StartCheck]);
    let actions = session.handle(Event::Checked { possible: true }, now);
    assert_eq!(actions, [ok(Operation::HOT_BACKUP)]);

    let (mut session, now) = held();
    let actions = session.handle(request(Operation::THAW), now);
    assert_eq!(actions, [Action::StartThaw]);
    let actions = session.handle(Event::Thawed { clean: true }, now);
    assert_eq!(actions, [ok(Operation::THAW)]);
    assert_eq!(session.state(), State::Ready);
}

#[test]
fn a_guest_that_cannot_be_frozen_says_so_before_the_freeze() {
    let (mut session, now) = ready();
    let _ = session.handle(request(Operation::HOT_BACKUP), now);
    let actions = session.handle(Event::Checked { possible: false }, now);
    assert_eq!(actions, [fail(Operation::HOT_BACKUP)]);
    assert_eq!(session.state(), State::Ready);
}

#[test]
fn a_failed_freeze_is_answered_failure_and_the_next_backup_works() {
    let (mut session, now) = freezing();
    let actions = session.handle(Event::FreezeFailed, now);
    assert_eq!(actions, [fail(Operation::FREEZE)]);
    let actions = session.handle(request(Operation::FREEZE), now);
    assert_eq!(actions, [Action::StartFreeze]);
}

#[test]
fn the_hold_limit_thaws_and_the_late_thaw_is_answered_failure() {
    let (mut session, now) = held();
    let before = now + LIMITS.hold - Duration::from_millis(1);
    assert_eq!(session.handle(Event::Tick, before), []);
    assert_eq!(session.deadline(), Some(now + LIMITS.hold));
    let now = now + LIMITS.hold;
    let note = Action::Note(Note::HoldLimit(LIMITS.hold));
    assert_eq!(session.handle(Event::Tick, now), [note, Action::StartThaw]);
    assert_eq!(session.handle(Event::Thawed { clean: true }, now), []);
    let actions = session.handle(request(Operation::THAW), now);
    let note = Action::Note(Note::ThawAfterEarlyEnd);
    assert_eq!(actions, [note, fail(Operation::THAW)]);
    let actions = session.handle(request(Operation::FREEZE), now);
    assert_eq!(actions, [Action::StartFreeze]);
}

#[test]
fn a_thaw_that_comes_while_the_hold_limit_thaws_is_answered_failure() {
    let (mut session, now) = held();
    let now = now + LIMITS.hold;
    let _ = session.handle(Event::Tick, now);
    assert_eq!(session.handle(request(Operation::THAW), now), []);
    let actions = session.handle(Event::Thawed { clean: true }, now);
    assert!(actions.contains(&fail(Operation::THAW)));
    assert_eq!(session.state(), State::Ready);
}

#[test]
fn a_hold_that_broke_before_success_could_be_told_is_thawed_and_the_next_freeze_works() {
    let (mut session, now) = held();
    let actions = session.handle(Event::HoldBroken, now);
    let note = Action::Note(Note::HoldBroken);
    assert_eq!(actions, [note, Action::StartThaw]);
    assert_eq!(session.handle(Event::Thawed { clean: false }, now), []);
    let actions = session.handle(request(Operation::FREEZE), now);
    assert_eq!(actions, [Action::StartFreeze]);
    // By hand as well.
    let (mut session, now) = ready();
    let hold = Duration::from_secs(1);
    let _ = session.handle(Event::ManualFreeze { hold }, now);
    let _ = session.handle(FROZEN, now);
    let actions = session.handle(Event::HoldBroken, now);
    assert_eq!(actions, [note, Action::StartThaw]);
    let _ = session.handle(Event::Thawed { clean: false }, now);
    assert_eq!(session.state(), State::Ready);
    assert_eq!(
        session.handle(Event::HoldBroken, now),
        [],
        "nothing is held"
    );
}

#[test]
fn a_hold_broken_by_someone_else_is_answered_failure() {
    let (mut session, now) = held();
    let _ = session.handle(request(Operation::THAW), now);
    let actions = session.handle(Event::Thawed { clean: false }, now);
    assert_eq!(actions, [fail(Operation::THAW)]);
}

#[test]
fn a_refused_answer_to_freeze_thaws_at_once() {
    let (mut session, now) = held();
    let actions = session.handle(Event::ReplyFailed, now);
    let note = Action::Note(Note::ReplyRefused);
    assert_eq!(actions, [note, Action::CloseChannel, Action::StartThaw]);
    let _ = session.handle(Event::Thawed { clean: true }, now);
    let deadline = session.deadline().unwrap();
    assert_eq!(session.handle(Event::Tick, deadline), [Action::OpenChannel]);
}

#[test]
fn the_thaw_of_a_hibernation_aborts_a_freeze() {
    let (mut session, now) = freezing();
    let actions = session.handle(request(Operation::THAW), now);
    let note = Action::Note(Note::OutOfStep(Operation::THAW));
    assert_eq!(actions, [note, Action::CloseChannel, Action::AbortFreeze]);
    // The abort came too late.
    assert_eq!(session.handle(FROZEN, now), [Action::StartThaw]);
    assert_eq!(session.handle(Event::Thawed { clean: true }, now), []);
    assert!(matches!(session.state(), State::Closed { .. }));
}

#[test]
fn a_lost_channel_is_dropped_first_because_the_driver_waits_for_that() {
    let (mut session, now) = held();
    let actions = session.handle(Event::ChannelLost, now);
    let note = Action::Note(Note::ChannelLost);
    assert_eq!(actions, [note, Action::CloseChannel, Action::StartThaw]);
}

#[test]
fn a_stop_in_a_hold_thaws_before_the_end() {
    let (mut session, now) = held();
    let actions = session.handle(Event::Terminate, now);
    let note = Action::Note(Note::StoppedDuringCheckpoint);
    assert_eq!(actions, [note, Action::StartThaw]);
    let actions = session.handle(Event::Thawed { clean: true }, now);
    assert_eq!(actions, [Action::CloseChannel, Action::Exit]);
    assert_eq!(session.state(), State::Stopped);
}

#[test]
fn a_stop_in_a_freeze_aborts_it_and_answers_failure() {
    let (mut session, now) = freezing();
    let actions = session.handle(Event::Terminate, now);
    assert_eq!(actions.last(), Some(&Action::AbortFreeze));
    let actions = session.handle(Event::FreezeFailed, now);
    let expected = [fail(Operation::FREEZE), Action::CloseChannel, Action::Exit];
    assert_eq!(actions, expected);
}

#[test]
fn a_freeze_that_takes_too_long_is_given_up() {
    let (mut session, now) = freezing();
    let now = now + LIMITS.freeze_request;
    let note = Action::Note(Note::FreezeLimit(LIMITS.freeze_request));
    assert_eq!(
        session.handle(Event::Tick, now),
        [note, Action::AbortFreeze]
    );
    assert_eq!(session.deadline(), None);
}

#[test]
fn what_makes_no_sense_is_answered_failure_and_changes_nothing() {
    let (mut session, now) = ready();
    for operation in [Operation::THAW, Operation(77), Operation(0)] {
        let actions = session.handle(request(operation), now);
        assert_eq!(actions.last(), Some(&fail(operation)));
        assert_eq!(session.state(), State::Ready);
    }
    let (mut session, now) = held();
    let state = session.state();
    for operation in [Operation::FREEZE, Operation::HOT_BACKUP, Operation(77)] {
        let actions = session.handle(request(operation), now);
        assert_eq!(actions.last(), Some(&fail(operation)));
        assert_eq!(session.state(), state);
    }
}

#[test]
fn garbage_in_a_hold_thaws_and_opens_the_channel_anew() {
    let (mut session, now) = held();
    let actions = session.handle(Event::Malformed(40), now);
    let note = Action::Note(Note::Malformed(40));
    assert_eq!(actions, [note, Action::CloseChannel, Action::StartThaw]);
}

#[test]
fn attempts_to_open_the_channel_are_bounded_in_rate() {
    let (mut session, now) = ready();
    let _ = session.handle(Event::ChannelLost, now);
    let mut now = now;
    for _ in 0..20 {
        let due = session.deadline().unwrap();
        assert!(due > now && due - now <= Duration::from_secs(5));
        now = due;
        assert_eq!(session.handle(Event::Tick, now), [Action::OpenChannel]);
        assert_eq!(session.deadline(), None);
        assert_eq!(session.handle(Event::OpenFailed, now), []);
    }
    assert_eq!(session.deadline().unwrap() - now, Duration::from_secs(5));
}

#[test]
fn a_reload_is_begun_at_once_while_nothing_is_under_way() {
    let (mut session, now) = ready();
    let actions = session.handle(Event::Reload, now);
    assert_eq!(actions, [Action::StartReload]);
    assert_eq!(session.handle(Event::Tick, now), [], "and only once");
    let _ = session.handle(Event::ChannelLost, now);
    let actions = session.handle(Event::Reload, now);
    assert_eq!(actions, [Action::StartReload], "also without a channel");
}

#[test]
fn a_reload_in_a_checkpoint_waits_for_its_end() {
    let (mut session, now) = freezing();
    assert_eq!(session.handle(Event::Reload, now), []);
    assert_eq!(session.handle(FROZEN, now), [ok(Operation::FREEZE)]);
    assert_eq!(session.handle(Event::Reload, now), []);
    let actions = session.handle(request(Operation::THAW), now);
    assert_eq!(actions, [Action::StartThaw]);
    let actions = session.handle(Event::Thawed { clean: true }, now);
    assert_eq!(
        actions,
        [ok(Operation::THAW), Action::StartReload],
        "once, and the host first"
    );
}

#[test]
fn the_limits_of_a_reload_hold_for_the_next_checkpoint() {
    let (mut session, now) = ready();
    let limits = Limits {
        freeze_request: Duration::from_secs(7),
        hold: Duration::from_secs(9),
    };
    assert_eq!(session.handle(Event::Reloaded { limits }, now), []);
    let _ = session.handle(request(Operation::FREEZE), now);
    assert_eq!(session.deadline(), Some(now + limits.freeze_request));
    let _ = session.handle(FROZEN, now);
    assert_eq!(session.deadline(), Some(now + limits.hold));
}

#[test]
fn a_reload_is_not_begun_by_an_agent_that_ends() {
    let (mut session, now) = held();
    let _ = session.handle(Event::Reload, now);
    let _ = session.handle(Event::Terminate, now);
    let actions = session.handle(Event::Thawed { clean: true }, now);
    assert_eq!(actions, [Action::CloseChannel, Action::Exit]);
}

#[test]
fn a_hold_ends_before_its_limit_where_the_engine_says_so_and_never_after_it() {
    for (most, expected) in [(100, 100), (1000, 120)] {
        let (mut session, now) = ready();
        let _ = session.handle(request(Operation::FREEZE), now);
        let hold = Duration::from_secs(most);
        let _ = session.handle(Event::Frozen { hold }, now);
        let end = now + Duration::from_secs(expected);
        assert_eq!(session.deadline(), Some(end));
        let actions = session.handle(Event::Tick, end);
        let note = Note::HoldLimit(Duration::from_secs(expected));
        assert_eq!(actions, [Action::Note(note), Action::StartThaw]);
    }
    // What a person asks for, too.
    let (mut session, now) = ready();
    let hold = Duration::from_secs(60);
    let _ = session.handle(Event::ManualFreeze { hold }, now);
    let hold = Duration::from_secs(10);
    let actions = session.handle(Event::Frozen { hold }, now);
    assert_eq!(actions, [Action::ManualHeld(hold)]);
}
