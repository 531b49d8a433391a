//! The two agents under test.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Failure, Step};
use crate::guest::Guest;
use crate::host::Operation;
use crate::proto::JobState;

/// From the agent's start to its first success, on a busy machine.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(20);

/// Who answers the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// This project's.
    HvVssd,
    /// The C daemon of the kernel's sources.
    CDaemon,
}

impl Agent {
    /// Its name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HvVssd => "hv-vssd",
            Self::CDaemon => "hv_vss_daemon",
        }
    }

    /// The command that runs it in the foreground.
    #[must_use]
    pub fn command(self) -> &'static [&'static str] {
        match self {
            Self::HvVssd => &["/usr/sbin/hv-vssd", "run"],
            Self::CDaemon => &["/usr/sbin/hv_vss_daemon", "-n"],
        }
    }

    /// Starts it as background process `job` and does not wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(self, guest: &Guest, job: &str) -> Step<()> {
        guest.spawn(job, self.command())?;
        Ok(())
    }

    /// Starts it and waits until the host's HOT_BACKUP is answered with success.
    ///
    /// # Errors
    /// It does not register in time.
    pub fn start(self, guest: &mut Guest) -> Step<()> {
        self.spawn(guest, self.name())?;
        self.wait_registered(guest)
    }

    /// Waits until the host's HOT_BACKUP is answered with success.
    ///
    /// # Errors
    /// It does not register in time.
    pub fn wait_registered(self, guest: &mut Guest) -> Step<()> {
        let deadline = Instant::now() + REGISTRATION_LIMIT;
        loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let answer = guest.host()?.try_request(Operation::HOT_BACKUP, limit)?;
            if answer.is_some_and(crate::host::Answer::ok) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Failure::Promise(format!(
                    "{} did not register within {REGISTRATION_LIMIT:?}",
                    self.name()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its state as a background process.
    ///
    /// # Errors
    /// It was never started.
    pub fn state(self, guest: &Guest) -> Step<JobState> {
        Ok(guest.job(self.name())?)
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(self, guest: &Guest) -> Step<()> {
        guest.signal(self.name(), Signal::SIGTERM)?;
        let limit = Duration::from_secs(10);
        let ended = crate::guest::poll_until(limit, || {
            let state = self.state(guest)?;
            Ok::<_, Failure>((!state.running).then_some(()))
        })?;
        ended.ok_or_else(|| {
            Failure::Promise(format!(
                "{} did not end on SIGTERM in {limit:?}",
                self.name()
            ))
        })
    }

    /// What it logged: its own output and, for the C daemon, syslog.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn log(self, guest: &Guest) -> Step<String> {
        let mut log = self.state(guest)?.output;
        log.push_str(&guest.syslog()?);
        Ok(log)
    }

    /// Where it names what it does not freeze, and why: `hv-vssd plan`; the C daemon has
    /// only its log.
    ///
    /// # Errors
    /// The plan fails.
    pub fn what_it_leaves_out(self, guest: &Guest) -> Step<String> {
        if self == Self::CDaemon {
            return self.log(guest);
        }
        Ok(guest.sh("/usr/sbin/hv-vssd plan --json")?)
    }
}
