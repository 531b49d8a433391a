//! Commands given in a hold of a booted system, which may need the frozen `/` themselves.

use std::time::{Duration, Instant};

use crate::booted::WRITTEN;
use crate::error::{Failure, Step};
use crate::faults::{fails, writable_within};
use crate::guest::{Guest, poll_until};
use crate::host::Operation;
use crate::promise;
use crate::steps::{frozen, succeeds, writable};

/// A promise that is kept soon is kept within this time, on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);

/// The command's own end is nobody's promise; systemd reloading itself takes long on a busy machine.
const END_LIMIT: Duration = Duration::from_secs(180);

/// The background process of the command.
const JOB: &str = "command";

fn start(guest: &Guest, command: &str) -> Step<()> {
    guest.spawn(JOB, &["/bin/sh", "-euc", command])?;
    Ok(())
}

/// The command ends, with success.
fn succeeded(guest: &Guest, command: &str) -> Step<()> {
    let ended = poll_until(END_LIMIT, || {
        let state = guest.job(JOB)?;
        Ok::<_, Failure>((!state.running).then_some(state))
    })?;
    let status = ended.as_ref().and_then(|state| state.status);
    promise!(status == Some(0), "{command}: {ended:?}");
    Ok(())
}

/// A hold that a command ends before the host does: all is writable again, the host is told
/// failure. Gives the time it took.
///
/// # Errors
/// Something stays frozen, the host hears success, or the command fails.
pub fn ends_a_hold(guest: &mut Guest, command: &str) -> Step<Duration> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    succeeds(guest, Operation::FREEZE)?;
    frozen(guest, &WRITTEN)?;
    let struck = Instant::now();
    start(guest, command)?;
    let took = writable_within(guest, &WRITTEN.map(ToOwned::to_owned), struck, SOON)?;
    fails(guest, Operation::THAW, SOON)?;
    succeeded(guest, command)?;
    Ok(took)
}

/// A hold that a command leaves alone: frozen until the host's THAW, which succeeds.
///
/// # Errors
/// It ends early, a status is failure, or the command fails.
pub fn leaves_a_hold(guest: &mut Guest, command: &str) -> Step<()> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    succeeds(guest, Operation::FREEZE)?;
    start(guest, command)?;
    // It may need the frozen `/` to end; what it does to the agent it does soon.
    poll_until(Duration::from_secs(4), || {
        Ok::<_, Failure>((!guest.job(JOB)?.running).then_some(()))
    })?;
    frozen(guest, &WRITTEN)?;
    succeeds(guest, Operation::THAW)?;
    writable(guest, &WRITTEN)?;
    succeeded(guest, command)
}

/// A checkpoint that begins after the command has: frozen while the command runs, all with success; the command sleeps
/// on the frozen `/`, and ends after the thaw.
///
/// # Errors
/// A status is failure, the command was too quick to be held, or it fails.
pub fn holds_a_command(guest: &mut Guest, command: &str) -> Step<()> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    start(guest, command)?;
    succeeds(guest, Operation::FREEZE)?;
    frozen(guest, &WRITTEN)?;
    promise!(
        guest.job(JOB)?.running,
        "the freeze came after the end of {command}"
    );
    succeeds(guest, Operation::THAW)?;
    writable(guest, &WRITTEN)?;
    succeeded(guest, command)
}
