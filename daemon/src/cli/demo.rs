//! `hv-vssd demo`: see it work, on a machine without Hyper-V.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::CommandResult;
use crate::confine;
use crate::demo::{self, Options};
use crate::telemetry::{Gate, log};

/// See it work: a whole checkpoint on scratch disks, with a simulated host
///
/// Makes small ext4, xfs and btrfs images (those whose mkfs is installed) on loop devices in a mount namespace of
/// their own, lets a program write on each, freezes, copies the images, thaws, and checks the copies. No file system
/// of this machine is frozen, and nothing is left behind. Needs root. Exit status 1 if anything is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the scratch images are made; they take some 100 MB
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/tmp")]
    dir: PathBuf,
    /// Also show the agent's log
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn main(arguments: &Arguments) -> CommandResult {
    confine::require_capabilities()?;
    let level = if arguments.verbose {
        tracing::Level::DEBUG
    } else {
        tracing::Level::WARN
    };
    let gate = Gate::stderr();
    log::init(level, false, gate.clone())?;
    let interrupted = watch_signals()?;
    let options = Options {
        gate,
        directory: arguments.dir.clone(),
        warm_up: Duration::from_millis(700),
    };
    if demo::run(&options, &interrupted)? {
        Ok(())
    } else {
        Err("the demo found something wrong".into())
    }
}

/// Turns SIGINT, SIGTERM and SIGHUP into a wish, so that a frozen scratch disk is never left behind.
fn watch_signals() -> Result<demo::Interrupted, Box<dyn std::error::Error>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Before any thread is started: all of them inherit the mask.
    signals.thread_block()?;
    let theirs = Arc::clone(&interrupted);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while signals.wait().is_ok() {
                theirs.store(true, Ordering::SeqCst);
            }
        })?;
    Ok(interrupted)
}
