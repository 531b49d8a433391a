//! The parties of today: agent, freezer, guardian with its children, and the next start. Each carries out the parts of `protocol.rs`
//! with what it knows of the others, as `slot.rs`, `freezer.rs`, `rescue.rs` and `recovery.rs` do.

use hv_vssd::quiesce::protocol::{
    By, End, FreezePart, GiveUpPart, Known, Mark, Needs, Part, RescuePart, Seen, Step, ThawPart,
};

use super::kernel::{Advance, Run, Shared, Super};
use super::search::{Label, Model, Move, What};

/// What may happen, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// SIGKILL, and SIGSTOP of the agent, all together.
    pub(crate) kills: u8,
    /// Freezes of someone else.
    pub(crate) foreign: u8,
    pub(crate) thaw_failures: u8,
    /// The next start takes everybody for dead: to see that the search finds what comes of that.
    pub(crate) hasty_start: bool,
}

/// Any of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AnyPart {
    Freeze(FreezePart),
    Thaw(ThawPart),
    GiveUp(GiveUpPart),
    Rescue(RescuePart),
}

impl Part for AnyPart {
    fn next(&mut self, seen: Seen) -> Step {
        match self {
            Self::Freeze(part) => part.next(seen),
            Self::Thaw(part) => part.next(seen),
            Self::GiveUp(part) => part.next(seen),
            Self::Rescue(part) => part.next(seen),
        }
    }
}

type Doing = Run<AnyPart>;

fn rescue(by: By, known: Known) -> Doing {
    Run::new(AnyPart::Rescue(RescuePart::new(by, known)))
}

/// `None` once it has ended.
fn unless_ended(doing: Doing) -> Option<Doing> {
    doing.end().is_none().then_some(doing)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    Alive,
    /// The agent only: it ends, with its engine closed, and threads that still work.
    Leaving,
    /// It ends once its call has returned.
    Killed,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    Freeze,
    Thaw,
}

/// What the agent is told of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Done,
    Busy,
    Not,
}

/// How far the checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Start,
    Freezing,
    Frozen,
    /// The host was told that it is frozen.
    Told,
    /// The host has asked for the thaw.
    Thawing,
    /// Failed, or thawed: what is still frozen is thawed.
    Over,
    /// Guardian, ledger and freezer were let go.
    Settled,
}

/// The agent's thread that works on the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Thread {
    Idle,
    Waits(Call),
    /// The freezer has died.
    Own(Doing, Call),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Agent {
    life: Life,
    stopped: bool,
    stage: Stage,
    thread: Thread,
    giving_up: Option<Doing>,
    abandoned: bool,
    frozen: bool,
    /// It was thawed after the host was told success, before the host asked.
    broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    Serves,
    Asked(Doing),
    Outlives,
    Rescues(Doing),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Freezer {
    life: Life,
    work: Work,
    has_frozen: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Guardian {
    life: Life,
    armed: bool,
    limit_passed: bool,
    /// It acts for the agent's death.
    learned: bool,
    has_acted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Child {
    life: Life,
    doing: Doing,
}

/// All of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    shared: Shared,
    kills: u8,
    /// The freezer's, which the agent has not read.
    answer: Option<Answer>,
    agent: Agent,
    freezer: Freezer,
    guardian: Guardian,
    /// The guardian's.
    child: Option<Child>,
    start: Option<Doing>,
    /// The freezer, or a child of the guardian's, was killed.
    maimed: bool,
}

impl Model for Bounds {
    type State = State;

    fn start(&self) -> State {
        State {
            shared: Shared {
                sb: Super::Unfrozen,
                mark: Mark::Planned,
                thaw_failures: self.thaw_failures,
                foreign: self.foreign,
                unnoted: false,
            },
            kills: self.kills,
            answer: None,
            agent: Agent {
                life: Life::Alive,
                stopped: false,
                stage: Stage::Start,
                thread: Thread::Idle,
                giving_up: None,
                abandoned: false,
                frozen: false,
                broken: false,
            },
            freezer: Freezer {
                life: Life::Alive,
                work: Work::Serves,
                has_frozen: false,
            },
            guardian: Guardian {
                life: Life::Alive,
                armed: true,
                limit_passed: false,
                learned: false,
                has_acted: false,
            },
            child: None,
            start: None,
            maimed: false,
        }
    }

    fn moves(&self, state: &State, moves: &mut Vec<Move<State>>) {
        let mut all = All {
            bounds: self,
            state,
            moves,
        };
        all.agent();
        all.freezer();
        all.guardian();
        all.child();
        all.next_start();
        for (text, shared, fair) in state.shared.foreign_moves() {
            let to = State { shared, ..*state };
            all.push("other", What::Text(text), to, fair);
        }
    }

    fn is_settled(&self, state: &State) -> bool {
        let in_call = match state.agent.thread {
            Thread::Own(doing, _) => doing.is_in_call(),
            Thread::Idle | Thread::Waits(_) => false,
        };
        let is_idle = match state.agent {
            agent if agent.life == Life::Gone => true,
            agent if agent.stopped => !in_call,
            agent => agent.thread == Thread::Idle && agent.giving_up.is_none(),
        };
        let serves = matches!(state.freezer.work, Work::Serves | Work::Outlives);
        !state.shared.is_ours()
            && !state.shared.mark.wants_thaw()
            && is_idle
            && (serves || state.freezer.life == Life::Gone)
            && state.child.is_none()
            && state.start.is_none()
    }
}

struct All<'a> {
    bounds: &'a Bounds,
    state: &'a State,
    moves: &'a mut Vec<Move<State>>,
}

impl All<'_> {
    fn push(&mut self, who: &'static str, what: What, to: State, fair: bool) {
        self.push_checked(who, what, to, fair, None);
    }

    fn push_checked(
        &mut self,
        who: &'static str,
        what: What,
        mut to: State,
        fair: bool,
        broken: Option<&'static str>,
    ) {
        if to.agent.stage == Stage::Told && to.shared.sb != Super::Ours {
            to.agent.broken = true;
        }
        let failed = to.shared.thaw_failures < self.bounds.thaw_failures;
        let left = to.is_alone() && to.shared.is_ours() && to.start.is_none();
        let broken = broken.or((left && !to.maimed && !failed).then_some(LEFT));
        self.moves.push(Move {
            label: Label { who, what },
            to,
            fair,
            broken,
        });
    }

    /// The next steps of a part; `put` puts it back where it is.
    fn advance(&mut self, who: &'static str, doing: &Doing, put: impl Fn(&mut State, Doing)) {
        let mut next: Vec<Advance<AnyPart>> = Vec::new();
        doing.advance(&self.state.shared, &mut next);
        for Advance {
            what,
            run,
            shared,
            fair,
            took_theirs,
        } in next
        {
            let mut to = *self.state;
            to.shared = shared;
            put(&mut to, run);
            let broken = took_theirs.then_some(TOOK_THEIRS);
            self.push_checked(who, what, to, fair, broken);
        }
    }

    fn kill(&mut self, who: &'static str, end: impl Fn(&mut State)) {
        if self.state.kills > 0 {
            let mut to = *self.state;
            to.kills -= 1;
            end(&mut to);
            self.push(who, What::Text("is killed"), to, false);
        }
    }

    fn to(&mut self, who: &'static str, text: &'static str, change: impl Fn(&mut State)) {
        let mut to = *self.state;
        change(&mut to);
        self.push(who, What::Text(text), to, true);
    }

    fn chance(&mut self, who: &'static str, text: &'static str, change: impl Fn(&mut State)) {
        let mut to = *self.state;
        change(&mut to);
        self.push(who, What::Text(text), to, false);
    }

    fn agent(&mut self) {
        const WHO: &str = "agent";
        let agent = self.state.agent;
        match agent.life {
            Life::Gone => return,
            Life::Killed => {
                if let Thread::Own(doing, _) = agent.thread {
                    self.advance(WHO, &doing, State::end_agent_with);
                }
                return;
            }
            Life::Alive | Life::Leaving => {}
        }
        self.kill(WHO, State::end_agent);
        if agent.stopped {
            // A call that is made returns all the same.
            match agent.thread {
                Thread::Own(doing, call) if doing.is_in_call() => {
                    self.advance(WHO, &doing, |to, doing| {
                        to.agent.thread = Thread::Own(doing, call);
                    });
                }
                _ => {}
            }
            // Nobody could act for it without a guardian, or once it has the mark for a call of its own.
            let mut to = *self.state;
            to.agent.stopped = false;
            let alone = self.state.guardian.life == Life::Gone
                || self.state.shared.mark == Mark::Thawing(By::Agent);
            self.push(WHO, What::Text("is continued"), to, alone);
            return;
        }
        self.kill_or_stop();
        if agent.life == Life::Alive {
            if self.state.kills > 0 {
                self.chance(WHO, "begins to end", |to| {
                    to.kills -= 1;
                    to.agent.life = Life::Leaving;
                });
            }
        } else {
            self.to(WHO, "ends", State::end_agent);
        }
        if self.state.needs_restart() {
            self.to(WHO, "is restarted", State::end_agent);
        }
        self.agent_thread();
        match agent.giving_up {
            Some(doing) => self.advance(WHO, &doing, |to, doing| {
                to.agent.giving_up = unless_ended(doing);
            }),
            None => self.agent_stage(),
        }
    }

    fn kill_or_stop(&mut self) {
        if self.state.kills > 0 {
            self.chance("agent", "is stopped", |to| {
                to.kills -= 1;
                to.agent.stopped = true;
            });
        }
    }

    fn agent_stage(&mut self) {
        const WHO: &str = "agent";
        let agent = self.state.agent;
        match agent.stage {
            Stage::Start => self.to(WHO, "wants it frozen", |to| {
                to.agent.stage = Stage::Freezing;
                to.ask(Call::Freeze);
            }),
            Stage::Freezing => self.chance(WHO, "gives up", |to| {
                to.agent.stage = Stage::Over;
                to.agent.abandoned = true;
                to.agent.giving_up = Some(Run::new(AnyPart::GiveUp(GiveUpPart)));
            }),
            Stage::Frozen => {
                self.chance(WHO, "fails elsewhere", |to| to.agent.stage = Stage::Over);
                if self.state.shared.mark == Mark::Frozen {
                    let mut to = *self.state;
                    to.agent.stage = Stage::Told;
                    let lie = (self.state.shared.sb != Super::Ours).then_some(LIED);
                    self.push_checked(WHO, What::Text("FREEZE: success"), to, true, lie);
                } else {
                    self.to(WHO, "FREEZE: failure", |to| to.agent.stage = Stage::Over);
                }
            }
            Stage::Told => self.to(WHO, "is asked to thaw", |to| {
                to.agent.stage = Stage::Thawing;
                to.ask(Call::Thaw);
            }),
            Stage::Over if agent.thread == Thread::Idle && agent.frozen => {
                self.to(WHO, "thaws (again)", |to| to.ask(Call::Thaw));
            }
            Stage::Over if agent.thread == Thread::Idle => self.to(WHO, "settles", |to| {
                to.agent.stage = Stage::Settled;
            }),
            Stage::Thawing | Stage::Over | Stage::Settled => {}
        }
    }

    fn agent_thread(&mut self) {
        const WHO: &str = "agent";
        let agent = self.state.agent;
        match agent.thread {
            Thread::Idle => {}
            Thread::Waits(call) => match self.state.answer {
                Some(answer) => {
                    if agent.giving_up.is_none() {
                        self.returned(call, answer);
                    }
                    if answer == Answer::Busy && !agent.abandoned {
                        self.to(WHO, "asks to freeze again", |to| to.ask(Call::Freeze));
                    }
                }
                None if self.state.freezer.life == Life::Gone => {
                    self.to(WHO, "sees the freezer dead", |to| to.act_for_freezer(call));
                }
                None => {}
            },
            Thread::Own(doing, call) => match doing.end() {
                Some(_) if agent.giving_up.is_some() => {}
                Some(end) => {
                    let answer = match call {
                        // The checkpoint fails, however this went.
                        Call::Freeze => Answer::Not,
                        Call::Thaw => answer(end, false),
                    };
                    self.returned(call, answer);
                }
                None => self.advance(WHO, &doing, |to, doing| {
                    to.agent.thread = Thread::Own(doing, call);
                }),
            },
        }
    }

    fn returned(&mut self, call: Call, answer: Answer) {
        let what = match (self.state.agent.stage, answer) {
            (Stage::Thawing, Answer::Done) => "THAW: success",
            (Stage::Thawing, _) => "THAW: failure",
            _ => "is told how it went",
        };
        let mut to = *self.state;
        let lie = to.returned(call, answer).then_some(LIED_OF_HOLD);
        self.push_checked("agent", What::Text(what), to, true, lie);
    }

    fn freezer(&mut self) {
        const WHO: &str = "freezer";
        let freezer = self.state.freezer;
        if freezer.life == Life::Gone {
            return;
        }
        let is_closed = self.state.is_socket_closed();
        if let (Life::Killed, Work::Asked(doing) | Work::Rescues(doing)) =
            (freezer.life, freezer.work)
        {
            self.advance(WHO, &doing, |to, doing| {
                to.freezer.work = Work::Asked(doing);
                to.end_freezer();
            });
            return;
        }
        self.kill(WHO, |to| {
            to.maimed = true;
            to.end_freezer();
        });
        match freezer.work {
            Work::Serves if is_closed => {
                self.to(WHO, "sees the socket closed", State::outlive);
            }
            Work::Serves => {}
            Work::Asked(doing) => match doing.end() {
                Some(end) => self.to(WHO, "answers", |to| {
                    to.freezer.has_frozen |= end == End::Frozen;
                    to.freezer.work = Work::Serves;
                    if is_closed {
                        to.outlive();
                    } else {
                        to.answer = Some(answer(end, doing.busy));
                    }
                }),
                None => self.advance(WHO, &doing, |to, doing| {
                    to.freezer.work = Work::Asked(doing);
                }),
            },
            Work::Outlives if !self.state.shared.mark.wants_thaw() => {
                self.to(WHO, "ends", State::end_freezer);
            }
            Work::Outlives if self.state.guardian.life == Life::Gone => {
                self.to(WHO, "sees the guardian dead", |to| {
                    to.freezer.work = Work::Rescues(rescue(By::Freezer, FREEZER_KNOWS));
                });
            }
            Work::Outlives => {}
            Work::Rescues(doing) if doing.end().is_some() => {
                self.to(WHO, "ends", State::end_freezer);
            }
            Work::Rescues(doing) => self.advance(WHO, &doing, |to, doing| {
                to.freezer.work = Work::Rescues(doing);
            }),
        }
    }

    fn guardian(&mut self) {
        const WHO: &str = "guardian";
        let guardian = self.state.guardian;
        if guardian.life == Life::Gone {
            return;
        }
        self.kill(WHO, State::end_guardian);
        let mark = self.state.shared.mark;
        let wants_thaw = mark.wants_thaw() && mark != Mark::Thawing(By::Start);
        if guardian.learned {
            if !guardian.has_acted || wants_thaw {
                self.to(WHO, "acts: the agent died", |to| to.act(Cause::AgentDied));
            } else {
                self.to(WHO, "ends", State::end_guardian);
            }
            return;
        }
        if self.state.agent.life != Life::Alive {
            self.to(WHO, "sees the agent dead", |to| {
                to.guardian.learned = true;
                if !to.guardian.armed {
                    to.end_guardian();
                }
            });
        }
        if !guardian.armed {
            return;
        }
        if self.state.agent.stage == Stage::Settled {
            self.to(WHO, "is disarmed", |to| to.guardian.armed = false);
        }
        let cause = if guardian.limit_passed {
            Cause::StillNotThawed
        } else {
            Cause::LimitPassed
        };
        let text = match cause {
            Cause::StillNotThawed => "acts: still not thawed",
            _ => "acts: its limit passed",
        };
        self.to(WHO, text, |to| {
            to.guardian.limit_passed = true;
            to.act(cause);
        });
    }

    fn child(&mut self) {
        const WHO: &str = "child";
        let Some(child) = self.state.child else {
            return;
        };
        self.advance(WHO, &child.doing, |to, doing| {
            to.child = unless_ended(doing).map(|doing| Child { doing, ..child });
            if child.life == Life::Killed {
                to.end_child();
            }
        });
        if child.life == Life::Alive {
            self.kill(WHO, |to| {
                to.maimed = true;
                to.end_child();
            });
        }
    }

    fn next_start(&mut self) {
        const WHO: &str = "start";
        if let Some(doing) = self.state.start {
            self.advance(WHO, &doing, |to, doing| to.start = unless_ended(doing));
            return;
        }
        if self.state.agent.life != Life::Gone || self.state.shared.mark == Mark::Thawed {
            return;
        }
        let alone = self.state.is_alone();
        let may_live = !alone && !self.bounds.hasty_start;
        let known = Known {
            freezer: may_live,
            guardian: may_live,
            agent: false,
            start: false,
            failed_too: true,
        };
        let text = if alone {
            "begins, alone"
        } else {
            "begins, not alone"
        };
        let mut to = *self.state;
        to.start = Some(rescue(By::Start, known));
        self.push(WHO, What::Text(text), to, alone);
    }
}

pub(crate) const TOOK_THEIRS: &str = "what someone else had frozen was thawed";
const LEFT: &str = "the last one ended without need, and left it frozen";
const LIED: &str = "success was told of what is not frozen";
const LIED_OF_HOLD: &str = "success was told of a hold that had ended early";

/// `Slot::rescue`
const AGENT_KNOWS: Known = Known {
    freezer: false,
    agent: false,
    guardian: true,
    start: true,
    failed_too: true,
};

/// `outlive` in `freezer.rs`
const FREEZER_KNOWS: Known = Known {
    freezer: false,
    agent: true,
    guardian: true,
    start: true,
    failed_too: true,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    AgentDied,
    LimitPassed,
    StillNotThawed,
}

/// `outcome` in `freezer.rs`
fn answer(end: End, busy: bool) -> Answer {
    match end {
        End::Frozen | End::Thawed => Answer::Done,
        End::NotFrozen if busy => Answer::Busy,
        _ => Answer::Not,
    }
}

impl State {
    fn ask(&mut self, call: Call) {
        self.answer = None;
        if self.freezer.life == Life::Gone {
            self.act_for_freezer(call);
            return;
        }
        self.agent.thread = Thread::Waits(call);
        // Before its first swap it is as if it had not read the request.
        self.freezer.work = Work::Asked(Run::new(match call {
            Call::Freeze => AnyPart::Freeze(FreezePart::default()),
            Call::Thaw => AnyPart::Thaw(ThawPart::new(By::Freezer)),
        }));
    }

    /// As `Slot::call` once the freezer has died.
    fn act_for_freezer(&mut self, call: Call) {
        let doing = if call == Call::Thaw && !self.shared.mark.is_in_call() {
            Run::new(AnyPart::Thaw(ThawPart::new(By::Agent)))
        } else {
            rescue(By::Agent, AGENT_KNOWS)
        };
        self.agent.thread = Thread::Own(doing, call);
    }

    /// As `Slot::run` after the call. Whether the host is told of a hold that it did not have.
    fn returned(&mut self, call: Call, answer: Answer) -> bool {
        self.answer = None;
        self.agent.thread = Thread::Idle;
        match call {
            Call::Freeze => {
                self.agent.frozen = answer == Answer::Done || self.shared.mark.wants_thaw();
                if self.agent.stage == Stage::Freezing {
                    self.agent.stage = match answer {
                        Answer::Done => Stage::Frozen,
                        _ => Stage::Over,
                    };
                }
                if self.agent.frozen && self.agent.abandoned {
                    self.ask(Call::Thaw);
                }
                false
            }
            Call::Thaw => {
                self.agent.frozen = self.shared.mark != Mark::Thawed;
                let told = self.agent.stage == Stage::Thawing && answer == Answer::Done;
                self.agent.stage = Stage::Over;
                told && self.agent.broken
            }
        }
    }

    /// A child of the guardian's was killed before it made its call, and the guardian too: the agent cannot tell that from a call that
    /// does not return. The next start can.
    fn needs_restart(&self) -> bool {
        self.shared.mark == Mark::Thawing(By::Guardian)
            && self.child.is_none()
            && self.guardian.life == Life::Gone
    }

    /// None of the processes lives.
    fn is_alone(&self) -> bool {
        self.agent.life == Life::Gone
            && self.freezer.life == Life::Gone
            && self.guardian.life == Life::Gone
            && self.child.is_none()
    }

    fn is_socket_closed(&self) -> bool {
        self.agent.life == Life::Gone || self.agent.stage == Stage::Settled
    }

    fn end_agent(&mut self) {
        let doing = match self.agent.thread {
            Thread::Own(doing, _) => Some(doing),
            _ => None,
        };
        if doing.is_some_and(|doing| doing.is_in_call()) {
            self.agent.life = Life::Killed;
            return;
        }
        self.shared.unnoted |= doing.is_some_and(|doing| doing.is_unnoted());
        self.agent = Agent {
            life: Life::Gone,
            stopped: false,
            // Nobody asks for these any more.
            stage: Stage::Over,
            thread: Thread::Idle,
            giving_up: None,
            abandoned: false,
            frozen: false,
            broken: false,
        };
        self.answer = None;
    }

    fn end_agent_with(&mut self, doing: Doing) {
        self.agent.thread = Thread::Own(doing, Call::Thaw);
        self.end_agent();
    }

    fn end_freezer(&mut self) {
        if let Work::Asked(doing) | Work::Rescues(doing) = self.freezer.work {
            if doing.is_in_call() {
                self.freezer.life = Life::Killed;
                return;
            }
            self.shared.unnoted |= doing.is_unnoted();
        }
        self.freezer = Freezer {
            life: Life::Gone,
            work: Work::Serves,
            has_frozen: false,
        };
    }

    /// As at the end of `serve` in `freezer.rs`.
    fn outlive(&mut self) {
        self.freezer.work = Work::Outlives;
        if !self.freezer.has_frozen {
            self.end_freezer();
        }
    }

    fn end_guardian(&mut self) {
        self.guardian = Guardian {
            life: Life::Gone,
            armed: false,
            limit_passed: false,
            learned: false,
            has_acted: false,
        };
    }

    fn end_child(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        if child.doing.is_in_call() {
            child.life = Life::Killed;
            return;
        }
        self.shared.unnoted |= child.doing.is_unnoted();
        self.child = None;
    }

    /// `Watch::thaw` in `rescue.rs`
    fn act(&mut self, cause: Cause) {
        self.guardian.has_acted = true;
        let known = Known {
            freezer: self.freezer.life != Life::Gone,
            agent: self.agent.life != Life::Gone,
            guardian: self.child.is_some(),
            start: true,
            failed_too: cause != Cause::LimitPassed,
        };
        if known.guardian {
            return;
        }
        let found = self.shared.mark;
        match known.needs(found) {
            Needs::Nothing => {}
            Needs::Mark(to) => self.shared.mark = to,
            Needs::Call => {
                let (life, doing) = (Life::Alive, rescue(By::Guardian, known));
                self.child = Some(Child { life, doing });
            }
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shared)
    }
}
