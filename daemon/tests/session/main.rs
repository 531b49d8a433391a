//! The session without anything around it: events in, actions out.

mod paths;
mod properties;
mod retirement;

use std::time::{Duration, Instant};

use hv_vssd::agent::session::{Action, Event, Limits, Session};
use hvutil_sys::vss::{Operation, Status};

const LIMITS: Limits = Limits {
    freeze_request: Duration::from_secs(60),
    hold: Duration::from_secs(120),
};

const FROZEN: Event = Event::Frozen { hold: LIMITS.hold };

const fn ok(operation: Operation) -> Action {
    Action::Reply(operation, Status::Ok)
}

/// A session that is registered, and when that was.
fn ready() -> (Session, Instant) {
    let now = Instant::now();
    let mut session = Session::new(LIMITS, now);
    assert_eq!(session.handle(Event::Tick, now), [Action::OpenChannel]);
    assert_eq!(session.handle(Event::Opened, now), []);
    (session, now)
}
