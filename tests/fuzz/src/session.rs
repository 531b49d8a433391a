//! The session against a model of engine and host: whatever comes in whatever order, nothing stays frozen, every
//! request is answered once, and success is only ever said of what is true.

use std::time::{Duration, Instant};

use hv_vssd::agent::session::{Action, Event, Limits, Session, State};
use hvutil_sys::vss::{Operation, Status};

/// What the engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Idle,
    Checking,
    Freezing,
    Frozen,
    Thawing,
}

struct Model {
    session: Session,
    now: Instant,
    engine: Engine,
    /// The channel is open.
    open: bool,
    /// The session wants the channel opened.
    opening: bool,
    /// What the host waits for.
    asked: Option<Operation>,
    /// The engine has just said so.
    just: Option<Event>,
    stopped: bool,
}

/// One byte an event; what cannot happen now is left out.
pub fn session(input: &[u8]) {
    let now = Instant::now();
    let limits = Limits {
        freeze_request: Duration::from_secs(360),
        hold: Duration::from_secs(120),
    };
    let mut model = Model {
        session: Session::new(limits, now),
        now,
        engine: Engine::Idle,
        open: true,
        opening: false,
        asked: None,
        just: None,
        stopped: false,
    };
    model.feed(Event::Opened);
    for byte in input {
        model.step(*byte);
        if model.stopped {
            break;
        }
    }
    model.end();
}

impl Model {
    fn step(&mut self, byte: u8) {
        let (kind, detail) = (byte % 14, byte / 14);
        match kind {
            0 if self.opening => {
                self.opening = false;
                self.open = detail % 4 != 0;
                self.feed(if self.open {
                    Event::Opened
                } else {
                    Event::OpenFailed
                });
            }
            // The driver hands on one request at a time; but what it does is not ours to trust.
            1 | 2 if self.open && (self.asked.is_none() || detail == 17) => {
                let operation = match detail {
                    0..=4 => Operation::HOT_BACKUP,
                    5..=10 => Operation::FREEZE,
                    11..=15 => Operation::THAW,
                    other => Operation(other),
                };
                self.asked = Some(operation);
                self.feed(Event::Request(operation));
            }
            3..=6 => self.engine_returns(detail),
            7 if self.open => {
                self.feed(if detail % 2 == 0 {
                    Event::ChannelLost
                } else {
                    Event::ReplyFailed
                });
            }
            8 if self.open => self.feed(Event::Malformed(usize::from(detail))),
            9 if detail == 0 => self.feed(Event::Terminate),
            9 if detail % 3 == 1 => self.feed(Event::Reload),
            9 if detail % 3 == 2 => self.feed(Event::Retire),
            10 => {
                let hold = Duration::from_secs(u64::from(detail) * 10);
                self.feed(Event::ManualFreeze { hold });
            }
            11 if detail % 3 == 0 => self.feed(Event::ManualEnd),
            11 if detail % 3 == 1 => self.feed(Event::ThawNow),
            _ => {
                self.now += Duration::from_secs(u64::from(detail) * u64::from(detail));
                self.feed(Event::Tick);
            }
        }
    }

    fn engine_returns(&mut self, detail: u8) {
        let (engine, event) = match self.engine {
            Engine::Checking => (
                Engine::Idle,
                Event::Checked {
                    possible: detail % 3 != 0,
                },
            ),
            Engine::Freezing if detail % 3 == 0 => (Engine::Idle, Event::FreezeFailed),
            Engine::Freezing => {
                // Often less than the hold limit, sometimes more.
                let hold = Duration::from_secs(1 + u64::from(detail) * 10);
                (Engine::Frozen, Event::Frozen { hold })
            }
            Engine::Thawing => (
                Engine::Idle,
                Event::Thawed {
                    clean: detail % 3 != 0,
                },
            ),
            Engine::Idle | Engine::Frozen => return,
        };
        self.engine = engine;
        self.feed(event);
    }

    fn feed(&mut self, event: Event) {
        self.just = Some(event);
        let actions = self.session.handle(event, self.now);
        for action in actions {
            self.perform(action);
        }
        self.check();
    }

    fn perform(&mut self, action: Action) {
        assert!(!self.stopped, "{action:?} after the end");
        match action {
            Action::StartCheck => self.start(Engine::Idle, Engine::Checking),
            Action::StartFreeze | Action::StartManualFreeze => {
                self.start(Engine::Idle, Engine::Freezing)
            }
            Action::ManualHeld(_) => {
                assert_eq!(self.engine, Engine::Frozen);
                assert!(matches!(self.just, Some(Event::Frozen { .. })));
            }
            Action::RefuseManual(busy) => assert!(!busy.to_string().is_empty()),
            Action::StartReload => assert_eq!(self.engine, Engine::Idle),
            Action::StartThaw => self.start(Engine::Frozen, Engine::Thawing),
            Action::AbortFreeze => assert_eq!(self.engine, Engine::Freezing),
            Action::Reply(operation, status) => self.reply(operation, status),
            Action::CloseChannel => {
                self.open = false;
                self.asked = None;
            }
            Action::OpenChannel => {
                assert!(!self.open && !self.opening);
                self.opening = true;
            }
            Action::Exit => {
                assert_eq!(self.engine, Engine::Idle, "ended with the engine at work");
                self.stopped = true;
            }
            Action::Note(note) => assert!(!note.to_string().is_empty()),
        }
    }

    fn start(&mut self, from: Engine, to: Engine) {
        assert_eq!(self.engine, from, "{to:?} was started then");
        self.engine = to;
    }

    fn reply(&mut self, operation: Operation, status: Status) {
        assert!(self.open, "a reply without a channel");
        assert_eq!(
            self.asked.take(),
            Some(operation),
            "answered what was not asked"
        );
        if status == Status::Ok {
            let truth = match operation {
                Operation::HOT_BACKUP => Some(Event::Checked { possible: true }),
                Operation::FREEZE => self
                    .just
                    .filter(|just| matches!(just, Event::Frozen { .. })),
                Operation::THAW => Some(Event::Thawed { clean: true }),
                _ => None,
            };
            assert!(truth.is_some(), "success for {operation}");
            assert_eq!(self.just, truth, "success for {operation} was a lie");
        }
    }

    fn check(&self) {
        match self.session.state() {
            State::Held { until } => {
                assert_eq!(self.engine, Engine::Frozen);
                assert!(until > self.now && self.open);
            }
            State::ManualHeld { until, .. } => {
                assert_eq!(self.engine, Engine::Frozen);
                assert!(until >= self.now, "a manual hold beyond its time");
            }
            State::ManualFreezing { .. } => assert_eq!(self.engine, Engine::Freezing),
            State::ManualThawing { .. } => assert_eq!(self.engine, Engine::Thawing),
            State::Closed { .. } | State::Ready | State::Stopped => {
                assert_eq!(self.engine, Engine::Idle)
            }
            State::Checking { .. } => assert_eq!(self.engine, Engine::Checking),
            State::Freezing { .. } => assert_eq!(self.engine, Engine::Freezing),
            State::Thawing { .. } => assert_eq!(self.engine, Engine::Thawing),
        }
        if self.session.state() == State::Ready {
            assert_eq!(self.asked, None, "ready, and the host still waits");
        }
    }

    /// Asked to end, it does, once the engine has returned as often as it is at work.
    fn end(&mut self) {
        if !self.stopped {
            self.feed(Event::Terminate);
        }
        for _ in 0..3 {
            if !self.stopped {
                self.engine_returns(1);
            }
        }
        assert!(self.stopped, "still {:?}", self.session.state());
    }
}
