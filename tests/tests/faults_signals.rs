//! Signals, crashes, and what stops or kills more than one process: a hold that nobody meant to end goes on, any other is
//! thawed at once.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::booted::{self, System, WRITTEN};
use tests::error::{Failure, Step};
use tests::faults::{
    THAW_LIMIT, Victim, answer, begin, configure, during, ended, fails, plug_in, start_with,
    writable_within,
};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::steps::{
    self, checkpoint, frozen, mount_all, succeeds, writable, writers_go_on, writers_sleep,
};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

/// A guest with two disks and the service in place, without an agent.
fn ready(bed: &mut Bed) -> Step<(Guest, Vec<String>)> {
    let mut guest = bed.boot(&TWO.map(Disk::new))?;
    let points = mount_all(&guest, &TWO)?;
    plug_in(&mut guest)?;
    Ok((guest, points))
}

fn places(points: &[String]) -> Vec<&str> {
    points.iter().map(String::as_str).collect()
}

/// Starts the agent as a service manager does: in a process group of its own. As a background process of the bed it
/// would share the bed's.
fn start_in_a_group(bed: &Bed, guest: &mut Guest) -> Step<()> {
    let mut command = vec!["/bin/setsid"];
    command.extend(bed.agent.command());
    guest.spawn(bed.agent.name(), &command)?;
    bed.agent.wait_registered(guest)
}

/// A hold of a running agent that something ends early: all writable within a second, the host told failure. Gives the time.
fn ended_early(
    bed: &Bed,
    guest: &mut Guest,
    points: &[String],
    strike: impl FnOnce(&Guest) -> Step<Instant>,
) -> Step<Duration> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    succeeds(guest, Operation::FREEZE)?;
    frozen(guest, &places(points))?;
    let struck = strike(guest)?;
    let took = writable_within(guest, points, struck, THAW_LIMIT)?;
    fails(guest, Operation::THAW, SOON)?;
    ended(guest, bed.agent, SOON)?;
    Ok(took)
}

/// A hold that goes on whatever is done: frozen until THAW, which succeeds.
fn goes_on(
    guest: &mut Guest,
    points: &[String],
    strike: impl FnOnce(&Guest) -> Step<()>,
) -> Step<()> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    succeeds(guest, Operation::FREEZE)?;
    writers_sleep(guest, points)?;
    let synced = records(guest, points)?;
    strike(guest)?;
    frozen(guest, &places(points))?;
    promise!(
        synced == records(guest, points)?,
        "it was written to meanwhile"
    );
    succeeds(guest, Operation::THAW)?;
    writers_go_on(guest, points)
}

/// How many records each writer has synced.
fn records(guest: &Guest, points: &[String]) -> Step<Vec<u64>> {
    let synced = points.iter().map(|point| Ok(guest.writer(point)?.synced));
    synced.collect()
}

/// What a core dump goes to, and what must be there for it. (The crash is SIGABRT: a SIGSEGV that is sent, and not met with, is
/// taken by Rust's own handler, which lets the program go on.)
const CORES: [(&str, &str, &str); 3] = [
    ("a file on the frozen disk", "", "/mnt/ext4/core.%p"),
    (
        "a pipe to a helper that writes to the frozen disk",
        "printf '#!/bin/sh\\nexec /bin/cat > /mnt/ext4/core.$1\\n' > /run/core-helper; chmod 755 /run/core-helper",
        "|/run/core-helper %p",
    ),
    (
        "a pipe to a helper on the frozen disk",
        "printf '#!/bin/sh\\necho $1 > /mnt/ext4/crashed; exec /bin/cat > /mnt/ext4/core.$1\\n' > /mnt/ext4/core-helper; chmod 755 /mnt/ext4/core-helper",
        "|/mnt/ext4/core-helper %p",
    ),
];

/// Where cores go from now on.
fn core_to(guest: &Guest, prepare: &str, pattern: &str) -> Step<()> {
    guest.sh(&format!(
        "{prepare}\necho '{pattern}' > /proc/sys/kernel/core_pattern"
    ))?;
    Ok(())
}

scenario! {
    /// Row 29: a process that dumps has not died before its core is written.
    row: "29", "SIGABRT of the agent in a hold; cores go to a file on the frozen disk, to a helper that writes there, to a helper that lies there, as apport's",
    c_daemon_gap: Some("leaves everything frozen"),
    fn core_dump_of_the_agent_delays_no_thaw(bed) {
        let (mut guest, points) = ready(bed)?;
        let mut slowest = Duration::ZERO;
        for (what, prepare, pattern) in CORES {
            core_to(&guest, prepare, pattern)?;
            bed.agent.start(&mut guest)?;
            let took = ended_early(bed, &mut guest, &points, |guest| Victim::Agent.strike(guest, bed.agent, "ABRT"));
            slowest = slowest.max(during(what, took)?);
        }
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        bed.measured("thaw after the crash", slowest);
        Ok(format!("3 of 3 writable, {} ms after the crash at the latest; the next checkpoint works", slowest.as_millis()))
    }
}

scenario! {
    /// Row 29.
    row: "29", "SIGABRT of the guardian in a hold, and of hv-vssd freeze --for 20s; cores go to a file on the frozen disk and to a helper that writes there",
    hv_vssd_alone,
    fn core_dump_of_the_guardian_or_of_a_freeze_by_hand_keeps_nothing_frozen(bed) {
        let (mut guest, points) = ready(bed)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        for (what, prepare, pattern) in [CORES[0], CORES[1]] {
            core_to(&guest, prepare, pattern)?;
            bed.agent.start(&mut guest)?;
            let went = goes_on(&mut guest, &points, |guest| Victim::Guardian.strike(guest, bed.agent, "ABRT").map(drop));
            during(&format!("the guardian's core to {what}"), went)?;
            checkpoint(&mut guest)?;
            bed.agent.stop(&guest)?;

            guest.spawn("freeze", &["/usr/sbin/hv-vssd", "freeze", "--for", "20s"])?;
            writers_sleep(&guest, &points)?;
            let struck = Instant::now();
            guest.signal("freeze", Signal::SIGABRT)?;
            let took = writable_within(&guest, &points, struck, THAW_LIMIT);
            during(&format!("the core of the freeze by hand to {what}"), took)?;
            writers_go_on(&guest, &points)?;
            steps::ended(&guest, "freeze", SOON)?;
        }
        Ok("the hold goes on without its guardian, the next checkpoint has one again; the freeze by hand is thawed within 1 s".into())
    }
}

scenario! {
    /// Row 29: a shell's `kill -9 %1`, coreutils' `timeout -s KILL`, supervisors.
    row: "29", "SIGKILL to the agent's process group in a hold; to that of hv-vssd freeze --for 60s",
    c_daemon_gap: Some("leaves everything frozen"),
    fn sigkill_to_the_process_group_leaves_nothing_frozen(bed) {
        let (mut guest, points) = ready(bed)?;
        start_in_a_group(bed, &mut guest)?;
        let kill = |guest: &Guest, job: &str| -> Step<Instant> {
            let pid = guest.job(job)?.pid;
            let struck = Instant::now();
            // It leads its group.
            guest.sh(&format!("kill -KILL -{pid}"))?;
            Ok(struck)
        };
        let took = ended_early(bed, &mut guest, &points, |guest| kill(guest, bed.agent.name()))?;
        bed.measured("thaw after the death", took);
        if bed.agent == Agent::HvVssd {
            let by_hand = ["/bin/setsid", "/usr/sbin/hv-vssd", "freeze", "--for", "60s", "/mnt/ext4"];
            guest.spawn("freeze", &by_hand)?;
            let held = poll_until(SOON * 2, || {
                Ok::<_, Failure>(guest.write_sleeps("/mnt/ext4")?.then_some(()))
            })?;
            promise!(held.is_some(), "hv-vssd freeze does not freeze: {:?}", guest.job("freeze")?);
            let struck = kill(&guest, "freeze")?;
            writable_within(&guest, &points, struck, THAW_LIMIT)?;
        }
        start_in_a_group(bed, &mut guest)?;
        checkpoint(&mut guest)?;
        Ok(format!("writable {} ms after the death; the next checkpoint works", took.as_millis()))
    }
}

/// What does not mean an end, as killall(1) or a terminal sends it.
const HARMLESS: [&str; 9] = [
    "USR1", "USR2", "HUP", "PIPE", "TSTP", "ALRM", "WINCH", "CONT", "STOP",
];

/// What does.
const ENDS: [&str; 3] = ["TERM", "INT", "QUIT"];

/// From SIGSTOP to SIGCONT.
const STOPPED: Duration = Duration::from_secs(1);

scenario! {
    /// Row 29.
    row: "29", "every signal that means no end, to all processes of the name, in a hold each",
    c_daemon_gap: Some("dies of SIGUSR1 and leaves everything frozen"),
    fn harmless_signals_to_all_processes_leave_the_hold_alone(bed) {
        let (mut guest, points) = ready(bed)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        for signal in HARMLESS {
            if !bed.agent.state(&guest).is_ok_and(|state| state.running) {
                bed.agent.start(&mut guest)?;
            }
            let went = goes_on(&mut guest, &points, |guest| {
                Victim::All.strike(guest, bed.agent, signal)?;
                if signal == "STOP" {
                    std::thread::sleep(STOPPED);
                    Victim::All.strike(guest, bed.agent, "CONT")?;
                }
                Ok(())
            });
            during(&format!("SIG{signal}"), went)?;
            if signal == "USR1" {
                // It ends when it has nothing to do.
                ended(&guest, bed.agent, SOON)?;
            }
        }
        promise!(bed.agent.state(&guest)?.running, "the agent has ended");
        checkpoint(&mut guest)?;
        Ok(format!("{} of {} holds went on to a THAW with success", HARMLESS.len(), HARMLESS.len()))
    }
}

scenario! {
    /// Row 29, row 3.
    row: "29", "SIGTERM, SIGINT, SIGQUIT to all processes of the name, in a hold each",
    c_daemon_gap: Some("ends and leaves everything frozen"),
    fn signals_to_all_processes_that_mean_an_end_thaw_at_once(bed) {
        let (mut guest, points) = ready(bed)?;
        let mut slowest = Duration::ZERO;
        for signal in ENDS {
            bed.agent.start(&mut guest)?;
            let took = ended_early(bed, &mut guest, &points, |guest| Victim::All.strike(guest, bed.agent, signal));
            slowest = slowest.max(during(&format!("SIG{signal}"), took)?);
        }
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        bed.measured("slowest thaw", slowest);
        Ok(format!("{} of {} thawed, {} ms after the signal at the latest, the host told failure; the next checkpoint works", ENDS.len(), ENDS.len(), slowest.as_millis()))
    }
}

/// A text says that a control group is frozen.
fn says_so(text: &str, who: &str) -> Step<()> {
    let words = text.to_lowercase();
    promise!(
        words.contains("control group") && words.contains("frozen"),
        "{who} does not say that the control group is frozen: {text}"
    );
    Ok(())
}

scenario! {
    /// Row 29: a freezer stops agent and guardian alike. (Nobody thaws of the C daemon's: there is nothing to be told.)
    row: "29", "in a hold the control group of agent and guardian is frozen; hv-vssd status, hv-vssd thaw; then it is thawed",
    hv_vssd_alone,
    fn frozen_control_group_is_named_and_hv_vssd_thaw_thaws(bed) {
        let (mut guest, points) = ready(bed)?;
        guest.sh("mkdir -p /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; mkdir /sys/fs/cgroup/agent")?;
        bed.agent.start(&mut guest)?;
        guest.sh("for pid in $(pidof hv-vssd); do echo $pid > /sys/fs/cgroup/agent/cgroup.procs; done")?;
        succeeds(&mut guest, Operation::FREEZE)?;
        frozen(&guest, &places(&points))?;
        guest.sh("for pid in $(pidof hv-vssd); do echo $pid > /sys/fs/cgroup/agent/cgroup.procs; done
            echo 1 > /sys/fs/cgroup/agent/cgroup.freeze")?;
        let status = guest.exec(&["/usr/sbin/hv-vssd", "status"], SOON * 4)?;
        promise!(!status.timed_out, "hv-vssd status does not end");
        says_so(&(status.stdout + &status.stderr), "hv-vssd status")?;
        let asked = Instant::now();
        let thaw = guest.exec(&["/usr/sbin/hv-vssd", "thaw"], SOON * 4)?;
        let took = asked.elapsed();
        promise!(thaw.status == Some(0), "hv-vssd thaw: {thaw:?}");
        says_so(&(thaw.stdout + &thaw.stderr), "hv-vssd thaw")?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        bed.measured("hv-vssd thaw", took);
        guest.sh("echo 0 > /sys/fs/cgroup/agent/cgroup.freeze")?;
        fails(&mut guest, Operation::THAW, SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        writable(&guest, &places(&points))?;
        Ok(format!("both name it, all thawed in {:.1} s; going on, the agent tells the host failure, and the next checkpoint works", took.as_secs_f64()))
    }
}

scenario! {
    /// Row 30.
    row: "30", "SIGSTOP between the last freeze and the reply until the guardian has thawed (limits of 1 s); then SIGCONT",
    hv_vssd_alone,
    fn sigstopped_agent_tells_no_success_after_its_guardian_has_thawed(bed) {
        let (mut guest, points) = ready(bed)?;
        configure(&guest, "[limits]\nfreeze = 1\nhold = 1\n")?;
        start_with(&mut guest, "frozen", "stop")?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let began = Instant::now();
        // Its stop, and that it was not thawed before.
        let held = poll_until(SOON, || {
            Ok::<_, Failure>(guest.write_sleeps("/mnt/xfs")?.then_some(()))
        })?;
        promise!(held.is_some(), "nothing is frozen");
        // The limits, and the 10 s that the guardian grants the agent.
        writable_within(&guest, &points, began, Duration::from_secs(16))?;
        guest.signal(bed.agent.name(), Signal::SIGCONT)?;
        let status = answer(&mut guest, transaction, SOON)?;
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        Ok("thawed by the guardian; FREEZE is failure, the next checkpoint works".into())
    }
}

scenario! {
    /// Row 29: what an administrator's commands send.
    row: "29", "a booted Debian: systemctl kill of the whole service in a hold, by SIGUSR2, SIGHUP, SIGALRM; hv-vssd freeze under coreutils' timeout -s KILL; the service frozen by its control group, hv-vssd thaw",
    hv_vssd_alone,
    fn in_a_booted_debian_signals_to_the_service_and_a_frozen_service_keep_nothing_frozen(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        let points = WRITTEN.map(ToOwned::to_owned);
        for point in &points {
            guest.start_writer(point)?;
        }
        let unit = booted::unit(bed.agent);
        for signal in ["USR2", "HUP", "ALRM"] {
            let went = goes_on(&mut guest, &points, |guest| {
                guest.sh(&format!("systemctl kill -s {signal} {unit}"))?;
                Ok(())
            });
            during(&format!("SIG{signal}"), went)?;
        }

        let group = booted::property(&guest, unit, "ControlGroup")?;
        let freezer = format!("/sys/fs/cgroup{group}/cgroup.freeze");
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        guest.write(&freezer, "1")?;
        let thaw = guest.exec(&["hv-vssd", "thaw"], SOON * 6)?;
        promise!(thaw.status == Some(0), "hv-vssd thaw: {thaw:?}");
        says_so(&(thaw.stdout + &thaw.stderr), "hv-vssd thaw")?;
        writers_go_on(&guest, &points)?;
        let status = guest.exec(&["hv-vssd", "status"], SOON * 6)?;
        says_so(&(status.stdout + &status.stderr), "hv-vssd status")?;
        guest.write(&freezer, "0")?;
        fails(&mut guest, Operation::THAW, SOON * 3)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;

        let limited = ["timeout", "-s", "KILL", "4", "hv-vssd", "freeze", "--for", "60s", "/srv"];
        guest.spawn("freeze", &limited)?;
        let held = poll_until(SOON, || Ok::<_, Failure>(guest.write_sleeps("/srv")?.then_some(())))?;
        promise!(held.is_some(), "hv-vssd freeze does not freeze: {:?}", guest.job("freeze")?);
        steps::ended(&guest, "freeze", SOON * 2)?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        checkpoint(&mut guest)?;
        booted::nothing_failed(&guest)?;
        Ok("the signals leave each hold alone; thawed by hv-vssd thaw, which names the frozen control group; thawed within 1 s of timeout's kill".into())
    }
}
