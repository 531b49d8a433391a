//! `hv-vssd freeze` on a booted Debian: its own `/` is held, the journal lies on it, and the service is stopped for it.

use nix::sys::signal::Signal;
use tests::booted::{self, System};
use tests::error::{Failure, Step};
use tests::guest::{Guest, poll_until};
use tests::steps::{LIFE_LIMIT, checkpoint, frozen, writable, writers_go_on, writers_sleep};
use tests::{promise, scenario};

const WRITTEN: [&str; 2] = ["/var/tmp", "/srv"];

const JOB: &str = "freeze";

/// Freezes everything, and ends it by `signal`, or lets it end; the status and what was said.
fn freeze(guest: &Guest, time: &str, signal: Option<Signal>) -> Step<(Option<i32>, String)> {
    let points = WRITTEN.map(ToOwned::to_owned);
    writers_go_on(guest, &points)?;
    guest.spawn(JOB, &["hv-vssd", "freeze", "--for", time])?;
    writers_sleep(guest, &points)?;
    frozen(guest, &WRITTEN)?;
    if let Some(signal) = signal {
        guest.signal(JOB, signal)?;
    }
    let state = poll_until(LIFE_LIMIT * 3, || {
        let state = guest.job(JOB)?;
        Ok::<_, Failure>((!state.running).then_some(state))
    })?;
    let state = state.ok_or_else(|| Failure::Promise("the command does not end".into()))?;
    writers_go_on(guest, &points)?;
    writable(guest, &WRITTEN)?;
    // The guardian of a killed command may have said its last word since.
    let output = guest.job(JOB)?.output;
    Ok((state.status, output))
}

scenario! {
    row: "", "a booted Debian, / itself frozen by hand: to its end, with SIGINT and with SIGKILL in the hold",
    hv_vssd_alone,
    fn a_freeze_of_root_by_hand_always_thaws(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        guest.sh("systemctl stop hv-vssd.service")?;
        for point in WRITTEN {
            guest.start_writer(point)?;
        }
        let (status, said) = freeze(&guest, "10s", None)?;
        promise!(status == Some(0), "status {status:?}: {said}");
        let (status, said) = freeze(&guest, "100s", Some(Signal::SIGINT))?;
        promise!(status == Some(4), "status {status:?}: {said}");
        let (_, said) = freeze(&guest, "100s", Some(Signal::SIGKILL))?;
        promise!(said.contains("guardian: "), "the guardian said nothing: {said}");
        guest.sh("systemctl start hv-vssd.service")?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        let failed = booted::failed_units(&guest)?;
        promise!(failed.is_empty(), "failed units: {}", failed.join(", "));
        Ok("status 0 and 4; thawed by the guardian when killed; the service's next checkpoint works".into())
    }
}
