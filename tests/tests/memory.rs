//! What the agent keeps in memory: all that a thaw needs, and little else.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::error::{Failure, Step};
use tests::faults::{
    THAW_LIMIT, answer, begin, ended, fails, go_on, mount_mapped, plug_in, stall, writable_within,
};
use tests::footprint::sum;
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::Operation;
use tests::steps::{checkpoint, frozen, mount_all, succeeds};
use tests::{promise, scenario};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

/// Of agent and guardian together.
const MOST_KIB: u64 = 4 * 1024 + 512;

/// More than the agent keeps reports of.
const CHECKPOINTS: usize = 20;

/// A mapping of a process, as /proc/PID/smaps (man 5 proc) tells of it; sizes in KiB.
#[derive(Debug, Default)]
struct Mapping {
    name: String,
    size: u64,
    resident: u64,
    share: u64,
    is_locked: bool,
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if !word.ends_with(':') {
            let name = rest.split_whitespace().nth(4).unwrap_or("anonymous");
            all.push(Mapping {
                name: name.to_owned(),
                ..Mapping::default()
            });
        }
        let Some(last) = all.last_mut() else { continue };
        let mut words = rest.split_whitespace();
        let mut kib = || {
            words
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        match word {
            "Size:" => last.size = kib(),
            "Rss:" => last.resident = kib(),
            "Pss:" => last.share = kib(),
            "VmFlags:" => last.is_locked = words.any(|flag| flag == "lo"),
            _ => {}
        }
    }
    all
}

/// The proportional share of memory of agent and guardian, in KiB; all of the program must be there, and all that is there locked.
fn resident(guest: &Guest) -> Step<u64> {
    let mut share = 0;
    let mut programs = 0;
    for pid in guest.sh("pidof hv-vssd")?.split_whitespace() {
        for map in mappings(&guest.read(&format!("/proc/{pid}/smaps"))?) {
            share += map.share;
            // What the kernel maps itself is never taken away.
            let is_own = !matches!(map.name.as_str(), "[vvar]" | "[vdso]");
            promise!(
                !is_own || map.resident == 0 || map.is_locked,
                "not locked: {map:?}"
            );
            if Agent::HvVssd.command().first() == Some(&map.name.as_str()) {
                programs += 1;
                promise!(map.resident == map.size, "not all in memory: {map:?}");
            }
        }
    }
    promise!(
        programs >= 6,
        "{programs} mappings of the program in two processes"
    );
    Ok(share)
}

/// An agent at rest has no timer.
const IDLE: Duration = Duration::from_secs(10);

/// How often threads of agent and guardian have gone to sleep of their own accord (man 5 proc, `voluntary_ctxt_switches`).
fn wake_ups(guest: &Guest) -> Step<u64> {
    let threads = guest.sh("for pid in $(pidof hv-vssd); do cat /proc/$pid/task/*/status; done")?;
    let count = sum(&threads, "voluntary_ctxt_switches:");
    promise!(count > 0, "the agent's threads cannot be looked at");
    Ok(count)
}

/// As [`resident`], once all is over that follows a checkpoint, such as its report.
fn rested(guest: &Guest) -> Step<u64> {
    std::thread::sleep(Duration::from_secs(2));
    resident(guest)
}

scenario! {
    /// Beside the table: what was needed for many mounts, by many checkpoints, and by one that failed, is given back.
    row: "", "20 checkpoints, two of them and one that fails with 3,000 mounts: PSS of agent and guardian",
    hv_vssd_alone,
    fn an_idle_agent_keeps_little_memory(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        let before = resident(&guest)?;
        guest.bind_mounts("/mnt/ext4", "/run/binds", 3_000)?;
        for _ in 0..2 {
            checkpoint(&mut guest)?;
        }
        guest.sh("grep ' /run/binds/' /proc/mounts | cut -d' ' -f2 | xargs -r -n 200 umount")?;
        for _ in 2..CHECKPOINTS {
            checkpoint(&mut guest)?;
        }
        let after = rested(&guest)?;
        promise!(after <= MOST_KIB, "{before} KiB before the first checkpoint, {after} KiB after {CHECKPOINTS}");

        guest.bind_mounts("/mnt/ext4", "/run/binds", 3_000)?;
        guest.sh("fsfreeze --freeze /mnt/ext4")?;
        fails(&mut guest, Operation::FREEZE, Duration::from_secs(10))?;
        guest.sh("fsfreeze --unfreeze /mnt/ext4")?;
        let failed = rested(&guest)?;
        promise!(failed <= MOST_KIB, "{after} KiB before a FREEZE that fails, {failed} KiB after it");
        let woken = wake_ups(&guest)?;
        std::thread::sleep(IDLE);
        let woken = wake_ups(&guest)? - woken;
        promise!(woken == 0, "woken up {woken} times in {IDLE:?} without a request");
        Ok(format!("{before} KiB before the first checkpoint, {after} KiB after {CHECKPOINTS}, {failed} KiB after one that failed; the program and all that was touched is locked; not woken up in {IDLE:?}"))
    }
}

/// The program and its libraries, on a disk that can be stalled.
const PROGRAMS: &str = "programs";

/// Copies the program and its libraries to a disk that nothing else is on. Of it, nothing gets into memory but what is used:
/// reading ahead would hide what is missing.
fn put_programs_on(guest: &Guest, disk: &str) -> Step<()> {
    let point = mount_mapped(guest, disk, PROGRAMS, "ext4")?;
    guest.sh(&format!(
        "cp /usr/sbin/hv-vssd /usr/sbin/hv-vssd-faults /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 \
            /lib/x86_64-linux-gnu/libgcc_s.so.1 {point}
        umount {point}; echo 0 > /sys/block/dm-0/queue/read_ahead_kb; mount -t ext4 -o ro /dev/mapper/{PROGRAMS} {point}"
    ))?;
    Ok(())
}

/// Starts the agent from there; everything else in the guest has the same files in memory.
fn start_from_disk(guest: &mut Guest, program: &str, fault: &[(&str, &str)]) -> Step<()> {
    let places = [
        "/usr/sbin/hv-vssd",
        "/usr/sbin/hv-vssd-faults",
        "/lib64/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/libgcc_s.so.1",
    ]
    .join(" ");
    guest.sh(&format!(
        "for place in {places}; do mount --bind /mnt/{PROGRAMS}/${{place##*/}} $place; done"
    ))?;
    guest.spawn_with(Agent::HvVssd.name(), &[program, "run"], fault)?;
    Agent::HvVssd.wait_registered(guest)?;
    guest.sh(&format!("for place in {places}; do umount -l $place; done"))?;
    let pid = guest.sh("pidof hv-vssd hv-vssd-faults | tr ' ' '\\n' | head -n 1")?;
    let maps = guest.read(&format!("/proc/{}/maps", pid.trim()))?;
    let device = guest.sh(&format!(
        "awk '$5 == \"/mnt/{PROGRAMS}\" {{ print $3 }}' /proc/self/mountinfo"
    ))?;
    let (major, minor) = device.trim().split_once(':').unwrap_or_default();
    let device = format!(
        " {:02x}:{:02x} ",
        major.parse::<u32>().unwrap_or(0),
        minor.parse::<u32>().unwrap_or(0)
    );
    // What is mapped from a file has an inode.
    let files: Vec<&str> = maps
        .lines()
        .filter(|line| {
            line.split_whitespace()
                .nth(4)
                .is_some_and(|inode| inode != "0")
        })
        .collect();
    promise!(
        files.len() > 12 && files.iter().all(|line| line.contains(&device)),
        "it does not run from the disk {device}: {maps}"
    );
    Ok(())
}

/// From FREEZE on, nothing can be read from the disk, and nothing of it is in memory but what is in use.
fn freeze_and_stall(guest: &mut Guest, points: &[String]) -> Step<()> {
    succeeds(guest, Operation::FREEZE)?;
    stall(guest, PROGRAMS)?;
    guest.sh("echo 3 > /proc/sys/vm/drop_caches")?;
    let points: Vec<&str> = points.iter().map(String::as_str).collect();
    frozen(guest, &points)
}

/// All is writable soon; then the disk goes on, and the agent comes to its end.
fn thawed_without_disk(guest: &Guest, points: &[String], what: &str) -> Step<Duration> {
    let took = writable_within(guest, points, Instant::now(), THAW_LIMIT);
    let took = took.map_err(|failure| match failure {
        Failure::Promise(sentence) => Failure::Promise(format!("{what}: {sentence}")),
        bed => bed,
    })?;
    go_on(guest, PROGRAMS)?;
    ended(guest, Agent::HvVssd, SOON)?;
    let gone = poll_until(SOON, || {
        let left = guest.sh("pidof hv-vssd hv-vssd-faults || true")?;
        Ok::<_, Failure>(left.trim().is_empty().then_some(()))
    })?;
    promise!(gone.is_some(), "{what}: the guardian does not end");
    Ok(took)
}

scenario! {
    /// Beside the table: a page that is not in memory would be waited for as long as the disk is.
    row: "", "the disk with the program and its libraries answers no more in a hold: THAW, SIGTERM, SIGKILL, a defect",
    hv_vssd_alone,
    fn the_disk_of_the_program_is_not_needed_for_a_thaw(bed) {
        let kinds = [FsKind::Ext4, FsKind::Xfs, FsKind::Ext4];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        put_programs_on(&guest, "/dev/vdc")?;
        plug_in(&mut guest)?;
        let (program, faults) = ("/usr/sbin/hv-vssd", "/usr/sbin/hv-vssd-faults");

        start_from_disk(&mut guest, program, &[])?;
        freeze_and_stall(&mut guest, &points)?;
        let transaction = begin(&mut guest, Operation::THAW)?;
        let status = answer(&mut guest, transaction, SOON)?;
        promise!(status == 0, "THAW was answered {status:#x}");
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        go_on(&guest, PROGRAMS)?;
        freeze_and_stall(&mut guest, &points)?;
        guest.signal(bed.agent.name(), Signal::SIGTERM)?;
        let asked = thawed_without_disk(&guest, &points, "SIGTERM")?;

        start_from_disk(&mut guest, program, &[])?;
        freeze_and_stall(&mut guest, &points)?;
        guest.signal(bed.agent.name(), Signal::SIGKILL)?;
        let killed = thawed_without_disk(&guest, &points, "SIGKILL")?;

        start_from_disk(&mut guest, faults, &[("HV_VSSD_FAULT", "thaw=panic")])?;
        freeze_and_stall(&mut guest, &points)?;
        begin(&mut guest, Operation::THAW)?;
        let defect = thawed_without_disk(&guest, &points, "a defect in the thaw")?;
        bed.measured("thaw after SIGTERM", asked);
        bed.measured("thaw after SIGKILL", killed);
        Ok(format!("thawed {} ms after SIGTERM, {} ms after SIGKILL, {} ms after a defect", asked.as_millis(), killed.as_millis(), defect.as_millis()))
    }
}
