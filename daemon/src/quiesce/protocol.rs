//! Who may freeze and thaw a file system: its mark in the ledger, and what each party does with it.
//!
//! Nothing here does input or output: a [`Part`] says the next [`Step`], and is told how that went. So the same rules run in
//! the agent, in its guardian, in the processes that make the calls, in the next start, and in a test that tries every
//! order of their steps and every death in between (`tests/protocol_model.rs`).
//!
//! The rules in short: a call is made by whoever has won the mark before it, and the mark of a call in progress tells whose call
//! that is. It is another's to settle only once that process is known to have ended, and one of the others wins it first: until then a
//! `FITHAW` that succeeds could only hit someone else's freeze.

use std::io;

/// Who calls `FITHAW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The process that makes the calls on this file system.
    Freezer,
    /// The agent itself: where there is no such process, or it has died.
    Agent,
    /// A child of the guardian's.
    Guardian,
    /// A later start, or `hv-vssd thaw`.
    Start,
}

/// How far the freeze of a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Not touched yet.
    Planned,
    /// `FIFREEZE` has been called and has not returned.
    Freezing,
    /// As [`Mark::Freezing`], and nobody wants it any more: whoever made the call thaws as soon as it returns.
    GivenUp,
    /// Frozen by us.
    Frozen,
    /// Not frozen by us: the call failed, or someone else had frozen it.
    NotOurs,
    /// This one is about to thaw it, or does: whoever set this first.
    Thawing(By),
    /// Thawed, found unfrozen, or never to be frozen.
    Thawed,
    /// `FITHAW` failed.
    Failed,
}

impl Mark {
    /// The character in the file.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Planned => b'.',
            Self::Freezing => b'?',
            Self::GivenUp => b'x',
            Self::Frozen => b'F',
            Self::NotOurs => b'-',
            Self::Thawing(By::Freezer) => b'~',
            Self::Thawing(By::Agent) => b'a',
            Self::Thawing(By::Guardian) => b'g',
            Self::Thawing(By::Start) => b's',
            Self::Thawed => b'T',
            Self::Failed => b'!',
        }
    }

    /// The mark of a character; an unknown one counts as possibly frozen.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            b'.' => Self::Planned,
            b'x' => Self::GivenUp,
            b'F' => Self::Frozen,
            b'-' => Self::NotOurs,
            b'~' => Self::Thawing(By::Freezer),
            b'a' => Self::Thawing(By::Agent),
            b'g' => Self::Thawing(By::Guardian),
            b's' => Self::Thawing(By::Start),
            b'T' => Self::Thawed,
            b'!' => Self::Failed,
            _ => Self::Freezing,
        }
    }

    /// Someone has to thaw it, or to see whether it is frozen.
    #[must_use]
    pub const fn wants_thaw(self) -> bool {
        matches!(
            self,
            Self::Freezing | Self::GivenUp | Self::Frozen | Self::Thawing(_) | Self::Failed
        )
    }

    /// A call on it has not returned, as far as the mark tells.
    #[must_use]
    pub const fn is_in_call(self) -> bool {
        matches!(self, Self::Freezing | Self::GivenUp | Self::Thawing(_))
    }
}

/// What a party does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Set the mark from the first to the second, if it is the first.
    Swap(Mark, Mark),
    /// `FIFREEZE`
    Freeze,
    /// `FITHAW`
    Thaw,
    /// Nothing more.
    End(End),
}

/// How the last step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// There was none yet.
    Begin,
    /// The mark was set, or is this one.
    Swapped(Result<(), Mark>),
    /// The call has returned.
    Called(Called),
}

/// What a call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Called {
    /// Success.
    Done,
    /// `FITHAW`: it was not frozen (`EINVAL`).
    NotFrozen,
    /// Any other error.
    Failed,
}

/// What a part came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// It is frozen, by us.
    Frozen,
    /// `FIFREEZE` failed: nothing is frozen by us.
    NotFrozen,
    /// It is not to be frozen any more, and is not.
    Withdrawn,
    /// It was frozen, and is thawed now.
    Thawed,
    /// `FITHAW` found it unfrozen.
    WasNotFrozen,
    /// `FITHAW` failed: it may still be frozen.
    Failed,
    /// Another of us has thawed it or does.
    Taken,
    /// Another of us is in a call: look again once that has returned, or its process has ended.
    InCall,
}

/// One party's share in one file system.
pub trait Part {
    /// The next step, after this.
    fn next(&mut self, seen: Seen) -> Step;
}

/// A freeze, by whoever makes the call: from the claim to the note of how it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FreezePart(FreezeAt);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum FreezeAt {
    #[default]
    Claim,
    Call,
    Note(End),
    ThawAgain,
    Settle,
}

impl Part for FreezePart {
    fn next(&mut self, seen: Seen) -> Step {
        let (at, step) = match (self.0, seen) {
            (FreezeAt::Claim, Seen::Swapped(Ok(()))) => (FreezeAt::Call, Step::Freeze),
            // Someone else's freeze made it fail the last time.
            (FreezeAt::Claim, Seen::Swapped(Err(Mark::NotOurs))) => {
                (FreezeAt::Claim, Step::Swap(Mark::NotOurs, Mark::Freezing))
            }
            (FreezeAt::Claim, Seen::Swapped(Err(_))) => {
                (FreezeAt::Claim, Step::End(End::Withdrawn))
            }
            (FreezeAt::Claim, _) => (FreezeAt::Claim, Step::Swap(Mark::Planned, Mark::Freezing)),
            (FreezeAt::Call, Seen::Called(Called::Done)) => (
                FreezeAt::Note(End::Frozen),
                Step::Swap(Mark::Freezing, Mark::Frozen),
            ),
            (FreezeAt::Call, _) => (
                FreezeAt::Note(End::NotFrozen),
                Step::Swap(Mark::Freezing, Mark::NotOurs),
            ),
            (FreezeAt::Note(end), Seen::Swapped(Ok(()))) => (FreezeAt::Note(end), Step::End(end)),
            // Given up meanwhile. It is ours alone: nobody else thaws what is in a call of a living process.
            (FreezeAt::Note(End::Frozen), _) => (FreezeAt::ThawAgain, Step::Thaw),
            (FreezeAt::Note(_), _) => (FreezeAt::Settle, Step::Swap(Mark::GivenUp, Mark::Thawed)),
            (FreezeAt::ThawAgain, Seen::Called(Called::Failed)) => {
                (FreezeAt::Settle, Step::Swap(Mark::GivenUp, Mark::Failed))
            }
            (FreezeAt::ThawAgain, _) => (FreezeAt::Settle, Step::Swap(Mark::GivenUp, Mark::Thawed)),
            (FreezeAt::Settle, _) => (FreezeAt::Settle, Step::End(End::Withdrawn)),
        };
        self.0 = at;
        step
    }
}

/// A thaw of what was frozen, by the agent or by the process that makes its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThawPart {
    by: By,
    at: ThawAt,
}

impl ThawPart {
    /// For the one that makes the call.
    #[must_use]
    pub const fn new(by: By) -> Self {
        let at = ThawAt::Claim;
        Self { by, at }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ThawAt {
    Claim,
    Call,
    Note(End),
}

impl Part for ThawPart {
    fn next(&mut self, seen: Seen) -> Step {
        let mine = Mark::Thawing(self.by);
        let (at, step) = match (self.at, seen) {
            (ThawAt::Claim, Seen::Swapped(Ok(()))) => (ThawAt::Call, Step::Thaw),
            // One that failed before is tried again.
            (ThawAt::Claim, Seen::Swapped(Err(Mark::Failed))) => {
                (ThawAt::Claim, Step::Swap(Mark::Failed, mine))
            }
            (ThawAt::Claim, Seen::Swapped(Err(_))) => (ThawAt::Claim, Step::End(End::Taken)),
            (ThawAt::Claim, _) => (ThawAt::Claim, Step::Swap(Mark::Frozen, mine)),
            (ThawAt::Call, Seen::Called(called)) => {
                let (end, step) = noted(called, self.by);
                (ThawAt::Note(end), step)
            }
            (ThawAt::Call, _) => (ThawAt::Call, Step::Thaw),
            (ThawAt::Note(end), _) => (ThawAt::Note(end), Step::End(end)),
        };
        self.at = at;
        step
    }
}

/// Giving up on a freeze, by the agent: what is in a call is thawed by whoever made it, what is not begun never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GiveUpPart;

impl Part for GiveUpPart {
    fn next(&mut self, seen: Seen) -> Step {
        match seen {
            Seen::Swapped(Err(Mark::Planned)) => Step::Swap(Mark::Planned, Mark::Thawed),
            Seen::Swapped(Err(Mark::NotOurs)) => Step::Swap(Mark::NotOurs, Mark::Thawed),
            Seen::Begin | Seen::Swapped(Err(Mark::Freezing)) => {
                Step::Swap(Mark::Freezing, Mark::GivenUp)
            }
            _ => Step::End(End::Withdrawn),
        }
    }
}

/// What a rescuer knows of the others: of whom it is not sure that their calls on the file system have ended. Such a call, and what
/// follows from it, is its caller's own to note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Known {
    /// The process that makes the calls may live.
    pub freezer: bool,
    /// The agent may live, or a thread of it.
    pub agent: bool,
    /// A child of the guardian's that thaws may live.
    pub guardian: bool,
    /// A later start may be thawing.
    pub start: bool,
    /// The agent is gone, or has had time enough: what it failed to thaw is tried in its place.
    pub failed_too: bool,
}

impl Known {
    /// Whether the call that this mark tells of may be in progress, or its caller still has to note how it went.
    #[must_use]
    pub const fn is_in_call(self, mark: Mark) -> bool {
        match mark {
            Mark::Freezing | Mark::GivenUp | Mark::Thawing(By::Freezer) => self.freezer,
            Mark::Thawing(By::Agent) => self.agent,
            Mark::Thawing(By::Guardian) => self.guardian,
            Mark::Thawing(By::Start) => self.start,
            Mark::Planned | Mark::Frozen | Mark::NotOurs | Mark::Thawed | Mark::Failed => false,
        }
    }
}

/// What a rescuer has to do about a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// It is settled, or its caller's.
    Nothing,
    /// This mark in its place, and no call.
    Mark(Mark),
    /// A [`RescuePart`], which may wait in a call.
    Call,
}

impl Known {
    /// For a rescuer who may not wait: what it can do without a call, it does as one swap of what it found.
    #[must_use]
    pub const fn needs(self, found: Mark) -> Needs {
        match found {
            Mark::Planned | Mark::NotOurs => Needs::Mark(Mark::Thawed),
            Mark::Freezing if self.freezer => Needs::Mark(Mark::GivenUp),
            Mark::GivenUp | Mark::Thawing(_) if self.is_in_call(found) => Needs::Nothing,
            Mark::Failed if !self.failed_too => Needs::Nothing,
            Mark::Thawed => Needs::Nothing,
            Mark::Freezing | Mark::GivenUp | Mark::Frozen | Mark::Thawing(_) | Mark::Failed => {
                Needs::Call
            }
        }
    }
}

/// A thaw for someone who cannot: by the guardian, by the process that made the calls when agent and guardian are gone, or by the
/// next start. What is not frozen yet never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RescuePart {
    by: By,
    known: Known,
    at: RescueAt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RescueAt {
    /// With the mark that the last swap was to set.
    Claim(Mark),
    Call,
    Note(End),
}

impl RescuePart {
    /// For a rescuer who knows this.
    #[must_use]
    pub const fn new(by: By, known: Known) -> Self {
        Self {
            by,
            known,
            at: RescueAt::Claim(Mark::Thawed),
        }
    }

    fn claim(self, found: Mark) -> (RescueAt, Step) {
        let swap = |to| (RescueAt::Claim(to), Step::Swap(found, to));
        let end = |end| (RescueAt::Note(end), Step::End(end));
        match found {
            Mark::Planned | Mark::NotOurs => swap(Mark::Thawed),
            Mark::Freezing => swap(Mark::GivenUp),
            Mark::GivenUp | Mark::Thawing(_) if self.known.is_in_call(found) => end(End::InCall),
            // Its process has ended before the call, in it or after it: how that went, nobody has noted.
            Mark::GivenUp | Mark::Frozen | Mark::Thawing(_) => swap(Mark::Thawing(self.by)),
            Mark::Failed if self.known.failed_too => swap(Mark::Thawing(self.by)),
            Mark::Failed => end(End::Taken),
            Mark::Thawed => end(End::Withdrawn),
        }
    }
}

impl Part for RescuePart {
    fn next(&mut self, seen: Seen) -> Step {
        let (at, step) = match (self.at, seen) {
            (RescueAt::Claim(_), Seen::Swapped(Err(found))) => self.claim(found),
            (RescueAt::Claim(Mark::Thawing(_)), Seen::Swapped(Ok(()))) => {
                (RescueAt::Call, Step::Thaw)
            }
            (RescueAt::Claim(Mark::GivenUp), Seen::Swapped(Ok(()))) => self.claim(Mark::GivenUp),
            (RescueAt::Claim(_), Seen::Swapped(Ok(()))) => {
                (RescueAt::Note(End::Withdrawn), Step::End(End::Withdrawn))
            }
            (RescueAt::Claim(_), _) => self.claim(Mark::Planned),
            (RescueAt::Call, Seen::Called(called)) => {
                let (end, step) = noted(called, self.by);
                (RescueAt::Note(end), step)
            }
            (RescueAt::Call, _) => (RescueAt::Call, Step::Thaw),
            (RescueAt::Note(end), _) => (RescueAt::Note(end), Step::End(end)),
        };
        self.at = at;
        step
    }
}

/// What a `FITHAW` came to, and its note.
const fn noted(called: Called, by: By) -> (End, Step) {
    let (end, mark) = match called {
        Called::Done => (End::Thawed, Mark::Thawed),
        Called::NotFrozen => (End::WasNotFrozen, Mark::Thawed),
        Called::Failed => (End::Failed, Mark::Failed),
    };
    (end, Step::Swap(Mark::Thawing(by), mark))
}

/// A mark, wherever it is kept.
pub trait MarkCell {
    /// What it is.
    fn load(&self) -> Mark;

    /// Sets it from `from` to `to` in one step; or tells what it is instead.
    ///
    /// # Errors
    /// The mark that is there.
    fn swap(&self, from: Mark, to: Mark) -> Result<(), Mark>;
}

/// `FIFREEZE` or `FITHAW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `FIFREEZE`
    Freeze,
    /// `FITHAW`
    Thaw,
}

/// Carries a part out: sets the mark, and has `call` make the calls. Gives the error of the last one, if it failed.
pub fn carry_out(
    mut part: impl Part,
    mark: &impl MarkCell,
    mut call: impl FnMut(Call) -> io::Result<()>,
) -> (End, Option<io::Error>) {
    let mut seen = Seen::Begin;
    let mut error = None;
    loop {
        let mut make = |which| {
            error = call(which).err();
            Seen::Called(match &error {
                None => Called::Done,
                Some(error) if error.raw_os_error() == Some(libc::EINVAL) => Called::NotFrozen,
                Some(_) => Called::Failed,
            })
        };
        seen = match part.next(seen) {
            Step::Swap(from, to) => Seen::Swapped(mark.swap(from, to)),
            Step::Freeze => make(Call::Freeze),
            Step::Thaw => make(Call::Thaw),
            Step::End(end) => return (end, error),
        };
    }
}
