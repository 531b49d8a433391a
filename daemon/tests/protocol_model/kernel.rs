//! A superblock and its mark, and how a party gets through its part: each swap, and each begin and return of a call, is one step.

use hv_vssd::quiesce::protocol::{Called, End, Mark, Part, Seen, Step};

use super::search::What;

/// As on Linux 6.1: it is frozen once, by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Super {
    Unfrozen,
    /// Our `FIFREEZE` is in progress.
    FreezingOurs,
    FreezingTheirs,
    Ours,
    Theirs,
}

/// What the parties share.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shared {
    pub(crate) sb: Super,
    pub(crate) mark: Mark,
    /// How often `FITHAW` may still fail.
    pub(crate) thaw_failures: u8,
    /// How often someone else may still freeze.
    pub(crate) foreign: u8,
    /// Someone died between the claim for a call and the note of how it went; no `FITHAW` has told since.
    pub(crate) unnoted: bool,
}

/// A party's part, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run<P> {
    pub(crate) part: P,
    at: At,
    /// The last call failed with `EBUSY`.
    pub(crate) busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Next(Step),
    /// In `FIFREEZE`, for the lock of the superblock.
    Waiting,
    /// In `FIFREEZE`.
    Freezing,
    /// In `FITHAW`.
    Thawing,
}

/// What one step of a part does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advance<P> {
    pub(crate) what: What,
    pub(crate) run: Run<P>,
    pub(crate) shared: Shared,
    pub(crate) fair: bool,
    /// A `FITHAW` has thawed what someone else had frozen, and nobody's unnoted call was the reason.
    pub(crate) took_theirs: bool,
}

impl<P: Part + Copy> Run<P> {
    pub(crate) fn new(mut part: P) -> Self {
        let at = At::Next(part.next(Seen::Begin));
        Self {
            part,
            at,
            busy: false,
        }
    }

    /// What it came to.
    pub(crate) fn end(&self) -> Option<End> {
        match self.at {
            At::Next(Step::End(end)) => Some(end),
            _ => None,
        }
    }

    /// In the kernel, where no signal reaches it.
    pub(crate) fn is_in_call(&self) -> bool {
        matches!(self.at, At::Waiting | At::Freezing | At::Thawing)
    }

    /// It has the mark for a call, and has not noted how that went: if it dies here, nobody knows.
    pub(crate) fn is_unnoted(&self) -> bool {
        match self.at {
            At::Waiting | At::Freezing | At::Thawing => true,
            At::Next(Step::Freeze | Step::Thaw) => true,
            At::Next(Step::Swap(from, to)) => matches!(
                (from, to),
                (Mark::Freezing, Mark::Frozen | Mark::NotOurs)
                    | (Mark::GivenUp, Mark::Thawed | Mark::Failed)
                    | (Mark::Thawing(_), Mark::Thawed | Mark::Failed)
            ),
            At::Next(Step::End(_)) => false,
        }
    }

    /// Everything that may come next of it.
    pub(crate) fn advance(&self, shared: &Shared, into: &mut Vec<Advance<P>>) {
        let mut step = |what, run, shared, fair, took_theirs| {
            into.push(Advance {
                what,
                run,
                shared,
                fair,
                took_theirs,
            });
        };
        let shared = *shared;
        let enter = |at| Self { at, ..*self };
        match self.at {
            At::Next(next @ Step::Swap(from, to)) => {
                let mut after = shared;
                let swapped = if shared.mark == from {
                    after.mark = to;
                    Ok(())
                } else {
                    Err(shared.mark)
                };
                let run = self.told(Seen::Swapped(swapped), self.busy);
                step(What::Step(next), run, after, true, false);
            }
            At::Next(next @ Step::Freeze) => {
                step(What::Step(next), enter(At::Waiting), shared, true, false);
            }
            At::Next(next @ Step::Thaw) => {
                step(What::Step(next), enter(At::Thawing), shared, true, false);
            }
            At::Next(Step::End(_)) => {}
            At::Waiting if shared.sb == Super::Unfrozen => {
                let mut after = shared;
                after.sb = Super::FreezingOurs;
                let what = What::Text("FIFREEZE begins");
                step(what, enter(At::Freezing), after, true, false);
            }
            // At once, or after it has waited for the other one's end.
            At::Waiting => {
                let run = self.told(Seen::Called(Called::Failed), true);
                step(What::Text("FIFREEZE: EBUSY"), run, shared, true, false);
            }
            At::Freezing => {
                for (called, sb) in [
                    (Called::Done, Super::Ours),
                    (Called::Failed, Super::Unfrozen),
                ] {
                    let run = self.told(Seen::Called(called), false);
                    let after = Shared { sb, ..shared };
                    let what = What::Returned("FIFREEZE", called);
                    step(what, run, after, called == Called::Done, false);
                }
            }
            At::Thawing => {
                let mut after = shared;
                let called = match shared.sb {
                    Super::Ours | Super::Theirs => {
                        after.sb = Super::Unfrozen;
                        Called::Done
                    }
                    _ => Called::NotFrozen,
                };
                after.unnoted = false;
                let took_theirs = shared.sb == Super::Theirs && !shared.unnoted;
                let what = What::Returned("FITHAW", called);
                let run = self.told(Seen::Called(called), false);
                step(what, run, after, true, took_theirs);
                let left = shared.thaw_failures.checked_sub(1);
                if let Some(left) = left.filter(|_| shared.sb == Super::Ours) {
                    let after = Shared {
                        thaw_failures: left,
                        ..shared
                    };
                    let run = self.told(Seen::Called(Called::Failed), false);
                    let what = What::Returned("FITHAW", Called::Failed);
                    step(what, run, after, false, false);
                }
            }
        }
    }

    fn told(mut self, seen: Seen, busy: bool) -> Self {
        self.at = At::Next(self.part.next(seen));
        self.busy = busy;
        self
    }
}

impl Shared {
    /// What someone else may do: freeze, and thaw what they have frozen.
    pub(crate) fn foreign_moves(&self) -> impl Iterator<Item = (&'static str, Self, bool)> + use<> {
        let to = |sb| Self { sb, ..*self };
        let moves: [Option<(&'static str, Self, bool)>; 2] = match self.sb {
            Super::Unfrozen if self.foreign > 0 => {
                let foreign = self.foreign - 1;
                let to = Self {
                    foreign,
                    ..to(Super::FreezingTheirs)
                };
                [Some(("FIFREEZE begins", to, false)), None]
            }
            Super::FreezingTheirs => [
                Some(("FIFREEZE returns: Done", to(Super::Theirs), true)),
                Some(("FIFREEZE returns: Failed", to(Super::Unfrozen), false)),
            ],
            Super::Theirs => [Some(("FITHAW", to(Super::Unfrozen), false)), None],
            _ => [None, None],
        };
        moves.into_iter().flatten()
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.sb, Super::Ours | Super::FreezingOurs)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} '{}'", self.sb, char::from(self.mark.byte()))
    }
}
