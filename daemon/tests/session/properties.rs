//! Any sequence of events, in any order: nothing stays frozen, and the host never hears a success that is not true.

use std::time::{Duration, Instant};

use hv_vssd::agent::session::{Action, Event, Limits, Session, State};
use hvutil_sys::vss::{Operation, Status};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    freeze_request: Duration::from_secs(60),
    hold: Duration::from_secs(10),
};

/// What the engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Idle,
    Checking,
    Freezing,
    Thawing,
}

/// The world around a session: an engine, a driver with at most one open request, a clock.
struct World {
    session: Session,
    now: Instant,
    work: Work,
    frozen: bool,
    channel: bool,
    opening: bool,
    open_request: Option<Operation>,
    /// The freeze at work, or the hold, was asked for by a person; not by the host.
    manual: bool,
    exited: bool,
    /// A reload was asked for and not begun.
    reload_wanted: bool,
    /// The process was asked to end, at once or when nothing is under way.
    end_wanted: bool,
    log: Vec<String>,
}

/// What may befall the world; those that do not fit its state are skipped.
#[derive(Clone, Debug)]
enum Step {
    Request(u8),
    Malformed,
    ChannelLost,
    EngineDone(bool),
    Opened(bool),
    ReplyRefused(Box<Step>),
    Time(u64),
    Reload,
    Retire,
    ManualFreeze(u64),
    ManualEnd,
    ThawNow,
    Terminate,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(LIMITS, now),
            now,
            work: Work::Idle,
            frozen: false,
            channel: false,
            opening: false,
            open_request: None,
            manual: false,
            exited: false,
            reload_wanted: false,
            end_wanted: false,
            log: vec![],
        }
    }

    fn apply(&mut self, step: &Step, refuse: bool) {
        match step {
            Step::Request(operation) if self.channel => {
                self.open_request = Some(Operation(*operation));
                self.feed(Event::Request(Operation(*operation)), refuse);
            }
            Step::Malformed if self.channel => self.feed(Event::Malformed(4), refuse),
            Step::ChannelLost if self.channel => self.feed(Event::ChannelLost, refuse),
            Step::EngineDone(success) => self.engine_done(*success, refuse),
            Step::Opened(success) if self.opening => {
                self.opening = false;
                self.channel = *success;
                let event = if *success {
                    Event::Opened
                } else {
                    Event::OpenFailed
                };
                self.feed(event, refuse);
            }
            Step::ReplyRefused(step) => self.apply(step, true),
            Step::Time(seconds) => {
                self.now += Duration::from_secs(*seconds);
                self.feed(Event::Tick, refuse);
            }
            Step::Reload => {
                self.reload_wanted = true;
                self.feed(Event::Reload, refuse);
            }
            Step::Retire => {
                let before = self.session.state();
                self.end_wanted = true;
                self.feed(Event::Retire, refuse);
                let after = self.session.state();
                assert!(
                    after == before || after == State::Stopped,
                    "a checkpoint was disturbed"
                );
            }
            Step::ManualFreeze(seconds) => {
                let hold = Duration::from_secs(*seconds);
                self.feed(Event::ManualFreeze { hold }, refuse);
            }
            Step::ManualEnd => {
                self.feed(Event::ManualEnd, refuse);
                let state = self.session.state();
                assert!(
                    !matches!(state, State::ManualHeld { .. }),
                    "held although its person has gone"
                );
            }
            Step::ThawNow => {
                self.feed(Event::ThawNow, refuse);
                assert!(
                    !self.frozen || self.work == Work::Thawing,
                    "not thawed although a person wants it"
                );
            }
            Step::Terminate => {
                self.end_wanted = true;
                self.feed(Event::Terminate, refuse);
            }
            _ => {}
        }
    }

    fn engine_done(&mut self, success: bool, refuse: bool) {
        let event = match std::mem::replace(&mut self.work, Work::Idle) {
            Work::Idle => return,
            Work::Checking => Event::Checked { possible: success },
            // An aborted freeze may still succeed: the abort can come too late.
            Work::Freezing if success => {
                self.frozen = true;
                Event::Frozen { hold: LIMITS.hold }
            }
            Work::Freezing => Event::FreezeFailed,
            Work::Thawing => {
                self.frozen = false;
                Event::Thawed { clean: success }
            }
        };
        self.feed(event, refuse);
    }

    fn feed(&mut self, event: Event, refuse: bool) {
        self.log.push(format!("{event:?}"));
        let mut refused = false;
        for action in self.session.handle(event, self.now) {
            self.log.push(format!("    {action:?}"));
            match action {
                Action::StartCheck => self.start(Work::Checking),
                Action::StartFreeze => {
                    assert!(!self.frozen, "a freeze was started in a hold");
                    self.manual = false;
                    self.start(Work::Freezing);
                }
                Action::StartManualFreeze => {
                    assert!(matches!(event, Event::ManualFreeze { .. }));
                    assert_eq!(self.open_request, None, "the host is at work");
                    assert!(!self.frozen, "a manual freeze was started in a hold");
                    self.manual = true;
                    self.start(Work::Freezing);
                }
                Action::RefuseManual(busy) => {
                    assert!(matches!(event, Event::ManualFreeze { .. }));
                    assert!(!busy.to_string().is_empty());
                }
                Action::ManualHeld(hold) => {
                    assert!(self.frozen && self.manual, "told of a hold that is none");
                    assert!(hold <= LIMITS.hold);
                }
                Action::AbortFreeze => assert_eq!(self.work, Work::Freezing, "nothing to abort"),
                Action::StartReload => {
                    assert!(
                        !self.frozen && self.work == Work::Idle,
                        "a reload in a checkpoint"
                    );
                    assert!(self.reload_wanted, "a reload that nobody asked for");
                    self.reload_wanted = false;
                }
                Action::StartThaw => self.start(Work::Thawing),
                Action::Reply(operation, status) => {
                    self.replied(operation, status);
                    refused |= refuse;
                }
                Action::CloseChannel => {
                    self.channel = false;
                    self.open_request = None;
                }
                Action::OpenChannel => {
                    assert!(!self.channel && !self.opening, "a second channel");
                    self.opening = true;
                }
                Action::Note(note) => assert!(!note.to_string().is_empty()),
                Action::Exit => {
                    assert!(
                        !self.frozen && self.work == Work::Idle,
                        "an end while frozen"
                    );
                    assert!(self.end_wanted, "an end that nobody asked for");
                    self.exited = true;
                }
            }
        }
        if refused {
            self.feed(Event::ReplyFailed, false);
        }
        self.check_state();
    }

    fn replied(&mut self, operation: Operation, status: Status) {
        assert!(self.channel, "a reply without a channel");
        let asked = self.open_request.take();
        assert_eq!(asked, Some(operation), "a reply to what was not asked");
        if status == Status::Ok {
            match operation {
                Operation::FREEZE => {
                    assert!(self.frozen, "FREEZE: success, yet not frozen");
                    assert!(!self.manual, "FREEZE: success for what a person holds");
                }
                Operation::THAW => assert!(!self.frozen, "THAW: success, yet still frozen"),
                Operation::HOT_BACKUP => {}
                _ => unreachable!("success for {operation}"),
            }
        }
    }

    fn start(&mut self, work: Work) {
        assert_eq!(self.work, Work::Idle, "the engine is at work already");
        self.work = work;
    }

    /// The session's state and the world agree.
    fn check_state(&self) {
        match self.session.state() {
            State::Closed { .. } | State::Ready | State::Stopped => {
                assert!(!self.frozen, "frozen in {:?}", self.session.state());
                assert_eq!(self.work, Work::Idle);
                assert!(
                    !self.reload_wanted || self.exited,
                    "idle, and the reload was forgotten"
                );
            }
            State::Checking { .. } => assert_eq!(self.work, Work::Checking),
            State::Freezing { .. } => assert_eq!(self.work, Work::Freezing),
            State::Held { until } => {
                assert!(self.frozen && self.work == Work::Idle);
                assert!(until <= self.now + LIMITS.hold, "a hold without an end");
            }
            State::Thawing { .. } => assert_eq!(self.work, Work::Thawing),
            State::ManualFreezing { .. } => assert!(self.work == Work::Freezing && self.manual),
            State::ManualHeld { until, .. } => {
                assert!(self.frozen && self.work == Work::Idle && self.manual);
                assert!(until <= self.now + LIMITS.hold, "a hold without an end");
            }
            State::ManualThawing { .. } => assert!(self.work == Work::Thawing && self.manual),
        }
        if matches!(
            self.session.state(),
            State::ManualFreezing { .. } | State::ManualHeld { .. } | State::ManualThawing { .. }
        ) {
            assert_eq!(self.open_request, None, "the host waits for an answer");
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        4 => prop_oneof![Just(2_u8), Just(5), Just(6), any::<u8>()].prop_map(Step::Request),
        1 => Just(Step::Malformed),
        1 => Just(Step::ChannelLost),
        5 => prop::bool::weighted(0.8).prop_map(Step::EngineDone),
        2 => any::<bool>().prop_map(Step::Opened),
        2 => (0_u64..100).prop_map(Step::Time),
        2 => (0_u64..30).prop_map(Step::ManualFreeze),
        1 => Just(Step::ManualEnd),
        1 => Just(Step::ThawNow),
    ];
    prop_oneof![
        30 => leaf.clone(),
        3 => leaf.prop_map(|step| Step::ReplyRefused(Box::new(step))),
        2 => Just(Step::Reload),
        1 => Just(Step::Retire),
        1 => Just(Step::Terminate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_stays_frozen(
        steps in prop::collection::vec(step(), 0..60),
        terminate in any::<bool>(),
    ) {
        let mut world = World::new();
        world.apply(&Step::Time(1), false);
        world.apply(&Step::Opened(true), false);
        for step in &steps {
            world.apply(step, false);
        }
        // The host goes silent; only the engine's own work and the clock go on.
        if terminate {
            world.apply(&Step::Terminate, false);
        }
        for _ in 0..4 {
            world.apply(&Step::EngineDone(true), false);
            world.apply(&Step::Time(3600), false);
        }
        prop_assert!(!world.frozen, "still frozen:\n{}", world.log.join("\n"));
        // Who waited for the end of a checkpoint has seen it by now.
        if world.end_wanted {
            prop_assert!(world.exited, "did not end:\n{}", world.log.join("\n"));
        } else if !world.exited {
            // And the next backup works.
            world.apply(&Step::Opened(true), false);
            prop_assert_eq!(world.session.state(), State::Ready);
        }
    }
}
