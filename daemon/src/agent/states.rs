//! The words of the [`super::session`]: where the agent stands, what happens to it, what it does.

use std::time::{Duration, Instant};

use hvutil_sys::vss::{Operation, Status};

use super::note::Note;

/// How long each part of a checkpoint may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the request FREEZE to its answer; the driver itself gives up after 15 minutes.
    pub freeze_request: Duration,
    /// From the answer to FREEZE to the request THAW.
    pub hold: Duration,
}

/// Where the agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No channel to the driver; nothing is frozen.
    Closed {
        /// When to open the channel again; `None` while that is being tried.
        reopen_at: Option<Instant>,
    },
    /// Registered; nothing is frozen.
    Ready,
    /// HOT_BACKUP is being looked into; nothing is frozen.
    Checking {
        /// Where this leads.
        next: Next,
    },
    /// FREEZE is being carried out.
    Freezing {
        /// When the request has taken too long; `None` once it was aborted.
        give_up_at: Option<Instant>,
        /// Where an aborted freeze leads.
        next: Next,
    },
    /// Everything is frozen and the host was told so.
    Held {
        /// The hold limit: thaw then, whatever the host does.
        until: Instant,
    },
    /// Everything is being thawed.
    Thawing {
        /// What the host is owed.
        answer: Answer,
        /// Where this leads.
        next: Next,
    },
    /// A freeze that a person asked for is being carried out.
    ManualFreezing {
        /// When it has taken too long; `None` once it was aborted.
        give_up_at: Option<Instant>,
        /// How long the hold is to last.
        hold: Duration,
        /// Where this leads.
        next: Next,
    },
    /// Everything that a person asked for is frozen; the host knows nothing of it.
    ManualHeld {
        /// When the hold ends, if nobody ends it before.
        until: Instant,
        /// Where this leads.
        next: Next,
    },
    /// The hold that a person asked for is being thawed.
    ManualThawing {
        /// Where this leads.
        next: Next,
    },
    /// The end: nothing is frozen, the process may go.
    Stopped,
}

impl State {
    /// Whether a thaw that begins now was asked for, so that nothing has cut the hold short.
    #[must_use]
    pub fn is_asked_to_thaw(self) -> bool {
        match self {
            Self::Thawing { answer, .. } => answer == Answer::Truth,
            // A test by hand has no end that would be too early.
            Self::ManualThawing { next } => next != Next::Stopped,
            Self::Closed { .. }
            | Self::Ready
            | Self::Checking { .. }
            | Self::Freezing { .. }
            | Self::Held { .. }
            | Self::ManualFreezing { .. }
            | Self::ManualHeld { .. }
            | Self::Stopped => false,
        }
    }
}

/// Where the agent goes when the work at hand is done; a later reason never makes it a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Next {
    /// Back to [`State::Ready`].
    Ready,
    /// To [`State::Closed`], because the channel is gone.
    Closed,
    /// To [`State::Stopped`], because the process was asked to end.
    Stopped,
}

/// What the host is owed when a thaw is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: the host did not ask.
    None,
    /// Whether the hold was kept and ended well.
    Truth,
    /// Failure, because the hold ended before the host asked.
    Failure,
}

/// Why a person's freeze is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The host is at work.
    Host,
    /// Another person's freeze is at work.
    Manual,
    /// The channel to the driver is being opened this moment.
    Opening,
    /// The process is about to end.
    Ending,
}

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Host => "the host is at work: try again when its checkpoint is over",
            Self::Manual => {
                "another manual freeze is at work: it ends by itself, or with 'hv-vssd thaw'"
            }
            Self::Opening => "the agent is just registering with the driver: try again",
            Self::Ending => "the agent is about to end: try again when it has",
        })
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The channel is open and registered.
    Opened,
    /// The channel could not be opened or registered.
    OpenFailed,
    /// The driver hands on a request of the host.
    Request(Operation),
    /// The channel brought this many bytes that are no message.
    Malformed(usize),
    /// The driver tears the channel down.
    ChannelLost,
    /// The last reply was not accepted: the host has already been told failure.
    ReplyFailed,
    /// The engine has looked: a checkpoint is possible, or not.
    Checked {
        /// Whether it is possible.
        possible: bool,
    },
    /// The engine holds every file system of the plan frozen.
    Frozen {
        /// How long it may: less than the hold limit where the kernel would panic before.
        hold: Duration,
    },
    /// The engine could not freeze all, and has thawed what it had frozen.
    FreezeFailed,
    /// The last look before success was told has found that not everything is frozen any more: failure was told instead.
    HoldBroken,
    /// The engine has thawed all it had frozen.
    Thawed {
        /// Every file system was still frozen by us and is thawed now.
        clean: bool,
    },
    /// The configuration is to be read again.
    Reload,
    /// It was, and these are in force.
    Reloaded {
        /// From the next request on.
        limits: Limits,
    },
    /// The process is to end once no checkpoint is under way: a new program waits for its place.
    Retire,
    /// A person asks for a freeze that ends by itself.
    ManualFreeze {
        /// How long the hold is to last; the hold limit is the most.
        hold: Duration,
    },
    /// The person who asked for the freeze has gone, or wants it to end.
    ManualEnd,
    /// A person wants everything thawed, whoever asked for the freeze.
    ThawNow,
    /// The process is asked to end.
    Terminate,
    /// A deadline may have passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out whether a checkpoint is possible; answer with [`Event::Checked`].
    StartCheck,
    /// Freeze; answer with [`Event::Frozen`] or [`Event::FreezeFailed`].
    StartFreeze,
    /// Let the freeze at work fail as soon as it can.
    AbortFreeze,
    /// Thaw; answer with [`Event::Thawed`].
    StartThaw,
    /// Read the configuration again; answer with [`Event::Reloaded`] if it can be used.
    StartReload,
    /// Answer the host's request.
    Reply(Operation, Status),
    /// Drop the channel: the driver tells the host failure if a request is open.
    CloseChannel,
    /// Open and register; answer with [`Event::Opened`] or [`Event::OpenFailed`].
    OpenChannel,
    /// Freeze for a person; answer with [`Event::Frozen`] or [`Event::FreezeFailed`].
    StartManualFreeze,
    /// Tell the person that no freeze is possible now, and why.
    RefuseManual(Busy),
    /// Tell the person that everything is frozen, and for how long.
    ManualHeld(Duration),
    /// Tell the operator.
    Note(Note),
    /// End the process.
    Exit,
}
