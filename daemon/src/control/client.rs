//! A command's end of the control socket.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::lines::{Lines, MOST_REPLY};
use super::message::{Refusal, Reply, Request};

/// An agent that is not stopped answers in milliseconds, also during a hold.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a running agent. A freeze that was asked for on it ends when it is dropped.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    lines: Lines,
}

/// Why a running agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("no agent is running: start it with 'systemctl start hv-vssd.service'")]
    NotRunning,
    /// The socket is there, but cannot be used.
    #[error("the control socket {path} cannot be used; it is for root alone")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// It does not answer in time.
    #[error(
        "the agent does not answer: it is stopped, or hangs; its guardian thaws what it holds at the limit (see 'journalctl -u hv-vssd')"
    )]
    Silent,
    /// The connection has ended.
    #[error("the agent has ended, or ended the connection: see 'journalctl -u hv-vssd'")]
    Closed(#[source] Option<io::Error>),
    /// It answers something else.
    #[error(
        "the agent's answer is not understood: it is of another version; restart it with 'systemctl restart hv-vssd.service'"
    )]
    Garbage(#[source] Option<serde_json::Error>),
    /// It refuses, or has failed.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl ClientError {
    /// The request was refused because the agent or the host is at work: exit status 3.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.busy)
    }
}

impl Client {
    /// Connects to the agent that listens at `path`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] or [`ClientError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
            _ => ClientError::Connect {
                path: path.to_owned(),
                source,
            },
        })?;
        let timed = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        timed.map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            stream,
            lines: Lines::new(MOST_REPLY),
        })
    }

    /// How long an answer is waited for; `None`: as long as it takes.
    ///
    /// # Errors
    /// What the kernel says; a limit of zero is refused.
    pub fn set_patience(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    /// Ends what was asked for on this connection, as dropping it does; but its answers still come.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn end(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Sends a request and waits for its first answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        self.send(request)?;
        self.answer()
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| Refusal::of(format!("the request cannot be written: {error}")))?;
        line.push(b'\n');
        self.stream.write_all(&line).map_err(failed)
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let line = self.line()?;
        match serde_json::from_slice(&line) {
            Ok(Reply::Ok { ok }) => Ok(ok),
            Ok(Reply::Error(refusal)) => Err(refusal.into()),
            Err(error) => Err(ClientError::Garbage(Some(error))),
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(line) = self.lines.take() {
                return Ok(line);
            }
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ClientError::Closed(None)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            let received = buffer.get(..count).unwrap_or_default();
            self.lines
                .push(received)
                .map_err(|_| ClientError::Garbage(None))?;
        }
    }
}

impl AsFd for Client {
    /// Readable when an answer has come or the agent has gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn failed(error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent,
        _ => ClientError::Closed(Some(error)),
    }
}
