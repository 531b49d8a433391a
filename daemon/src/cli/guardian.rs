//! `hv-vssd guardian`: the second process of an agent, which starts it; not for a person.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use super::CommandResult;
use crate::quiesce::guardian::process;
use crate::telemetry::{Gate, log};
use crate::{confine, quiesce};

/// The process that thaws should the agent die; started by the agent itself
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The agent's process id
    #[arg(long, value_name = "PID")]
    agent: i32,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    if io::stdin().is_terminal() {
        return Err(
            "this command is started by 'hv-vssd run', with a socket as its standard input".into(),
        );
    }
    log::init(
        tracing::Level::INFO,
        log::stderr_is_journal(),
        Gate::stderr(),
    )?;
    confine::confine(&confine::GUARDIAN);
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    process::run(socket, arguments.agent)
        .map_err(|error| format!("guardian: {}", quiesce::error::with_causes(&error)).into())
}
