//! Programs that sleep in a system call while they hold write access: FIFREEZE waits for them, and every
//! writer waits for FIFREEZE.

use std::time::{Duration, Instant};

use tests::agent::Agent;
use tests::booted::{self, System, WRITTEN};
use tests::error::Step;
use tests::faults::{
    THAW_LIMIT, Victim, answer, armed, begin, configure, during, ended, kill_in_the_next_freeze,
    plug_in, says, start_with, writable_within,
};
use tests::guest::{Disk, FsKind, Guest};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::sleepers::{NOBODY, ROOT, Sleeper, abort_fuse, serve_nothing};
use tests::steps::{checkpoint, frozen, mount_all, succeeds};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// `limits.freeze` where it is set.
const LIMIT: Duration = Duration::from_secs(3);

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

/// A guest with two disks and short limits, without an agent.
fn ready(bed: &mut Bed) -> Step<(Guest, Vec<String>)> {
    let mut guest = bed.boot(&TWO.map(Disk::new))?;
    let points = mount_all(&guest, &TWO)?;
    configure(&guest, "[limits]\nflush = 2\nfreeze = 3\n")?;
    plug_in(&mut guest)?;
    Ok((guest, points))
}

/// FREEZE and THAW succeed while these sleep, each in the time an undisturbed one may take and some more.
fn held_in_spite_of(guest: &mut Guest, points: &[String], sleepers: &[Sleeper]) -> Step<Duration> {
    succeeds(guest, Operation::HOT_BACKUP)?;
    let transaction = begin(guest, Operation::FREEZE)?;
    let asked = Instant::now();
    let status = answer(guest, transaction, LIMIT + SOON)?;
    let took = asked.elapsed();
    promise!(
        status == 0,
        "FREEZE was answered {status:#x} after {took:?}"
    );
    let places: Vec<&str> = points.iter().map(String::as_str).collect();
    frozen(guest, &places)?;
    succeeds(guest, Operation::THAW)?;
    writable_within(guest, points, Instant::now(), THAW_LIMIT)?;
    for sleeper in sleepers {
        sleeper.lives(guest)?;
    }
    Ok(took)
}

/// What `hv-vssd check` says, whatever its status.
fn checked(guest: &Guest) -> Step<String> {
    let ended = guest.exec(&["/usr/sbin/hv-vssd", "check"], SOON * 4)?;
    Ok(ended.stdout + &ended.stderr)
}

/// A text names a process, its system call and its file.
fn names(text: &str, sleeper: &Sleeper, call: &str, who: &str) -> Step<()> {
    for word in [
        sleeper.pid().to_string().as_str(),
        call,
        sleeper.file.as_str(),
    ] {
        promise!(text.contains(word), "{who} does not name {word}: {text}");
    }
    Ok(())
}

scenario! {
    /// Row 27.
    row: "27", "splice(2) from silent pipes: root's into ext4, an ordinary user's with four threads into xfs; FREEZE, THAW, twice; then the pipes speak",
    c_daemon_gap: Some("waits for the program, and every writer waits for it"),
    fn sleeping_splice_is_interrupted_and_goes_on_undisturbed(bed) {
        let (mut guest, points) = ready(bed)?;
        let sleepers = [
            Sleeper::at_a_pipe(&guest, "splice", "/mnt/ext4", ROOT)?,
            Sleeper::at_a_pipe(&guest, "copy", "/mnt/xfs", NOBODY)?,
        ];
        bed.agent.start(&mut guest)?;
        if bed.agent == Agent::HvVssd {
            let said = checked(&guest)?;
            for sleeper in &sleepers {
                names(&said, sleeper, "splice", "hv-vssd check")?;
            }
        }
        let mut slowest = Duration::ZERO;
        for round in ["first", "second"] {
            slowest = slowest.max(held_in_spite_of(&mut guest, &points, &sleepers)?);
            if round == "first" {
                continue;
            }
            for sleeper in &sleepers {
                sleeper.writes_what_comes(&guest, "later")?;
            }
        }
        held_in_spite_of(&mut guest, &points, &sleepers)?;
        bed.measured("slowest freeze", slowest);
        Ok(format!("3 of 3 checkpoints succeed, the slowest FREEZE in {} ms; both programs alive, their files whole", slowest.as_millis()))
    }
}

scenario! {
    /// Row 27: nobody has seen it coming.
    row: "27", "splice(2) from a silent pipe that begins between the agent's look and the freeze; limits.freeze is 3 s",
    hv_vssd_alone,
    fn splice_that_falls_asleep_just_before_the_freeze_holds_nobody(bed) {
        let (mut guest, points) = ready(bed)?;
        start_with(&mut guest, "freeze", "sleep")?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        armed(&guest)?;
        let slept = Instant::now();
        let sleeper = Sleeper::at_a_pipe(&guest, "splice", "/mnt/ext4", ROOT)?;
        let fault = Duration::from_secs(3);
        promise!(slept.elapsed() < fault, "the bed was too slow to be in time");
        let status = answer(&mut guest, transaction, fault + LIMIT + SOON)?;
        if status == 0 {
            frozen(&guest, &["/mnt/ext4", "/mnt/xfs"])?;
            succeeds(&mut guest, Operation::THAW)?;
        }
        writable_within(&guest, &points, slept, fault + LIMIT + SOON)?;
        let took = slept.elapsed().saturating_sub(fault);
        sleeper.lives(&guest)?;
        if status != 0 {
            says(&guest, bed.agent, "splice", SOON)?;
            names(&bed.agent.log(&guest)?, &sleeper, "splice", "the log")?;
        }
        held_in_spite_of(&mut guest, &points, std::slice::from_ref(&sleeper))?;
        sleeper.writes_what_comes(&guest, "later")?;
        bed.agent.stop(&guest)?;
        Ok(format!("FREEZE {}; writable {:.1} s after the freeze began, the program alive; the next checkpoint works",
            if status == 0 { "succeeds" } else { "fails" }, took.as_secs_f64()))
    }
}

scenario! {
    /// Rows 27 and 29: whoever is left interrupts it.
    row: "27", "splice(2) from a silent pipe; SIGKILL of the agent while FIFREEZE waits for it; the same, of agent and guardian",
    hv_vssd_alone,
    fn sleeping_splice_holds_nobody_when_the_agent_dies_in_the_freeze(bed) {
        let (mut guest, points) = ready(bed)?;
        let sleeper = Sleeper::at_a_pipe(&guest, "splice", "/mnt/ext4", ROOT)?;
        for victim in [Victim::Agent, Victim::Both] {
            // Time for the kill: the program is interrupted after it.
            start_with(&mut guest, "waiting", "sleep")?;
            kill_in_the_next_freeze(&guest, bed.agent, victim)?;
            begin(&mut guest, Operation::FREEZE)?;
            ended(&guest, bed.agent, SOON)?;
            let died = Instant::now();
            if victim == Victim::Both {
                bed.agent.spawn(&guest, bed.agent.name())?;
            }
            during(&format!("SIGKILL of {}", victim.name()), writable_within(&guest, &points, died, SOON))?;
            sleeper.lives(&guest)?;
            if victim == Victim::Both {
                bed.agent.wait_registered(&mut guest)?;
                held_in_spite_of(&mut guest, &points, std::slice::from_ref(&sleeper))?;
            }
        }
        sleeper.writes_what_comes(&guest, "later")?;
        Ok("writable within 5 s, the second time after the next start; the program alive, the next checkpoint works".into())
    }
}

scenario! {
    /// Row 27: what only a signal to death, or the server's, ends.
    row: "27", "write(2) of memory mapped from a file whose FUSE server never answers; limits.freeze is 3 s; later the connection is aborted",
    c_daemon_gap: Some("waits for the program, and every writer waits for it"),
    fn write_from_a_dead_fuse_mapping_fails_the_freeze_and_is_named(bed) {
        let (mut guest, points) = ready(bed)?;
        serve_nothing(&guest)?;
        bed.agent.start(&mut guest)?;
        let sleeper = Sleeper::at_a_silent_server(&guest, "map", "/mnt/ext4", NOBODY)?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let asked = Instant::now();
        let status = answer(&mut guest, transaction, LIMIT + SOON)?;
        let heard = asked.elapsed();
        bed.measured("failure told", heard);
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        let others = ["/mnt/xfs".to_owned()];
        writable_within(&guest, &others, Instant::now(), THAW_LIMIT)?;
        says(&guest, bed.agent, "/mnt/ext4", SOON)?;
        let log = bed.agent.log(&guest)?;
        names(&log, &sleeper, "write", "the log")?;
        promise!(!log.contains("device may be stuck"), "the log names the device: {log}");
        for command in ["status", "thaw"] {
            let ended = guest.exec(&["/usr/sbin/hv-vssd", command], SOON * 4)?;
            names(&(ended.stdout + &ended.stderr), &sleeper, "write", &format!("hv-vssd {command}"))?;
        }
        abort_fuse(&guest)?;
        writable_within(&guest, &points, Instant::now(), SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        Ok(format!("failure in {:.1} s, the other disk writable; process, call and file named; after the abort nothing frozen, the next checkpoint works", heard.as_secs_f64()))
    }
}

scenario! {
    /// Row 27: whoever could mend it needs `/`, too.
    row: "27", "a booted Debian: an ordinary user's splice(2) from a silent pipe into a file on /",
    c_daemon_gap: Some("waits for the program, and every writer waits for it"),
    fn in_a_booted_debian_a_sleeping_splice_on_the_root_holds_nobody(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        let sleeper = Sleeper::at_a_pipe(&guest, "copy", "/var/tmp", NOBODY)?;
        let sleepers = std::slice::from_ref(&sleeper);
        let points = WRITTEN.map(ToOwned::to_owned);
        let took = held_in_spite_of(&mut guest, &points, sleepers)?;
        sleeper.writes_what_comes(&guest, "later")?;
        held_in_spite_of(&mut guest, &points, sleepers)?;
        booted::nothing_failed(&guest)?;
        Ok(format!("FREEZE in {} ms, the program alive and its file whole; the next checkpoint works", took.as_millis()))
    }
}
