//! What systemd and udev do to the agent, also while `/` is frozen.

use std::time::{Duration, Instant};

use tests::agent::Agent;
use tests::booted::{self, System, WRITTEN};
use tests::error::{Failure, Step};
use tests::faults::{answer, begin, fails, writable_within};
use tests::guest::{COMMAND_LIMIT, Guest, poll_until};
use tests::held::{SOON, ends_a_hold, leaves_a_hold};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{checkpoint, frozen, succeeds, writable};
use tests::{promise, scenario};

/// The agent gets a signal while FREEZE is under way, or just after it: whatever the host is told, all is writable again.
fn dies_while_freezing(guest: &mut Guest, command: &str) -> Step<()> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    let transaction = begin(guest, Operation::FREEZE)?;
    let struck = Instant::now();
    guest.sh(command)?;
    writable_within(guest, &WRITTEN.map(ToOwned::to_owned), struck, SOON)?;
    answer(guest, transaction, SOON)?;
    Ok(())
}

/// SIGKILL of all processes in a hold, and systemd starts the service no more, because it was started too often: the one
/// case in which no next start thaws.
fn given_up_by_systemd(bed: &Bed, guest: &mut Guest, unit: &str) -> Step<Duration> {
    let drop_in = format!("/run/systemd/system/{unit}.d");
    guest.sh(&format!(
        "mkdir -p {drop_in}; printf '[Unit]\\nStartLimitBurst=1\\nStartLimitIntervalSec=600\\n' > {drop_in}/once.conf
        systemctl daemon-reload; systemctl reset-failed {unit} || true; systemctl restart {unit}"
    ))?;
    bed.agent.wait_registered(guest)?;
    let took = ends_a_hold(guest, &format!("systemctl kill -s KILL {unit}"))?;
    let given_up = poll_until(SOON, || {
        let state = booted::property(guest, unit, "ActiveState")?;
        Ok::<_, Failure>((state == "failed").then_some(()))
    })?;
    promise!(given_up.is_some(), "systemd has not given {unit} up");
    guest.sh(&format!(
        "rm -r {drop_in}; systemctl daemon-reload; systemctl reset-failed {unit}; systemctl start {unit}"
    ))?;
    bed.agent.wait_registered(guest)?;
    checkpoint(guest)?;
    Ok(took)
}

scenario! {
    /// Rows 3, 4 and 19, with systemd as the one that kills, stops and starts.
    row: "3", "in a hold of a booted Debian: SIGKILL of the agent, of all its processes, systemctl restart, the OOM killer, systemctl stop, then start; SIGKILL of all when systemd starts it no more. SIGKILL and SIGTERM in a FREEZE",
    c_daemon_gap: Some("leaves everything frozen, / too"),
    fn whatever_systemd_does_nothing_stays_frozen(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        let unit = booted::unit(bed.agent);
        let mut seen = Vec::new();
        for (name, command) in [
            ("SIGKILL", format!("systemctl kill --kill-whom=main -s KILL {unit}")),
            ("SIGKILL of all", format!("systemctl kill -s KILL {unit}")),
            ("restart", format!("systemctl restart {unit}")),
        ] {
            let took = ends_a_hold(&mut guest, &command)?;
            bed.measured(name, took);
            seen.push(format!("{name} {:.1} s", took.as_secs_f64()));
            bed.agent.wait_registered(&mut guest)?;
            checkpoint(&mut guest)?;
        }
        for signal in ["KILL", "TERM"] {
            dies_while_freezing(&mut guest, &format!("systemctl kill --kill-whom=main -s {signal} {unit}"))?;
            bed.agent.wait_registered(&mut guest)?;
            checkpoint(&mut guest)?;
        }
        // The OOM killer's choice, by the kernel's own rule.
        let pid = booted::property(&guest, unit, "MainPID")?;
        guest.sh(&format!("echo 1000 > /proc/{pid}/oom_score_adj; echo 1 > /proc/sys/kernel/sysrq"))?;
        let took = ends_a_hold(&mut guest, "echo f > /proc/sysrq-trigger")?;
        bed.measured("OOM killer", took);
        seen.push(format!("OOM killer {:.1} s", took.as_secs_f64()));
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        let took = ends_a_hold(&mut guest, &format!("systemctl stop {unit}"))?;
        bed.measured("stop", took);
        seen.push(format!("stop {:.1} s", took.as_secs_f64()));
        fails(&mut guest, Operation::HOT_BACKUP, SOON)?;
        guest.sh(&format!("systemctl start {unit}"))?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        let took = given_up_by_systemd(bed, &mut guest, unit)?;
        bed.measured("given up", took);
        seen.push(format!("given up by systemd {:.1} s", took.as_secs_f64()));
        booted::nothing_failed(&guest)?;
        Ok(format!("writable after {}; the host told failure, the next checkpoint works, each time", seen.join(", ")))
    }
}

scenario! {
    /// Row 19: what an administrator or an upgrade of systemd does must not fail the backup.
    row: "19", "in a hold of a booted Debian: systemctl daemon-reload, daemon-reexec, isolate",
    c_daemon_gap: Some("is stopped by isolate, and leaves everything frozen"),
    fn a_hold_outlasts_what_systemd_does_to_itself(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        let unit = booted::unit(bed.agent);
        let pid = booted::property(&guest, unit, "MainPID")?;
        for command in ["daemon-reload", "daemon-reexec", "isolate multi-user.target"] {
            leaves_a_hold(&mut guest, &format!("systemctl {command}"))?;
        }
        promise!(booted::property(&guest, unit, "MainPID")? == pid, "the agent was started anew");
        checkpoint(&mut guest)?;
        booted::nothing_failed(&guest)?;
        Ok("frozen until THAW, all statuses 0, the same agent".into())
    }
}

/// The host switches the service off and on.
fn off_and_on(bed: &Bed, guest: &mut Guest) -> Step<()> {
    let off = guest.host_does("remove")?;
    off.wait(SOON).map_err(|_| {
        Failure::Promise(format!(
            "the device was still open {SOON:?} after the service was switched off"
        ))
    })?;
    guest.host_does("probe")?.wait(SOON)?;
    guest.host()?.negotiate()?;
    bed.agent.wait_registered(guest)
}

scenario! {
    /// Rows 22 and 18, with udev as the one that starts the agent.
    row: "22", "a booted Debian without the device; then the host switches the service on (hv-vssd alone: off and on, also in a hold; a second agent)",
    c_daemon_gap: None,
    fn without_the_device_nothing_waits_and_nothing_fails(bed) {
        let mut guest = bed.boot_system(&System::new().unplugged())?;
        let unit = booted::unit(bed.agent);
        promise!(
            booted::property(&guest, unit, "ActiveState")? == "inactive",
            "{unit} is not inactive without the device"
        );
        let waited = guest.sh("journalctl -b -o cat -g 'Timed out waiting|timed out' || true")?;
        promise!(waited.is_empty(), "the boot waited: {waited}");
        let boot = guest.sh("systemctl show --value -p FinishTimestampMonotonic -p UserspaceTimestampMonotonic")?;
        let times: Vec<u64> = boot.lines().flat_map(str::parse).collect();
        if let [one, other] = times.as_slice() {
            bed.measured("systemd's boot", Duration::from_micros(one.abs_diff(*other)));
        }
        if bed.agent == Agent::HvVssd {
            // Asked for all the same it is passed over, and that is no failure.
            guest.sh(&format!("systemctl start {unit}"))?;
            promise!(
                booted::property(&guest, unit, "ActiveState")? == "inactive",
                "{unit} was started without the device"
            );
            booted::nothing_failed(&guest)?;
        }
        guest.plug_in()?;
        guest.host()?.negotiate()?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        if bed.agent == Agent::CDaemon {
            // Whether systemd starts it again depends on the moment: see row 18.
            booted::nothing_failed(&guest)?;
            return Ok("no unit failed, none waited for; started when the device appeared".into());
        }
        let pid = booted::property(&guest, unit, "MainPID")?;
        off_and_on(bed, &mut guest)?;
        checkpoint(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        frozen(&guest, &WRITTEN)?;
        off_and_on(bed, &mut guest)?;
        writable(&guest, &WRITTEN)?;
        checkpoint(&mut guest)?;
        let second = guest.exec(&["hv-vssd", "run"], COMMAND_LIMIT)?;
        promise!(
            second.status.is_some_and(|status| status != 0) && second.stderr.contains("runs already"),
            "a second agent: {second:?}"
        );
        checkpoint(&mut guest)?;
        promise!(booted::property(&guest, unit, "MainPID")? == pid, "the agent was started anew");
        booted::nothing_failed(&guest)?;
        Ok("no unit failed, none waited for; started when the device appeared; the same process served again after each switch, thawed by it; a second agent ends".into())
    }
}

scenario! {
    /// Row 26, what the other package does. What this project's does is in booted_package.rs.
    row: "26", "beside the distribution's hyperv-daemons: its upgrade restarts what it calls hv-vss-daemon, in a hold; then it is removed",
    c_daemon_gap: Some("leaves everything frozen when it is restarted"),
    fn the_distributions_package_is_a_good_neighbour(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        let names = ["hv-vss-daemon", "hypervvssd", "hv_vss_daemon"];
        let active = |guest: &Guest| guest.sh(&format!("systemctl is-active {} || true", names.join(" ")));
        if bed.agent == Agent::HvVssd {
            let said = active(&guest)?;
            promise!(said == "active\n".repeat(3), "of {names:?}: {said}");
        }
        // As dpkg calls it after an upgrade.
        let upgrade = "DPKG_MAINTSCRIPT_NAME=postinst DPKG_MAINTSCRIPT_PACKAGE=hyperv-daemons \
            /var/lib/dpkg/info/hyperv-daemons.postinst configure 6.1.1-1";
        let took = ends_a_hold(&mut guest, upgrade)?;
        bed.measured("upgrade", took);
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        booted::run(&guest, "dpkg --remove hyperv-daemons; systemctl daemon-reload; udevadm control --reload; udevadm trigger --settle")?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        let said = active(&guest)?;
        promise!(said == "active\n".repeat(3), "after its removal, of {names:?}: {said}");
        booted::nothing_failed(&guest)?;
        Ok("active under all three names; thawed by its restart; the next checkpoint works, also without it".into())
    }
}
