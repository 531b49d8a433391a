//! The agent: an event loop around the [`session`] on one thread, with the engine on another.

mod backoff;
mod channel;
mod clients;
mod control;
mod deadlines;
mod desk;
mod ending;
mod idle;
mod manual;
pub mod note;
mod records;
pub mod session;
pub mod single;
mod start;
mod states;
mod view;
mod work;
mod worker;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use hvutil_sys::device::Channel;
use hvutil_sys::vss::{Operation, Status};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

pub use self::channel::Opener;
use self::channel::{OpenerBox, next_message};
use self::clients::Clients;
use self::control::{Control, Message};
use self::records::{Moment, Records};
use self::session::{Action, Event, Session, State};
pub use self::start::{Outlets, StartError};
use self::work::{News, Order};
pub use self::work::{Reload, Reloaded};
use self::worker::Worker;
use crate::quiesce::{AskedBy, Kept};
use crate::telemetry::{Gate, service};

/// How often a log that takes no records is tried again.
const LOG_RETRY: Duration = Duration::from_secs(1);

/// The thread that freezes has died of a defect; what it held it thawed as it unwound.
#[derive(Debug, thiserror::Error)]
#[error("the engine has died of an internal error; start the agent again, and report the log")]
pub struct EngineDied;

/// The agent at work.
#[derive(Debug)]
pub struct Agent {
    session: Session,
    channel: Option<AsyncFd<Channel>>,
    opener: OpenerBox,
    worker: Worker,
    reloads: Option<mpsc::Receiver<()>>,
    retirements: Option<mpsc::Receiver<()>>,
    gate: Gate,
    pending: VecDeque<Event>,
    complained: bool,
    control: Option<Control>,
    clients: Clients,
    records: Records,
    /// Since when the channel is there, or is not.
    channel_since: Moment,
    /// The version of the driver's module, as of the last registration.
    driver_version: Option<String>,
    /// Tells whether the hold that has just begun is kept, until that was told.
    kept: Option<Kept>,
    /// Since when everything is frozen.
    held_since: Option<Instant>,
}

impl Agent {
    /// Serves the host until `shutdown` completes; nothing is frozen when this returns.
    ///
    /// # Errors
    /// [`EngineDied`]: only a new process can go on.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), EngineDied> {
        let mut shutdown = pin!(shutdown);
        let mut asked_to_end = false;
        service::ready();
        while self.session.state() != State::Stopped {
            let event = tokio::select! {
                biased;
                news = self.worker.news() => match news {
                    Some(News::Event(event)) => event,
                    Some(News::Frozen { kept, hold }) => {
                        self.kept = kept;
                        Event::Frozen { hold }
                    }
                    Some(News::Reloaded(Reloaded { limits, textfile })) => {
                        self.records.use_textfile(textfile);
                        self.write_textfile();
                        Event::Reloaded { limits }
                    }
                    Some(News::Thawed(report)) => {
                        self.clients.thawed(&report);
                        continue;
                    }
                    Some(News::Done(done)) => {
                        self.conclude(*done);
                        continue;
                    }
                    // Its engine thawed as it unwound; a new process is the only way to a new one.
                    None => return Err(EngineDied),
                },
                () = &mut shutdown, if !asked_to_end => {
                    asked_to_end = true;
                    Event::Terminate
                }
                () = next_wish(&mut self.reloads) => Event::Reload,
                () = next_wish(&mut self.retirements) => {
                    tracing::info!("asked to end when no checkpoint is under way");
                    Event::Retire
                }
                event = next_message(self.channel.as_ref()) => event,
                () = sleep_until(self.session.deadline()) => Event::Tick,
                message = next_client(self.control.as_mut()) => {
                    self.hear(message);
                    continue;
                }
                // Only while a stopped reader keeps the log waiting.
                () = tokio::time::sleep(LOG_RETRY), if self.gate.has_backlog() => {
                    self.gate.drain();
                    continue;
                }
            };
            self.feed(event);
        }
        service::stopping();
        self.close_books();
        Ok(())
    }

    /// Gives the session an event and does what it wants, and whatever follows from that.
    fn feed(&mut self, event: Event) {
        self.pending.push_back(event);
        while let Some(event) = self.pending.pop_front() {
            let before = self.session.state();
            if let Event::Checked { possible } = event {
                self.records.history.checked(possible);
            }
            for action in self.session.handle(event, Instant::now()) {
                self.perform(action);
            }
            let after = self.session.state();
            if before != after {
                tracing::debug!("{event:?}: {before:?} → {after:?}");
                self.entered(after);
            }
        }
    }

    fn is_still_held(&mut self) -> bool {
        self.kept.take().is_none_or(|kept| kept.is_kept())
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StartCheck => self.worker.check(),
            Action::StartFreeze => {
                tracing::info!("the host asked for FREEZE");
                self.records
                    .tell_systemd("a checkpoint of the host is under way");
                self.worker.freeze(Order {
                    number: self.records.begin(),
                    asked_by: AskedBy::Host,
                    paths: Vec::new(),
                });
            }
            Action::StartManualFreeze => {
                tracing::info!("a manual freeze begins");
                self.records.tell_systemd("a manual freeze is under way");
                let number = self.records.begin();
                self.worker.freeze(Order {
                    number,
                    asked_by: AskedBy::Manual,
                    paths: self.clients.begin(number),
                });
            }
            Action::RefuseManual(busy) => self.clients.refuse(busy),
            Action::ManualHeld(hold) => {
                if self.is_still_held() {
                    self.clients.held(hold);
                } else {
                    self.pending.push_back(Event::HoldBroken);
                }
            }
            Action::AbortFreeze => self.worker.abort(),
            Action::StartThaw => self.worker.thaw(self.session.state().is_asked_to_thaw()),
            Action::StartReload => self.worker.reload(),
            // The last question before success is told is whether it is still true.
            Action::Reply(Operation::FREEZE, Status::Ok) if !self.is_still_held() => {
                self.reply(Operation::FREEZE, Status::Fail);
                self.pending.push_back(Event::HoldBroken);
            }
            Action::Reply(operation, status) => self.reply(operation, status),
            Action::CloseChannel => {
                if self.channel.take().is_some() {
                    self.channel_since = Moment::now();
                    self.records.history.lost_channel();
                }
            }
            Action::OpenChannel => {
                let event = match self.open() {
                    Ok(()) => {
                        tracing::info!("registered with the driver again");
                        self.complained = false;
                        Event::Opened
                    }
                    Err(error) => {
                        self.complain(&error);
                        Event::OpenFailed
                    }
                };
                self.pending.push_back(event);
            }
            Action::Note(note) => {
                self.records.note(note);
                tracing::warn!("{note}");
            }
            Action::Exit => {}
        }
    }
}

async fn next_wish(wishes: &mut Option<mpsc::Receiver<()>>) {
    if let Some(wishes) = wishes {
        if wishes.recv().await.is_some() {
            return;
        }
    }
    std::future::pending().await
}

async fn next_client(control: Option<&mut Control>) -> Message {
    match control {
        Some(control) => control.message().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
