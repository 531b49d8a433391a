//! The agent's end of the channel to the driver: opened, registered, read, answered.

use std::io;
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
        match answer(channel.get_ref(), status) {
            Ok(()) => tracing::info!("answered {operation}: {status}"),
            Err(error) => {
                tracing::warn!("{operation} is not answered: {}", with_causes(&error));
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

/// Why a request has no answer of ours: the host has been told failure by the driver.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("the driver rejected the reply")]
    Rejected(#[source] io::Error),
    #[error("the driver has given it up, and waits with its next request")]
    Stale,
}

/// The driver has no numbers: what is unread is its next request, which a reply would answer.
fn answer(channel: &Channel, status: Status) -> Result<(), Unanswered> {
    if channel.has_unread() {
        return Err(Unanswered::Stale);
    }
    channel.reply(status).map_err(Unanswered::Rejected)
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use hvutil_sys::vss::{MESSAGE_SIZE, Request};
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_request_that_came_after_the_open_one_is_not_answered_by_its_reply() {
        let (agent, driver) = UnixDatagram::pair().unwrap();
        driver.set_nonblocking(true).unwrap();
        let channel = Channel::from_fd(agent.into());
        driver
            .send(Request::new(Operation::THAW).as_bytes())
            .unwrap();
        assert!(matches!(channel.receive().unwrap(), Received::Request(_)));
        // The driver's time is up, and the host asks for something else.
        driver
            .send(Request::new(Operation::FREEZE).as_bytes())
            .unwrap();
        assert!(matches!(
            answer(&channel, Status::Ok),
            Err(Unanswered::Stale)
        ));
        let mut reply = [0; MESSAGE_SIZE];
        assert!(driver.recv(&mut reply).is_err(), "nothing was said");
        assert!(matches!(channel.receive().unwrap(), Received::Request(_)));
        answer(&channel, Status::Ok).unwrap();
        assert_eq!(driver.recv(&mut reply).unwrap(), MESSAGE_SIZE);
    }
}
