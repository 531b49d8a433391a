//! What clients of the control socket ask, and what they are told. Nothing here waits for a client.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Agent;
use super::control::{Answers, ClientId, Message};
use super::session::{Busy, Event, State};
use crate::control::message::{FreezeAnswer, Refusal, Request, Thawed};
use crate::quiesce::Report;
use crate::quiesce::report::FileSystemResult;

/// Those who wait for something to be done.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Whose request the session is just deciding on.
    asking: Option<Freezer>,
    /// Whose freeze is at work, and before it those whose report is still to come.
    freezers: Vec<Freezer>,
    /// Who waits for a thaw.
    thawers: Vec<Answers>,
}

#[derive(Debug)]
struct Freezer {
    client: ClientId,
    /// That of its checkpoint; 0 before it begins.
    number: u64,
    answers: Answers,
    paths: Vec<PathBuf>,
}

impl Clients {
    /// The freeze begins under this number; what is to be frozen.
    pub(super) fn begin(&mut self, number: u64) -> Vec<PathBuf> {
        let Some(mut freezer) = self.asking.take() else {
            return Vec::new();
        };
        let paths = std::mem::take(&mut freezer.paths);
        freezer.number = number;
        self.freezers.push(freezer);
        paths
    }

    pub(super) fn refuse(&mut self, busy: Busy) {
        if let Some(freezer) = self.asking.take() {
            let refusal = Refusal::busy(busy.to_string());
            freezer.answers.tell::<()>(Err(refusal), true);
        }
    }

    pub(super) fn held(&self, hold: Duration) {
        if let Some(freezer) = self.freezers.last() {
            let held = FreezeAnswer::Held {
                held: hold.as_secs_f64(),
            };
            freezer.answers.tell(Ok(held), false);
        }
    }

    /// A checkpoint is over, with all that follows.
    pub(super) fn done(&mut self, number: u64, report: &Report) {
        let whose = |freezer: &Freezer| freezer.number == number;
        if let Some(at) = self.freezers.iter().position(whose) {
            let answer = FreezeAnswer::Done {
                report: Box::new(report.clone()),
            };
            self.freezers.remove(at).answers.tell(Ok(answer), true);
        }
    }

    /// Nothing is frozen any more: whoever waits for that is told.
    pub(super) fn thawed(&mut self, report: &Report) {
        if self.thawers.is_empty() {
            return;
        }
        let thawed = report
            .file_systems
            .iter()
            .filter(|fs| fs.result == FileSystemResult::Frozen);
        let stuck = report.file_systems.iter().filter(|fs| {
            matches!(
                fs.result,
                FileSystemResult::Stuck | FileSystemResult::StillFrozen
            )
        });
        let answer = Thawed {
            held: true,
            thawed: thawed.map(|fs| fs.name()).collect(),
            failures: stuck
                .map(|fs| format!("{} could not be thawed", fs.name()))
                .collect(),
        };
        for answers in self.thawers.drain(..) {
            answers.tell(Ok(&answer), true);
        }
    }
}

impl Agent {
    pub(super) fn hear(&mut self, message: Message) {
        match message {
            Message::Request {
                client,
                request,
                answers,
            } => self.serve_client(client, request, answers),
            Message::Gone(client) => {
                let current = self.clients.freezers.last();
                if current.is_some_and(|freezer| freezer.client == client) {
                    self.feed(Event::ManualEnd);
                }
            }
        }
    }

    fn serve_client(&mut self, client: ClientId, request: Request, answers: Answers) {
        match request {
            Request::Status => answers.tell(Ok(self.status(true, Instant::now())), true),
            Request::Check => answers.tell(Ok(self.status(false, Instant::now())), true),
            Request::Freeze { seconds, paths } => {
                let Some(hold) = Request::hold(seconds) else {
                    return answers.tell::<()>(Err(Refusal::of("no such hold")), true);
                };
                self.clients.asking = Some(Freezer {
                    client,
                    number: 0,
                    answers,
                    paths,
                });
                self.feed(Event::ManualFreeze { hold });
            }
            Request::Thaw => match self.session.state() {
                State::Closed { .. } | State::Ready | State::Checking { .. } | State::Stopped => {
                    answers.tell(Ok(Thawed::default()), true);
                }
                _ => {
                    self.clients.thawers.push(answers);
                    self.feed(Event::ThawNow);
                }
            },
        }
    }
}
