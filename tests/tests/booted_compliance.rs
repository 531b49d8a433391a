//! How Microsoft's suites look for the daemon in a guest, and stop and start it; docs/compliance.md lists the cases.

use std::time::Duration;

use tests::agent::Agent;
use tests::booted::{self, System};
use tests::error::Step;
use tests::faults::fails;
use tests::guest::Guest;
use tests::host::Operation;
use tests::steps::checkpoint;
use tests::{promise, scenario};

/// A promise that is kept soon is kept within this time, on a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// The names under which the suites know the service.
const NAMES: [&str; 3] = ["hypervvssd", "hv_vss_daemon", "hv-vss-daemon"];

/// What the checks for errors look for in the logs of a boot, in either case of letters.
const BAD_WORDS: [&str; 3] = ["error", "fail", "warning"];

/// The unit that the script of the fall-back cases stops: the last one with "vss" in the list of all.
fn last_listed(guest: &Guest) -> Step<String> {
    let list = guest.sh("systemctl --no-legend --no-pager")?;
    let line = list.lines().rfind(|line| line.contains("vss"));
    let words = line.unwrap_or_default().split_whitespace();
    // A unit in trouble has a mark in front.
    let name = words.into_iter().find(|word| word.len() > 2);
    Ok(name.unwrap_or_default().to_owned())
}

/// The unit files that the script of the case with a stopped service stops, then starts. One for the
/// distribution's own daemon, where hv-vssd has its own: it is nobody's to start there.
fn known_files(guest: &Guest) -> Step<Vec<String>> {
    // From the files themselves: on a busy machine systemd's own answer may come too late for systemctl.
    let list = guest.sh("systemctl --root=/ list-unit-files --no-legend --no-pager 'h*vss*'")?;
    let files = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let known = files.filter(|file| NAMES.iter().any(|name| *file == format!("{name}.service")));
    Ok(known.map(ToOwned::to_owned).collect())
}

scenario! {
    /// Row 26: STOR_VSS_Check_VSS_Daemon, PC_Stop_VSS_Daemon, STOR_VSS_Set_VSS_Daemon, VERIFY-BOOT-ERROR-WARNINGS.
    row: "26", "a booted Debian: the service found, stopped and started as the scripts of Microsoft's suites do; their search of the log for errors",
    c_daemon_gap: None,
    fn microsofts_scripts_find_stop_and_start_the_service(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        checkpoint(&mut guest)?;
        let said = booted::journal(&guest, bed.agent)?.to_lowercase();
        let bad = said.lines().find(|line| BAD_WORDS.iter().any(|word| line.contains(word)));
        promise!(bad.is_none(), "in the log of a boot: {}", bad.unwrap_or_default());

        let states = guest.sh(&format!("systemctl is-active {} || true", NAMES.join(" ")))?;
        let active = states.lines().filter(|state| *state == "active").count();
        promise!(active > 0, "not active under any of {NAMES:?}: {states}");
        if bed.agent == Agent::HvVssd {
            promise!(active == NAMES.len(), "not active under all of {NAMES:?}: {states}");
        }

        let stopped = last_listed(&guest)?;
        promise!(stopped == booted::unit(bed.agent), "the last unit with vss in its line is {stopped:?}");
        guest.sh(&format!("systemctl stop {stopped}"))?;
        fails(&mut guest, Operation::HOT_BACKUP, SOON)?;
        guest.sh(&format!("systemctl start {stopped}"))?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;

        let files = known_files(&guest)?;
        promise!(!files.is_empty(), "no unit file has one of the names {NAMES:?}");
        for file in &files {
            guest.sh(&format!("systemctl stop {file}"))?;
        }
        fails(&mut guest, Operation::HOT_BACKUP, SOON)?;
        for file in &files {
            guest.sh(&format!("systemctl start {file}"))?;
        }
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        booted::nothing_failed(&guest)?;
        Ok("found, stopped and started; stopped, HOT_BACKUP fails, started, a checkpoint works; nothing in the log that looks like an error".into())
    }
}
