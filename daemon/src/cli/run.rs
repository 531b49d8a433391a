//! `hv-vssd run`: the service.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hvutil_sys::device::{Channel, DEFAULT_PATH};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{CommandResult, ConfigArguments, engine, recover, signals};
use crate::agent::{Agent, Outlets, Reload, Reloaded, session};
use crate::config::{Config, Strictness};
use crate::confine;
use crate::control;
use crate::quiesce::Kernel;
use crate::quiesce::guardian::Guardian;
use crate::telemetry::{Gate, journal, log};

/// Serve the host: this is what the systemd service runs
///
/// Registers with the kernel's driver and answers the host's HOT_BACKUP, FREEZE and THAW until SIGTERM or SIGINT.
/// SIGHUP reads the configuration again, after the checkpoint if one is under way. SIGUSR1 ends it as SIGTERM does, but
/// never in a checkpoint: an upgrade sends it, and systemd starts the new program. Needs root. Logs to standard error.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The driver's character device
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    device: PathBuf,
    /// Also log each step and each file system
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

/// Each ends it after a thaw.
const ENDS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
const RELOAD: Signal = Signal::SIGHUP;
const RETIRE: Signal = Signal::SIGUSR1;

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    let [terminate, interrupt, quit] = ENDS;
    signals::block_all_but(&[terminate, interrupt, quit, RELOAD, RETIRE]);
    let gate = Gate::stderr();
    let level = if arguments.verbose {
        tracing::Level::DEBUG
    } else {
        tracing::Level::INFO
    };
    log::init(level, log::stderr_is_journal(), gate.clone())?;
    // Before anything that can fail.
    let only = recover::lock_and_recover();
    let config = Config::load(arguments.config.config.as_deref())?;
    confine::require_capabilities()?;
    engine::confine();
    let _only = only?;
    let device = arguments.device.clone();
    // This thread lives as long as the agent: its end is what the guardian watches for.
    let guardian = Guardian::start(true)?;
    let engine = engine::engine(&config, engine::limits(&config), guardian, gate);
    warn_of(&config);
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?
        .block_on(async {
            // Before the first registration, so that no signal can end the process in a hold.
            let mut ends = heard(&ENDS)?;
            let reloads = heard(&[RELOAD])?;
            let retirements = heard(&[RETIRE])?;
            let opener = Box::new(move || Channel::open(&device));
            let reload = (reloads, reload(arguments.config.config.clone()));
            let agent = Agent::start_reloadable(engine, session_limits(&config), opener, reload)?;
            let agent = agent.with_retirements(retirements).with_outlets(Outlets {
                control: Some(control::DEFAULT_PATH.into()),
                textfile: config.metrics.textfile.clone(),
                journal: log::stderr_is_journal().then(|| journal::SOCKET.into()),
            });
            tracing::info!(
                "registered with the driver at {}",
                arguments.device.display()
            );
            agent
                .run(async move {
                    let _ = ends.recv().await;
                })
                .await?;
            Ok(())
        })
}

/// Reads the same files as at the start.
fn reload(path: Option<PathBuf>) -> Reload<Kernel> {
    Box::new(move |running| {
        let config = Config::load(path.as_deref())?;
        engine::configure(running, &config);
        warn_of(&config);
        Ok(Reloaded {
            limits: session_limits(&config),
            textfile: config.metrics.textfile,
        })
    })
}

/// An operator who did not mean it must see it before the first backup.
fn warn_of(config: &Config) {
    if config.strictness == Strictness::FlushOnly {
        tracing::warn!(
            "strictness = \"flush-only\": nothing will be frozen, and images are only crash-consistent"
        );
    }
}

/// One message for each of these signals; none of them ends the process by itself any more, or a hold.
fn heard(signals: &[Signal]) -> io::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(1);
    for number in signals {
        let mut signal = signal(SignalKind::from_raw(*number as i32))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                let _ = sender.try_send(());
            }
        });
    }
    Ok(receiver)
}

/// The session's share of the limits.
pub(super) fn session_limits(config: &Config) -> session::Limits {
    session::Limits {
        freeze_request: Duration::from_secs(config.freeze_request()),
        hold: Duration::from_secs(config.limits.hold),
    }
}
