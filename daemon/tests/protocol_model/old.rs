//! The rules of before: a thread of the agent's called `FIFREEZE`, and stored its mark whatever that was; the guardian tried `FITHAW`
//! on what was marked `?` until the agent's socket was closed. The search has to find what was wrong with them.

use hv_vssd::quiesce::protocol::{By, Called, End, Mark, Part, Seen, Step};

use super::kernel::{Advance, Run, Shared, Super};
use super::parties::TOOK_THEIRS;
use super::search::{Label, Model, Move, What};

/// There was one mark for all of them.
const THAWING: Mark = Mark::Thawing(By::Agent);

/// What may happen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Old {
    pub(crate) kills: u8,
    pub(crate) foreign: u8,
    /// The guardian's limit passes.
    pub(crate) limit: bool,
    /// The agent closes its socket while a thread of it is in a call.
    pub(crate) closes: bool,
    /// Taking what others have frozen is looked at too, when it comes of trying again.
    pub(crate) minds_foreign: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum OldPart {
    Freeze,
    FreezeReturned(End),
    Thaw,
    ThawReturned(End),
    /// A child's, with the mark that it found, until the socket is closed.
    Retry {
        closed: bool,
        /// It has found it unfrozen.
        again: bool,
    },
    RetryEnds,
}

impl Part for OldPart {
    fn next(&mut self, seen: Seen) -> Step {
        let (at, step) = match (*self, seen) {
            (Self::Freeze, Seen::Begin) => (*self, Step::Swap(Mark::Planned, Mark::Freezing)),
            (Self::Freeze, Seen::Swapped(Ok(()))) => (*self, Step::Freeze),
            (Self::Freeze, Seen::Swapped(Err(_))) => (*self, Step::End(End::Withdrawn)),
            (Self::Freeze, Seen::Called(Called::Done)) => (
                Self::FreezeReturned(End::Frozen),
                Step::Swap(Mark::Freezing, Mark::Frozen),
            ),
            (Self::Freeze, Seen::Called(_)) => (
                Self::FreezeReturned(End::NotFrozen),
                Step::Swap(Mark::Freezing, Mark::NotOurs),
            ),
            (Self::FreezeReturned(end), Seen::Swapped(Ok(()))) => (*self, Step::End(end)),
            // Thawed meanwhile, for all that the mark tells.
            (Self::FreezeReturned(_), _) => (*self, Step::End(End::Withdrawn)),
            (Self::Thaw, Seen::Begin) => (*self, Step::Swap(Mark::Frozen, THAWING)),
            (Self::Thaw, Seen::Swapped(Err(Mark::Thawed))) => (*self, Step::End(End::Taken)),
            (Self::Thaw, Seen::Swapped(_)) => (*self, Step::Thaw),
            (Self::Thaw, Seen::Called(_)) => (
                Self::ThawReturned(End::Thawed),
                Step::Swap(THAWING, Mark::Thawed),
            ),
            (Self::ThawReturned(end), _) => (*self, Step::End(end)),
            (Self::Retry { .. }, Seen::Swapped(Ok(()))) => (*self, Step::Thaw),
            (Self::Retry { closed: false, .. }, Seen::Called(Called::NotFrozen)) => (
                Self::Retry {
                    closed: false,
                    again: true,
                },
                Step::Swap(Mark::Freezing, Mark::Freezing),
            ),
            (Self::Retry { .. }, Seen::Called(_)) => {
                (Self::RetryEnds, Step::Swap(Mark::Freezing, Mark::Thawed))
            }
            (Self::Retry { .. }, Seen::Begin) => {
                (*self, Step::Swap(Mark::Freezing, Mark::Freezing))
            }
            (Self::Retry { .. } | Self::RetryEnds, Seen::Swapped(_)) => {
                (*self, Step::End(End::Withdrawn))
            }
            (Self::RetryEnds, _) => (*self, Step::End(End::Thawed)),
        };
        *self = at;
        step
    }
}

type Doing = Run<OldPart>;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Life {
    Alive,
    /// It ends once its call has returned.
    Killed,
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    shared: Shared,
    kills: u8,
    agent: Life,
    has_begun: bool,
    /// The agent's; its guardian cannot tell that from the agent's end.
    closed: bool,
    thread: Option<Doing>,
    limit_passed: bool,
    child: Option<Doing>,
}

impl Model for Old {
    type State = State;

    fn start(&self) -> State {
        State {
            shared: Shared {
                sb: Super::Unfrozen,
                mark: Mark::Planned,
                thaw_failures: 0,
                foreign: self.foreign,
                unnoted: false,
            },
            kills: self.kills,
            agent: Life::Alive,
            has_begun: false,
            closed: false,
            thread: None,
            limit_passed: false,
            child: None,
        }
    }

    fn moves(&self, state: &State, moves: &mut Vec<Move<State>>) {
        let mut push = |who, what, to: State, fair, broken| {
            let label = Label { who, what };
            moves.push(Move {
                label,
                to,
                fair,
                broken,
            });
        };
        for (text, shared, fair) in state.shared.foreign_moves() {
            let to = State { shared, ..*state };
            push("other", What::Text(text), to, fair, None);
        }
        let mut steps: Vec<Advance<OldPart>> = Vec::new();
        if let Some(doing) = state.thread {
            doing.advance(&state.shared, &mut steps);
        }
        for step in steps.drain(..) {
            let mut to = *state;
            to.shared = step.shared;
            to.thread = Some(step.run);
            to.thread_goes_on();
            push("agent", step.what, to, step.fair, None);
        }
        if let Some(mut doing) = state.child {
            let mut retries = false;
            if let OldPart::Retry { closed, again } = &mut doing.part {
                retries = *again;
                // Looked at before each call.
                *closed |= state.closed;
            }
            doing.advance(&state.shared, &mut steps);
            for step in steps {
                let mut to = *state;
                to.shared = step.shared;
                to.child = step.run.end().is_none().then_some(step.run);
                let took = step.took_theirs && retries && self.minds_foreign;
                push(
                    "child",
                    step.what,
                    to,
                    step.fair,
                    took.then_some(TOOK_THEIRS),
                );
            }
        }
        if state.agent == Life::Alive && !state.has_begun {
            let mut to = *state;
            to.has_begun = true;
            to.thread = Some(Run::new(OldPart::Freeze));
            push("agent", What::Text("freezes"), to, true, None);
        }
        if state.agent == Life::Alive && state.kills > 0 {
            let mut to = *state;
            to.kills -= 1;
            to.agent = Life::Killed;
            to.thread_goes_on();
            push("agent", What::Text("is killed"), to, false, None);
        }
        if self.closes && state.has_begun && !state.closed {
            let to = State {
                closed: true,
                ..*state
            };
            push("agent", What::Text("closes its socket"), to, false, None);
        }
        let acts = state.closed
            || state.agent != Life::Alive
            || (self.limit && state.has_begun && !state.limit_passed);
        if acts && state.child.is_none() {
            let mut to = *state;
            to.limit_passed = true;
            to.child = match state.shared.mark {
                Mark::Freezing => Some(Run::new(OldPart::Retry {
                    closed: false,
                    again: false,
                })),
                Mark::Frozen => Some(Run::new(OldPart::Thaw)),
                mark if mark == THAWING && state.agent == Life::Gone => {
                    to.shared.mark = Mark::Frozen;
                    Some(Run::new(OldPart::Thaw))
                }
                _ => None,
            };
            push("guardian", What::Text("acts"), to, true, None);
        }
    }

    fn is_settled(&self, state: &State) -> bool {
        !state.shared.is_ours() && state.thread.is_none() && state.child.is_none()
    }
}

impl State {
    /// After a step of it, or the agent's death.
    fn thread_goes_on(&mut self) {
        let Some(doing) = self.thread else {
            if self.agent == Life::Killed {
                self.end_agent();
            }
            return;
        };
        if self.agent == Life::Killed {
            if !doing.is_in_call() {
                self.shared.unnoted |= doing.is_unnoted();
                self.end_agent();
            }
            return;
        }
        self.thread = match doing.end() {
            // The hold is over in the end.
            Some(End::Frozen) => Some(Run::new(OldPart::Thaw)),
            Some(_) => None,
            None => Some(doing),
        };
    }

    fn end_agent(&mut self) {
        self.agent = Life::Gone;
        self.thread = None;
        self.closed = true;
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shared)
    }
}
