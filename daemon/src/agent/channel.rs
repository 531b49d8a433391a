//! The agent's end of the channel to the driver: opened, registered, read, answered.

use std::time::Duration;

use hvutil_sys::device::{Channel, Received};
use hvutil_sys::vss::{Operation, Status};
use tokio::io::unix::AsyncFd;

use super::records::Moment;
use super::session::Event;
use super::{Agent, StartError, view};
use crate::quiesce::error::with_causes;

/// The driver acknowledges a registration from within the write; this bounds a driver that does not.
const REGISTER_LIMIT: Duration = Duration::from_secs(5);

/// Makes a channel to the driver, as often as needed.
pub type Opener = Box<dyn FnMut() -> Result<Channel, hvutil_sys::device::OpenError> + Send>;

pub(super) struct OpenerBox(pub(super) Opener);

impl std::fmt::Debug for OpenerBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

impl Agent {
    pub(super) fn reply(&mut self, operation: Operation, status: Status) {
        let Some(channel) = &self.channel else {
            return;
        };
        match channel.get_ref().reply(status) {
            Ok(()) => tracing::info!("answered {operation}: {status}"),
            Err(error) => {
                tracing::warn!("the answer to {operation} was not taken: {error}");
                self.pending.push_back(Event::ReplyFailed);
            }
        }
    }

    #[allow(
        deprecated,
        reason = "the channel owns its descriptor, which is all that the unsafe successor asks for"
    )]
    pub(super) fn open(&mut self) -> Result<(), StartError> {
        let channel = (self.opener.0)()?;
        channel
            .register(REGISTER_LIMIT)
            .map_err(StartError::Register)?;
        self.channel = Some(AsyncFd::new(channel).map_err(StartError::Register)?);
        self.channel_since = Moment::now();
        self.driver_version = view::driver_version();
        Ok(())
    }

    /// Once for each loss of the channel, not for every attempt.
    pub(super) fn complain(&mut self, error: &StartError) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!("{}; trying again, at most 5 s apart", with_causes(error));
        }
    }
}

pub(super) async fn next_message(channel: Option<&AsyncFd<Channel>>) -> Event {
    let Some(channel) = channel else {
        return std::future::pending().await;
    };
    loop {
        let Ok(mut ready) = channel.readable().await else {
            return Event::ChannelLost;
        };
        match channel.get_ref().receive() {
            Ok(Received::Request(request)) => return Event::Request(request.operation),
            Ok(Received::Malformed(length)) => return Event::Malformed(length),
            Ok(Received::Closed) => return Event::ChannelLost,
            Ok(Received::Nothing) => ready.clear_ready(),
            Err(error) => {
                tracing::warn!("the channel cannot be read: {error}");
                return Event::ChannelLost;
            }
        }
    }
}
