//! A freeze by the agent that runs, asked for over its control socket.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::interrupt::Interrupt;
use crate::cli::Special;
use crate::control::{self, Client, ClientError, FreezeAnswer, Request};
use crate::quiesce::Report;

/// How often an interrupt is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// From an interrupt to the report: a thaw and the hooks after it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Lets the agent freeze what holds `paths`, or everything; returns when it is thawed. An interrupt thaws at once.
pub(super) fn freeze(
    paths: &[PathBuf],
    hold: Duration,
    interrupt: &Interrupt,
    begin: impl FnOnce(),
) -> Result<Report, Box<dyn std::error::Error>> {
    let mut client = Client::connect(Path::new(control::DEFAULT_PATH)).map_err(refused)?;
    // The agent looks no path up.
    let paths = paths.iter().map(std::fs::canonicalize);
    begin();
    client
        .send(&Request::Freeze {
            seconds: hold.as_secs_f64(),
            paths: paths.collect::<Result<_, _>>()?,
        })
        .map_err(refused)?;
    client.set_patience(Some(LOOK))?;
    let mut give_up_at = None;
    loop {
        match client.answer() {
            Ok(FreezeAnswer::Held { .. }) => {}
            Ok(FreezeAnswer::Done { report }) => return Ok(*report),
            Err(ClientError::Silent) => match give_up_at {
                None if interrupt.by().is_some() => {
                    client.end()?;
                    give_up_at = Some(Instant::now() + PATIENCE);
                }
                Some(limit) if Instant::now() > limit => return Err(ClientError::Silent.into()),
                _ => {}
            },
            Err(error) => return Err(refused(error)),
        }
    }
}

fn refused(error: ClientError) -> Box<dyn std::error::Error> {
    match error {
        ClientError::NotRunning => Special::busy(
            "another 'hv-vssd freeze' is at work, or an agent that does not listen yet: try again when it is done",
        )
        .into(),
        error if error.is_busy() => Special::busy(error.to_string()).into(),
        error => error.into(),
    }
}
