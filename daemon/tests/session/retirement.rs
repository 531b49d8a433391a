//! Making way for a new program: never in a checkpoint, and never between the host's question and its FREEZE.

use std::time::Duration;

use hv_vssd::agent::session::{Action, Event, State};
use hvutil_sys::vss::{Operation, Status};

use super::{FROZEN, LIMITS, ok, ready};

const END: [Action; 2] = [Action::CloseChannel, Action::Exit];

#[test]
fn an_idle_agent_makes_way_at_once() {
    let (mut session, now) = ready();
    assert_eq!(session.handle(Event::Retire, now), END);
    assert_eq!(session.state(), State::Stopped);

    let (mut session, now) = ready();
    let _ = session.handle(Event::ChannelLost, now);
    assert_eq!(
        session.handle(Event::Retire, now),
        END,
        "also without a channel"
    );
}

#[test]
fn a_checkpoint_is_brought_to_its_end_first() {
    let (mut session, now) = ready();
    let actions = session.handle(Event::Request(Operation::FREEZE), now);
    assert_eq!(actions, [Action::StartFreeze]);
    assert_eq!(session.handle(Event::Retire, now), []);
    assert_eq!(session.handle(FROZEN, now), [ok(Operation::FREEZE)]);
    let actions = session.handle(Event::Request(Operation::THAW), now);
    assert_eq!(actions, [Action::StartThaw]);
    let actions = session.handle(Event::Thawed { clean: true }, now);
    let [close, exit] = END;
    assert_eq!(
        actions,
        [ok(Operation::THAW), close, exit],
        "the host first"
    );
}

#[test]
fn a_hold_that_ends_at_its_limit_ends_the_wait() {
    let (mut session, now) = ready();
    let _ = session.handle(Event::Request(Operation::FREEZE), now);
    let _ = session.handle(FROZEN, now);
    assert_eq!(session.handle(Event::Retire, now), []);
    let late = now + LIMITS.hold;
    assert!(
        session
            .handle(Event::Tick, late)
            .contains(&Action::StartThaw)
    );
    assert_eq!(session.handle(Event::Thawed { clean: true }, late), END);
}

#[test]
fn a_freeze_by_hand_is_brought_to_its_end_first() {
    let (mut session, now) = ready();
    let hold = Duration::from_secs(5);
    let _ = session.handle(Event::ManualFreeze { hold }, now);
    assert_eq!(session.handle(Event::Retire, now), []);
    assert_eq!(session.handle(FROZEN, now), [Action::ManualHeld(hold)]);
    assert_eq!(session.handle(Event::Tick, now + hold), [Action::StartThaw]);
    assert_eq!(
        session.handle(Event::Thawed { clean: true }, now + hold),
        END
    );
}

#[test]
fn a_host_that_was_told_yes_gets_its_checkpoint() {
    let (mut session, now) = ready();
    let _ = session.handle(Event::Request(Operation::HOT_BACKUP), now);
    assert_eq!(session.handle(Event::Retire, now), []);
    let actions = session.handle(Event::Checked { possible: true }, now);
    assert_eq!(actions, [ok(Operation::HOT_BACKUP)]);
    let actions = session.handle(Event::Request(Operation::FREEZE), now);
    assert_eq!(actions, [Action::StartFreeze]);
}

#[test]
fn a_host_that_was_told_yes_and_does_not_come_is_not_waited_for_longer_than_10_s() {
    let (mut session, now) = ready();
    let _ = session.handle(Event::Request(Operation::HOT_BACKUP), now);
    let _ = session.handle(Event::Checked { possible: true }, now);
    assert_eq!(session.deadline(), None, "an idle agent has no timer");
    assert_eq!(session.handle(Event::Retire, now), []);
    let over = now + Duration::from_secs(10);
    assert_eq!(session.deadline(), Some(over));
    let soon = over - Duration::from_millis(1);
    assert_eq!(session.handle(Event::Tick, soon), []);
    assert_eq!(session.handle(Event::Tick, over), END);
}

#[test]
fn a_host_that_was_told_no_is_not_waited_for() {
    let (mut session, now) = ready();
    let _ = session.handle(Event::Request(Operation::HOT_BACKUP), now);
    assert_eq!(session.handle(Event::Retire, now), []);
    let actions = session.handle(Event::Checked { possible: false }, now);
    let [close, exit] = END;
    let no = Action::Reply(Operation::HOT_BACKUP, Status::Fail);
    assert_eq!(actions, [no, close, exit]);
}

#[test]
fn an_agent_that_makes_way_reads_no_configuration() {
    let (mut session, now) = ready();
    let _ = session.handle(Event::Request(Operation::FREEZE), now);
    let _ = session.handle(Event::Reload, now);
    let _ = session.handle(Event::Retire, now);
    let actions = session.handle(Event::FreezeFailed, now);
    let [close, exit] = END;
    let no = Action::Reply(Operation::FREEZE, Status::Fail);
    assert_eq!(actions, [no, close, exit]);
}
