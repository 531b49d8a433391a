//! Commands and background processes in a guest.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{COMMAND_LIMIT, Guest, unexpected};
use crate::error::{BedError, BedResult};
use crate::proto::{Call, Ended, JobState, Reply};

impl Guest {
    /// Runs a command to its end, whatever its status.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn exec(&self, argv: &[&str], limit: Duration) -> BedResult<Ended> {
        let call = Call::Exec {
            argv: argv.iter().map(ToString::to_string).collect(),
            stdin: String::new(),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let grace = Duration::from_secs(20);
        match self.control.start(call)?.wait(limit + grace)? {
            Reply::Exec(ended) => Ok(ended),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a shell script that must succeed and returns what it printed.
    ///
    /// # Errors
    /// It fails or takes longer than [`COMMAND_LIMIT`].
    pub fn sh(&self, script: &str) -> BedResult<String> {
        let ended = self.exec(&["/bin/sh", "-euc", script], COMMAND_LIMIT)?;
        if ended.status == Some(0) {
            return Ok(ended.stdout);
        }
        Err(BedError::Command {
            command: script.into(),
            status: format!("{:?}, timed out: {}", ended.status, ended.timed_out),
            output: ended.stdout + &ended.stderr,
        })
    }

    /// Starts a background process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, job: &str, argv: &[&str]) -> BedResult<i32> {
        self.spawn_with(job, argv, &[])
    }

    /// As [`Self::spawn`], with variables added to its environment.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_with(&self, job: &str, argv: &[&str], env: &[(&str, &str)]) -> BedResult<i32> {
        let mut jobs = self.jobs.borrow_mut();
        if !jobs.iter().any(|known| known == job) {
            jobs.push(job.into());
        }
        drop(jobs);
        let call = Call::Spawn {
            job: job.into(),
            argv: argv.iter().map(ToString::to_string).collect(),
            env: env
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        };
        match self.call(call)? {
            Reply::Spawned { pid } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a signal to a background process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, job: &str, signal: Signal) -> BedResult<()> {
        self.call(Call::Signal {
            job: job.into(),
            signal: signal as i32,
        })?;
        Ok(())
    }

    /// The state of a background process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn job(&self, job: &str) -> BedResult<JobState> {
        match self.call(Call::Job { job: job.into() })? {
            Reply::Job(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }
}
