//! The bed's side of the control channel: many requests at once, each with its deadline.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{BedError, BedResult, Context};
use crate::proto::{self, Call, Reply, Request, Response};

/// From power-on to the greeting of the guest's init, or from a kept state to an answer, on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

type Answer = Result<Reply, String>;
type Waiting = Arc<Mutex<HashMap<u64, Sender<Answer>>>>;

#[derive(Debug)]
pub(super) struct Control {
    stream: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU64,
}

/// A request that is under way.
#[derive(Debug)]
pub struct Pending {
    answer: Receiver<Answer>,
    what: String,
}

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// The guest refused, is gone, or took longer than `limit`.
    pub fn wait(&self, limit: Duration) -> BedResult<Reply> {
        match self.answer.recv_timeout(limit) {
            Ok(answer) => {
                answer.map_err(|error| BedError::Guest(format!("{}: {error}", self.what)))
            }
            Err(RecvTimeoutError::Timeout) => Err(BedError::Timeout {
                what: format!("an answer to {}", self.what),
                limit,
            }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(BedError::Guest(format!("{}: the guest is gone", self.what)))
            }
        }
    }
}

impl Control {
    /// Waits for the greeting of a guest that boots.
    pub(super) fn connect(stream: UnixStream) -> BedResult<Self> {
        let waiting = Waiting::default();
        let (greeted, greeting) = channel();
        register(&waiting, 0, greeted);
        let control = Self::dispatch(stream, waiting)?;
        let boot = Pending {
            answer: greeting,
            what: "power-on".into(),
        };
        boot.wait(BOOT_LIMIT)?;
        Ok(control)
    }

    /// Waits for an answer of a guest that goes on: it has greeted before.
    pub(super) fn resume(stream: UnixStream) -> BedResult<Self> {
        let control = Self::dispatch(stream, Waiting::default())?;
        let read = Call::Read {
            path: "/proc/uptime".into(),
        };
        control.start(read)?.wait(BOOT_LIMIT)?;
        Ok(control)
    }

    /// Dispatches answers in a thread of its own.
    fn dispatch(stream: UnixStream, waiting: Waiting) -> BedResult<Self> {
        let mut input = stream
            .try_clone()
            .doing(|| "cloning the control socket".into())?;
        let dispatch = waiting.clone();
        std::thread::spawn(move || {
            while let Ok(frame) = proto::read_frame(&mut input) {
                let Ok(response) = serde_json::from_slice::<Response>(&frame) else {
                    break;
                };
                let waiter = dispatch
                    .lock()
                    .ok()
                    .and_then(|mut w| w.remove(&response.id));
                if let Some(waiter) = waiter {
                    let _ = waiter.send(response.result);
                }
            }
            if let Ok(mut waiting) = dispatch.lock() {
                waiting.clear();
            }
        });
        Ok(Self {
            stream: Mutex::new(stream),
            waiting,
            next: AtomicU64::new(1),
        })
    }

    /// Sends a request.
    pub(super) fn start(&self, call: Call) -> BedResult<Pending> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut what = format!("{call:?}");
        what.truncate(what.floor_char_boundary_at(200));
        let (sender, answer) = channel();
        register(&self.waiting, id, sender);
        let bytes = serde_json::to_vec(&Request { id, call })
            .map_err(std::io::Error::other)
            .doing(|| "encoding a request".into())?;
        let mut stream = self
            .stream
            .lock()
            .map_err(|_| BedError::Guest("the control socket is poisoned".into()))?;
        proto::write_frame(&mut *stream, &bytes).doing(|| format!("sending {what}"))?;
        Ok(Pending { answer, what })
    }
}

fn register(waiting: &Waiting, id: u64, sender: Sender<Answer>) {
    if let Ok(mut waiting) = waiting.lock() {
        waiting.insert(id, sender);
    }
}

trait CharBoundary {
    fn floor_char_boundary_at(&self, at: usize) -> usize;
}

impl CharBoundary for String {
    fn floor_char_boundary_at(&self, at: usize) -> usize {
        (0..=at.min(self.len()))
            .rev()
            .find(|index| self.is_char_boundary(*index))
            .unwrap_or(0)
    }
}
