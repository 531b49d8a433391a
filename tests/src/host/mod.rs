//! The Hyper-V host, played from outside the guest.

mod packet;

use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::{BedError, BedResult, Context};
use crate::proto;
pub use packet::{FREEZE_LEN, Header, Negotiation, Operation, VSS_LEN, negotiate, vss};

/// Success.
pub const S_OK: u32 = 0;
/// The one failure a guest reports.
pub const E_FAIL: u32 = 0x8000_4005;

/// What came back for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status the host sees: [`S_OK`] or [`E_FAIL`].
    pub status: u32,
    /// From the packet's way into the guest to the answer's way out.
    pub took: Duration,
}

impl Answer {
    /// The host was told success.
    #[must_use]
    pub fn ok(self) -> bool {
        self.status == S_OK
    }
}

/// The host's end of the channel.
#[derive(Debug)]
pub struct Host {
    stream: UnixStream,
    answers: Receiver<Vec<u8>>,
    transaction: u8,
}

impl Host {
    pub(crate) fn new(stream: UnixStream) -> BedResult<Self> {
        let mut input = stream
            .try_clone()
            .doing(|| "cloning the host's socket".into())?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            while let Ok(frame) = proto::read_frame(&mut input) {
                if sender.send(frame).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            stream,
            answers,
            transaction: 0,
        })
    }

    /// Puts bytes into the channel as they are.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn send(&mut self, packet: &[u8]) -> BedResult<()> {
        proto::write_frame(&mut self.stream, packet).doing(|| "sending a packet".into())
    }

    /// The driver's next packet, or `None` if there is none in time.
    ///
    /// # Errors
    /// The guest is gone, or the bus refused the packet sent last.
    pub fn receive(&mut self, limit: Duration) -> BedResult<Option<Vec<u8>>> {
        match self.answers.recv_timeout(limit) {
            Ok(frame) => match frame.split_first() {
                Some((0, packet)) => Ok(Some(packet.to_vec())),
                Some((errno, _)) => Err(BedError::Io {
                    what: "the bus refused a packet".into(),
                    source: std::io::Error::from_raw_os_error(i32::from(*errno)),
                }),
                None => Err(BedError::Guest("an empty frame from the relay".into())),
            },
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(BedError::Guest("the host's port is gone".into()))
            }
        }
    }

    /// Sends a packet built for a fresh transaction and waits for its answer.
    /// `None`: no answer in time.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn transact(
        &mut self,
        build: impl FnOnce(u8) -> Vec<u8>,
        limit: Duration,
    ) -> BedResult<Option<(Vec<u8>, Duration)>> {
        let transaction = self.start(build)?;
        let started = Instant::now();
        Ok(self
            .answer_to(transaction, limit)?
            .map(|packet| (packet, started.elapsed())))
    }

    /// Sends a packet built for a fresh transaction and returns the transaction's number.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn start(&mut self, build: impl FnOnce(u8) -> Vec<u8>) -> BedResult<u8> {
        self.transaction = self.transaction.wrapping_add(1);
        self.send(&build(self.transaction))?;
        Ok(self.transaction)
    }

    /// The answer to a transaction; answers to older ones are dropped on the way.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn answer_to(&mut self, transaction: u8, limit: Duration) -> BedResult<Option<Vec<u8>>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left)? {
                None => return Ok(None),
                Some(packet)
                    if Header::of(&packet).is_some_and(|h| h.transaction == transaction) =>
                {
                    return Ok(Some(packet));
                }
                Some(_) => {}
            }
        }
    }

    /// One VSS request of the usual length. `None`: no answer in time.
    ///
    /// # Errors
    /// The guest is gone, or its answer is no VSS packet.
    pub fn try_request(
        &mut self,
        operation: Operation,
        limit: Duration,
    ) -> BedResult<Option<Answer>> {
        let answer = self.transact(|transaction| vss(operation, transaction), limit)?;
        answer
            .map(|(packet, took)| {
                let header = Header::of(&packet)
                    .ok_or_else(|| BedError::Guest(format!("short answer {packet:02x?}")))?;
                Ok(Answer {
                    status: header.status,
                    took,
                })
            })
            .transpose()
    }

    /// One VSS request that is answered in the driver's own time limit at the latest
    /// (30 s; FREEZE: a minute here, the driver's 15 minutes are not waited for).
    ///
    /// # Errors
    /// The guest is gone or silent.
    pub fn request(&mut self, operation: Operation) -> BedResult<Answer> {
        let limit = match operation {
            Operation::FREEZE => Duration::from_secs(180),
            _ => Duration::from_secs(40),
        };
        self.try_request(operation, limit)?
            .ok_or_else(|| BedError::Timeout {
                what: format!("an answer to {operation:?}"),
                limit,
            })
    }

    /// Negotiates versions, as a host does first.
    ///
    /// # Errors
    /// The guest is gone or silent, or its answer is not a negotiation.
    pub fn negotiate(&mut self) -> BedResult<Negotiation> {
        let limit = Duration::from_secs(20);
        let answer = self.transact(negotiate, limit)?;
        let (packet, _) = answer.ok_or(BedError::Timeout {
            what: "an answer to the negotiation".into(),
            limit,
        })?;
        Negotiation::of(&packet)
            .ok_or_else(|| BedError::Guest(format!("no negotiation: {packet:02x?}")))
    }
}
