//! `hv-vssd status`: how the running agent is, and what it did.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CommandResult, print};
use crate::check::Halted;
use crate::control::{self, Client, Request};
use crate::status::{Status, render_prometheus, render_status};

/// Show how the running agent is, its last checkpoints and its counters
///
/// Asks the agent over its control socket, also while it holds; so it needs root. Everything is counted since the
/// agent's start. Exit status 1 if no agent is running.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON for a program instead of tables
    #[arg(long, conflicts_with = "prometheus")]
    json: bool,
    /// Print metrics in the text format of Prometheus
    #[arg(long, conflicts_with = "watch")]
    prometheus: bool,
    /// Show the file systems of all checkpoints, not only of the last one, and long paths whole
    #[arg(long, short)]
    all: bool,
    /// Show it again and again, every so many seconds, until interrupted
    #[arg(
        long,
        short,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u16).range(1..=3600)
    )]
    watch: Option<u16>,
    /// The agent's control socket
    #[arg(long, value_name = "PATH", default_value = control::DEFAULT_PATH)]
    socket: PathBuf,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    if let Some(seconds) = arguments.watch {
        return print::unless_closed(watch(arguments, Duration::from_secs(seconds.into())));
    }
    let status = ask(&arguments.socket)?;
    if arguments.json {
        print::json(&status)
    } else if arguments.prometheus {
        print::text(&render_prometheus(&status))
    } else {
        print::text(&render_status(&status, arguments.all))
    }
}

fn ask(socket: &Path) -> Result<Status, Box<dyn std::error::Error>> {
    // One that is halted would be waited for in vain.
    let is_the_services = socket == Path::new(control::DEFAULT_PATH);
    if let Some(halted) = is_the_services.then(Halted::agent).flatten() {
        let remedy = halted.remedy();
        return Err(format!(
            "{halted}, so it does not answer: '{remedy}' lets it go on, 'hv-vssd thaw' thaws without it"
        )
        .into());
    }
    let asked = Client::connect(socket).and_then(|mut agent| agent.ask(&Request::Status));
    Ok(asked?)
}

/// An agent that has gone is waited for: it is shown that there is none. As JSON one line each time.
fn watch(arguments: &Arguments, pause: Duration) -> io::Result<()> {
    let mut output = io::stdout().lock();
    loop {
        let status = ask(&arguments.socket);
        if arguments.json {
            let line = match &status {
                Ok(status) => serde_json::to_string(status),
                Err(error) => {
                    serde_json::to_string(&serde_json::json!({ "error": error.to_string() }))
                }
            };
            writeln!(output, "{}", line.map_err(io::Error::from)?)?;
        } else {
            // The cursor to the top, and nothing below it.
            let text = match &status {
                Ok(status) => render_status(status, arguments.all),
                Err(error) => format!("{error}\n"),
            };
            write!(output, "\x1b[H\x1b[J{text}")?;
        }
        output.flush()?;
        std::thread::sleep(pause);
    }
}
