//! Faults in a booted Debian, whose log, whose PID 1 and whose tools are on the frozen `/`.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::booted::{self, System, WRITTEN};
use tests::error::{Failure, Step};
use tests::faults::{answer, begin, fails, writable_within};
use tests::guest::{Guest, poll_until};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::steps::{checkpoint, frozen, succeeds, writable, writers_go_on, writers_sleep};
use tests::{promise, scenario, strace};

/// A promise that is kept soon is kept within this time, on a busy machine.
const SOON: Duration = Duration::from_secs(15);

fn written() -> Vec<String> {
    WRITTEN.map(ToOwned::to_owned).to_vec()
}

/// A system whose hv-vssd has this configuration.
fn configured(text: &str) -> System<'static> {
    System::new().setup(&format!(
        "mkdir -p /etc/hv-vssd; printf '{}' > /etc/hv-vssd/config.toml",
        text.replace('\n', "\\n")
    ))
}

scenario! {
    /// Row 5.
    row: "5", "a booted Debian: the host never sends THAW; the limit is 6 s",
    c_daemon_gap: Some("waits for THAW for ever"),
    fn a_booted_debian_is_released_at_the_limit(bed) {
        let mut guest = bed.boot_system(&configured("[limits]\nhold = 6\n"))?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let held = Instant::now();
        frozen(&guest, &WRITTEN)?;
        let took = writable_within(&guest, &written(), held, Duration::from_secs(6) + SOON)?;
        bed.measured("held for", took);
        fails(&mut guest, Operation::THAW, SOON)?;
        checkpoint(&mut guest)?;
        let said = booted::journal(&guest, bed.agent)?;
        promise!(said.contains("within 6 s"), "the journal does not name the limit: {said}");
        booted::nothing_failed(&guest)?;
        Ok("thawed at the limit, told in the journal; the late THAW fails, the next FREEZE works".into())
    }
}

scenario! {
    /// Row 9: VSS-06.
    row: "9", "a booted Debian: an administrator has frozen /srv, then /",
    c_daemon_gap: Some("reports success, and then thaws what it had not frozen"),
    fn in_a_booted_debian_what_an_administrator_froze_stays_frozen(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        for (theirs, place, other) in [("/srv", "/srv", "/var/tmp"), ("/", "/var/tmp", "/srv")] {
            guest.sh(&format!("fsfreeze --freeze {theirs}"))?;
            fails(&mut guest, Operation::FREEZE, SOON)?;
            frozen(&guest, &[place])?;
            writable(&guest, &[other])?;
            guest.sh(&format!("fsfreeze --unfreeze {theirs}"))?;
            checkpoint(&mut guest)?;
            writable(&guest, &WRITTEN)?;
        }
        let said = booted::journal(&guest, bed.agent)?;
        promise!(said.contains("frozen already"), "the journal does not say why: {said}");
        Ok("failure to the host, theirs still frozen, ours not; told in the journal; the next checkpoint works".into())
    }
}

/// Pauses the machine for a moment.
fn pause(guest: &mut Guest) -> Step<()> {
    guest.pause(true)?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(guest.pause(false)?)
}

/// The agent's main process gets a signal.
fn signal(bed: &Bed, guest: &Guest, signal: &str) -> Step<()> {
    let unit = booted::unit(bed.agent);
    guest.sh(&format!(
        "systemctl kill --kill-whom=main -s {signal} {unit}"
    ))?;
    Ok(())
}

scenario! {
    /// Row 20: VSS-05.
    row: "20", "a booted Debian, in a hold: the machine paused; hibernation; SIGSTOP past the limit of 20 s, until the driver has given up, too",
    c_daemon_gap: Some("nobody thaws while it is stopped"),
    fn a_booted_debian_survives_lost_time(bed) {
        let mut guest = bed.boot_system(&configured("[limits]\nhold = 20\nfreeze = 1\n"))?;
        succeeds(&mut guest, Operation::FREEZE)?;
        pause(&mut guest)?;
        frozen(&guest, &WRITTEN)?;
        succeeds(&mut guest, Operation::THAW)?;
        writable(&guest, &WRITTEN)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        guest.host_does("suspend")?.wait(SOON)?;
        guest.host_does("resume")?.wait(SOON)?;
        writable_within(&guest, &written(), Instant::now(), SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let held = Instant::now();
        signal(bed, &guest, "STOP")?;
        let transaction = begin(&mut guest, Operation::THAW)?;
        // The hold's limit, and the 10 s that the guardian grants the agent.
        let took = writable_within(&guest, &written(), held, Duration::from_secs(30) + SOON)?;
        bed.measured("thaw by the guardian", took);
        let status = answer(&mut guest, transaction, Duration::from_secs(40))?;
        promise!(status == E_FAIL, "THAW was answered {status:#x}");
        signal(bed, &guest, "CONT")?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        booted::nothing_failed(&guest)?;
        Ok("paused: goes on; hibernated: thawed; stopped: thawed by the guardian, the host told failure; the next checkpoint works, each time".into())
    }
}

/// Attaches strace to all processes of the agent.
fn trace(bed: &Bed, guest: &Guest) -> Step<()> {
    let unit = booted::unit(bed.agent);
    let group = booted::property(guest, unit, "ControlGroup")?;
    let pids = guest.read(&format!("/sys/fs/cgroup{group}/cgroup.procs"))?;
    strace::attach(guest, &pids)
}

scenario! {
    /// Row 21: the proof, and the worst of company.
    row: "21", "a booted Debian: three checkpoints under strace; in a hold journald stopped and the caches dropped; in a hold a fanotify permission listener on / that answers nobody",
    c_daemon_gap: Some("opens the mount points while others are frozen"),
    fn a_thaw_needs_nothing_of_a_frozen_debian(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        trace(bed, &guest)?;
        for _ in 0..3 {
            checkpoint(&mut guest)?;
        }
        writable(&guest, &WRITTEN)?;
        guest.signal("strace", Signal::SIGTERM)?;
        let (holds, calls) = strace::quiet_holds(&guest.read(strace::FILE)?)?;
        promise!(holds == 3, "{holds} of 3 holds in the trace");
        for point in WRITTEN {
            guest.start_writer(point)?;
        }

        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &written())?;
        guest.sh("systemctl kill --kill-whom=main -s STOP systemd-journald; echo 3 > /proc/sys/vm/drop_caches")?;
        let silent = succeeds(&mut guest, Operation::THAW)?.took;
        bed.measured("thaw without journald and caches", silent);
        writers_go_on(&guest, &written())?;
        guest.sh("systemctl kill --kill-whom=main -s CONT systemd-journald")?;

        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &written())?;
        let listener = guest.spawn("listener", &["/sbin/hv-testguest", "listener", "/", "/srv"])?;
        let marked = poll_until(SOON, || {
            let marks = guest.read(&format!("/proc/{listener}/fdinfo/3")).unwrap_or_default();
            Ok::<_, Failure>((marks.matches("fanotify sdev:").count() == 2).then_some(()))
        })?;
        promise!(marked.is_some(), "the listener does not listen: {}", guest.job("listener")?.output);
        let listened = succeeds(&mut guest, Operation::THAW)?.took;
        bed.measured("thaw under a permission listener", listened);
        writers_go_on(&guest, &written())?;
        guest.signal("listener", Signal::SIGKILL)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        booted::nothing_failed(&guest)?;
        if bed.agent == Agent::HvVssd {
            let said = booted::journal(&guest, bed.agent)?;
            let told = said.matches("answered THAW: success").count();
            promise!(told == 6, "{told} of 6 checkpoints in the journal: {said}");
        }
        Ok(format!(
            "{calls} lines of trace in {holds} holds: no open, no exec, no look-up, no log record; without journald and caches thawed in {} ms, under a listener in {} ms",
            silent.as_millis(), listened.as_millis()
        ))
    }
}
