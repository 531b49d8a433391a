//! What the session tells an operator, one sentence each.

use std::fmt;
use std::time::Duration;

use hvutil_sys::vss::Operation;

/// What an operator is told of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A THAW without a hold.
    ThawWithoutHold,
    /// A THAW after a hold that had ended before.
    ThawAfterEarlyEnd,
    /// A request that cannot be served now.
    RefusedWhileHeld(Operation),
    /// A number that no operation has.
    UnknownOperation(Operation),
    /// Bytes that are no message.
    Malformed(usize),
    /// A second request before the first was answered.
    OutOfStep(Operation),
    /// The hold limit has passed.
    HoldLimit(Duration),
    /// FREEZE took longer than it may.
    FreezeLimit(Duration),
    /// Thawed by the guardian before success could be told.
    HoldBroken,
    /// The driver took no reply.
    ReplyRefused,
    /// The driver closed the channel.
    ChannelLost,
    /// A request that comes while a person's freeze is at work.
    RefusedInManualFreeze(Operation),
    /// A person had the checkpoint of the host thawed.
    ThawnByOperator,
    /// Asked to end while a checkpoint was under way.
    StoppedDuringCheckpoint,
}

impl Note {
    /// The checkpoint that is at work then has failed for the host, however it went here.
    #[must_use]
    pub fn spoils(self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::OutOfStep(_)
            | Self::HoldLimit(_)
            | Self::FreezeLimit(_)
            | Self::HoldBroken
            | Self::ReplyRefused
            | Self::ChannelLost
            | Self::ThawnByOperator
            | Self::StoppedDuringCheckpoint => true,
            Self::ThawWithoutHold
            | Self::ThawAfterEarlyEnd
            | Self::RefusedWhileHeld(_)
            | Self::UnknownOperation(_)
            | Self::RefusedInManualFreeze(_) => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThawWithoutHold => f.write_str("the host asked for THAW, but nothing is held: answered failure"),
            Self::ThawAfterEarlyEnd => {
                f.write_str("the host asked for THAW after the hold had ended early: answered failure, so that it discards this backup")
            }
            Self::RefusedWhileHeld(operation) => {
                write!(f, "the host asked for {operation} while a checkpoint is under way: answered failure")
            }
            Self::UnknownOperation(operation) => {
                write!(f, "the driver handed on {operation}, which this agent does not know: answered failure")
            }
            Self::Malformed(length) => write!(
                f,
                "the channel brought {length} bytes where a message has 12: whatever is frozen is thawed, and the channel opened anew"
            ),
            Self::OutOfStep(operation) => write!(
                f,
                "the driver asked for {operation} before the last request was answered (as it does before hibernation): whatever \
                 is frozen is thawed, and the channel opened anew"
            ),
            Self::HoldLimit(limit) => write!(
                f,
                "the host did not ask for THAW within {} s: thawed without it; its backup will be answered with failure",
                limit.as_secs()
            ),
            Self::FreezeLimit(limit) => write!(f, "FREEZE was not done within {} s: given up", limit.as_secs()),
            Self::HoldBroken => f.write_str(
                "the guardian thawed, or was about to, before the host could be told that all is frozen: this process must have been stopped \
                 for a while; failure was told instead",
            ),
            Self::ReplyRefused => f.write_str(
                "the driver took no reply, because it had given up waiting: whatever is frozen is thawed, and the channel opened anew",
            ),
            Self::ChannelLost => {
                f.write_str("the driver closed the channel: whatever is frozen is thawed; waiting for the service to come back")
            }
            Self::RefusedInManualFreeze(operation) => write!(
                f,
                "the host asked for {operation} while a manual freeze is at work: answered failure; the next backup works when that is over"
            ),
            Self::ThawnByOperator => {
                f.write_str("'hv-vssd thaw' ends the host's checkpoint: the host is told failure, so that it discards this backup")
            }
            Self::StoppedDuringCheckpoint => f.write_str("asked to end during a checkpoint: thawing first; the host is told failure"),
        }
    }
}
