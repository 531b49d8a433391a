//! `hv-vssd guardian`: the second process of an agent, which starts it; not for a person.

use std::ffi::OsString;
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

impl Arguments {
    /// From the words with which an agent starts it, and no others.
    pub(super) fn as_started(words: &[OsString]) -> Option<Self> {
        match words {
            [_, command, option, agent] if command == "guardian" && option == "--agent" => {
                let agent = agent.to_str()?.parse().ok()?;
                Some(Self { agent })
            }
            _ => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(line: &str) -> Option<i32> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Arguments::as_started(&words).map(|arguments| arguments.agent)
    }

    #[test]
    fn only_what_an_agent_says_goes_past_the_command_line() {
        assert_eq!(agent("hv-vssd guardian --agent 17"), Some(17));
        for other in [
            "hv-vssd",
            "hv-vssd guardian",
            "hv-vssd guardian --agent x",
            "hv-vssd guardian --agent 17 --help",
            "hv-vssd guardian --help 17",
            "hv-vssd run --agent 17",
        ] {
            assert_eq!(agent(other), None, "{other}");
        }
    }
}
