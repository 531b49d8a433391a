//! The agent as others see it: its status, and what systemd and Prometheus are told.

use std::path::Path;
use std::time::Instant;

use hvutil_sys::vss::Operation;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::Agent;
use super::records::Moment;
use super::session::State;
use super::work::{Done, News};
use crate::quiesce::report::AskedBy;
use crate::status::{Guardian, HoldNow, Service, Status, Work, render_prometheus};

impl Agent {
    /// How the agent is; with the last checkpoints if `whole`. Opens and waits for nothing.
    pub(super) fn status(&self, whole: bool, now: Instant) -> Status {
        let state = self.session.state();
        let Moment { text, unix } = self.channel_since.clone();
        let registered = self.channel.is_some();
        let checkpoints = self.records.history.checkpoints().filter(|_| whole);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.records.started.text.clone(),
            started_unix: self.records.started.unix,
            service: Service {
                registered,
                since: text,
                since_unix: unix,
                driver_version: self.driver_version.clone().filter(|_| registered),
                protocol: registered.then_some(Operation::REGISTER1.0),
            },
            guardian: guardian(self.worker.guardian_pid()),
            work: work(state),
            hold: self.hold_now(state, now),
            counters: self.records.history.counters().clone(),
            checkpoints: checkpoints.cloned().collect(),
        }
    }

    fn hold_now(&self, state: State, now: Instant) -> Option<HoldNow> {
        let (asked_by, until) = match state {
            State::Held { until } => (AskedBy::Host, until),
            State::ManualHeld { until, .. } => (AskedBy::Manual, until),
            _ => return None,
        };
        let tenths = |time: std::time::Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        Some(HoldNow {
            asked_by,
            seconds: tenths(now.saturating_duration_since(self.held_since?)),
            ends_in_seconds: tenths(until.saturating_duration_since(now)),
        })
    }

    /// The session is in another state now.
    pub(super) fn entered(&mut self, state: State) {
        self.held_since = match state {
            State::Held { .. } | State::ManualHeld { .. } => Some(Instant::now()),
            _ => None,
        };
        if let State::Ready | State::Closed { .. } = state {
            self.tell_systemd();
            self.write_textfile();
        }
    }

    /// A checkpoint is over, with all that follows.
    pub(super) fn conclude(&mut self, done: Done) {
        let Done {
            number,
            mut report,
            cause,
        } = done;
        self.records.done(number, &mut report, cause);
        self.clients.done(number, &report);
        self.tell_systemd();
        self.write_textfile();
    }

    /// The engine has ended: what it still had to tell, and the last word for Prometheus.
    pub(super) fn close_books(&mut self) {
        for news in self.worker.end() {
            match news {
                News::Thawed(report) => self.clients.thawed(&report),
                News::Done(done) => self.conclude(*done),
                News::Event(_) | News::Frozen { .. } | News::Reloaded(_) => {}
            }
        }
        self.write_textfile();
        self.records.finish_textfile();
    }

    /// Silent from the first freeze to the last thaw.
    fn tell_systemd(&self) {
        match self.session.state() {
            State::Ready => self.records.tell_systemd("registered with the host"),
            State::Closed { .. } => {
                self.records
                    .tell_systemd("waiting for the host's backup service");
            }
            _ => {}
        }
    }

    /// Not while anything may be frozen: what comes after it writes the file.
    pub(super) fn write_textfile(&self) {
        let idle = matches!(
            self.session.state(),
            State::Ready | State::Closed { .. } | State::Stopped
        );
        if idle && self.records.has_textfile() {
            let status = self.status(true, Instant::now());
            self.records.write_textfile(render_prometheus(&status));
        }
    }
}

fn work(state: State) -> Work {
    match state {
        State::Closed { .. } | State::Ready => Work::Idle,
        State::Checking { .. } => Work::Checking,
        State::Freezing { .. } => Work::Freezing,
        State::Held { .. } => Work::Held,
        State::Thawing { .. } => Work::Thawing,
        State::ManualFreezing { .. } => Work::ManualFreezing,
        State::ManualHeld { .. } => Work::ManualHeld,
        State::ManualThawing { .. } => Work::ManualThawing,
        State::Stopped => Work::Stopping,
    }
}

/// Asks the kernel whether the child has ended, and leaves it to whoever reaps it.
fn guardian(pid: Option<u32>) -> Guardian {
    let child = pid
        .and_then(|pid| i32::try_from(pid).ok())
        .map(Pid::from_raw);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let alive = child
        .is_some_and(|child| matches!(waitid(Id::Pid(child), flags), Ok(WaitStatus::StillAlive)));
    Guardian { pid, alive }
}

/// What `hv_utils` says of itself, where it says anything.
pub(super) fn driver_version() -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/sys/module/hv_utils/version")).ok()?;
    let text = text.trim();
    (!text.is_empty() && text.len() <= 64).then(|| text.to_owned())
}
