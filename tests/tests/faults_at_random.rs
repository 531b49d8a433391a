//! Everything at once, at random moments.

use std::time::{Duration, Instant};

use tests::agent::Agent;
use tests::dice::Dice;
use tests::error::{Failure, Step};
use tests::faults::{
    Victim, answer, begin, configure, during, ended, mount_mapped, plug_in, writable_within,
};
use tests::guest::{Disk, FsKind, Guest};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::sleepers::{NOBODY, ROOT, Sleeper};
use tests::steps::{checkpoint, frozen, writable, writers_go_on};
use tests::{promise, scenario};

/// How many faults.
const TRIES: u32 = 100;

/// After each of them all is as it should be within this time.
const SOON: Duration = Duration::from_secs(5);

/// An answer to a request comes within this time.
const HEARD: Duration = Duration::from_secs(20);

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A signal to one of ours, or to both.
    Signal(Victim, &'static str),
    /// SIGKILL to the agent's process group.
    KillGroup,
    /// SIGSTOP, and SIGCONT a moment later.
    Pause(Victim),
}

const FAULTS: [Fault; 8] = [
    Fault::Signal(Victim::Agent, "KILL"),
    Fault::Signal(Victim::Guardian, "KILL"),
    Fault::Signal(Victim::Both, "KILL"),
    Fault::Signal(Victim::Agent, "TERM"),
    Fault::Signal(Victim::All, "TERM"),
    Fault::KillGroup,
    Fault::Pause(Victim::Agent),
    Fault::Pause(Victim::All),
];

impl Fault {
    /// The agent is gone after it, and has to be started again.
    fn ends_the_agent(self) -> bool {
        !matches!(self, Self::Pause(_) | Self::Signal(Victim::Guardian, _))
    }

    /// Does it, and gives the moment.
    fn strike(self, guest: &Guest, agent: Agent) -> Step<Instant> {
        match self {
            Self::Signal(victim, signal) => victim.strike(guest, agent, signal),
            Self::KillGroup => {
                let pid = guest.job(agent.name())?.pid;
                let struck = Instant::now();
                guest.sh(&format!("kill -KILL -{pid} || :"))?;
                Ok(struck)
            }
            Self::Pause(victim) => {
                victim.strike(guest, agent, "STOP")?;
                std::thread::sleep(Duration::from_millis(200));
                victim.strike(guest, agent, "CONT")
            }
        }
    }
}

/// The disks whose writers tell whether a hold was one. The last is suspended and resumed by others all the time.
const WRITERS: [&str; 3] = ["/mnt/ext4", "/mnt/xfs", "/mnt/snapshotted"];

/// Someone else has frozen it, at one try of so many: ours waits 2 s for the end of such a freeze.
const THEIRS: &str = "/mnt/theirs";
const THEIRS_AT: u32 = 5;

/// Large writes that wait for their disk, over and over.
const LARGE: &str = "while :; do dd if=/dev/zero of=/mnt/ext4/large bs=4M count=1 2> /dev/null; usleep 300000; done";

/// As for snapshots of a volume, over and over.
const SNAPSHOTS: &str = "while :; do /sbin/dmsetup suspend snapshotted; usleep 20000; /sbin/dmsetup resume snapshotted; usleep 900000; done";

/// Disks, load, sleepers and somebody else's freeze.
fn ready(bed: &mut Bed) -> Step<(Guest, [Sleeper; 2])> {
    let mut guest = bed.boot(&[
        Disk::new(FsKind::Ext4),
        Disk::new(FsKind::Xfs),
        Disk::new(FsKind::Ext4),
        Disk::new(FsKind::Ext4),
    ])?;
    mount_mapped(&guest, "/dev/vdc", "snapshotted", "ext4")?;
    guest.sh("cd /mnt; mkdir ext4 xfs theirs; mount -t ext4 /dev/vda ext4; mount -t xfs /dev/vdb xfs; mount -t ext4 /dev/vdd theirs
        echo 2097152 > /proc/sys/vm/dirty_background_bytes; echo 4194304 > /proc/sys/vm/dirty_bytes")?;
    for point in WRITERS {
        guest.start_writer(point)?;
    }
    let sleepers = [
        Sleeper::at_a_pipe(&guest, "splice", "/mnt/ext4", ROOT)?,
        Sleeper::at_a_pipe(&guest, "copy", "/mnt/xfs", NOBODY)?,
    ];
    guest.spawn("large writes", &["/bin/sh", "-c", LARGE])?;
    guest.spawn("snapshots", &["/bin/sh", "-c", SNAPSHOTS])?;
    configure(
        &guest,
        "foreign_freeze = \"accept\"\n[limits]\nflush = 5\nfreeze = 5\n",
    )?;
    plug_in(&mut guest)?;
    Ok((guest, sleepers))
}

/// In a process group of its own.
fn start(bed: &Bed, guest: &mut Guest) -> Step<()> {
    let mut command = vec!["/bin/setsid"];
    command.extend(bed.agent.command());
    guest.spawn(bed.agent.name(), &command)?;
    bed.agent.wait_registered(guest)
}

fn records(guest: &Guest) -> Step<Vec<u64>> {
    let synced = WRITERS.iter().map(|point| Ok(guest.writer(point)?.synced));
    synced.collect()
}

/// What was seen in one try.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// FREEZE was success.
    held: bool,
    /// THAW was, too.
    kept: bool,
    /// The fault came before the answer to FREEZE.
    early: bool,
}

/// One FREEZE, one fault at a random moment of it or of its hold, one THAW where there was a hold.
fn once(bed: &Bed, guest: &mut Guest, dice: &mut Dice, fault: Fault) -> Step<Seen> {
    let points = WRITERS.map(ToOwned::to_owned);
    let early = dice.below(2) == 0;
    let transaction = begin(guest, Operation::FREEZE)?;
    let mut status = None;
    if early {
        std::thread::sleep(Duration::from_millis(dice.below(500)));
    } else {
        status = Some(answer(guest, transaction, HEARD)?);
    }
    let before = records(guest)?;
    let struck = fault.strike(guest, bed.agent)?;
    let status = match status {
        Some(status) => status,
        None => answer(guest, transaction, HEARD)?,
    };
    let mut seen = Seen {
        held: status == 0,
        early,
        ..Seen::default()
    };
    let dead = fault == Fault::Signal(Victim::Both, "KILL");
    if seen.held && !dead {
        // A THAW with success says that nothing was written from FREEZE to here.
        let from = if early { records(guest)? } else { before };
        let to = records(guest)?;
        let thaw = guest.host()?.try_request(Operation::THAW, HEARD)?;
        promise!(thaw.is_some(), "THAW is not answered");
        seen.kept = thaw.is_some_and(tests::host::Answer::ok);
        promise!(
            !seen.kept || from == to,
            "THAW was answered with success, and it was written to: {from:?} {to:?}"
        );
        promise!(
            seen.kept || fault.ends_the_agent(),
            "THAW was answered with failure: {}",
            bed.agent.log(guest)?
        );
    }
    if dead {
        ended(guest, bed.agent, SOON)?;
        start(bed, guest)?;
    }
    // The guardian needs no next start.
    writable_within(guest, &points, Instant::now().max(struck), SOON)?;
    if fault.ends_the_agent() && !dead {
        ended(guest, bed.agent, SOON)?;
        start(bed, guest)?;
    }
    writers_go_on(guest, &points)?;
    Ok(seen)
}

scenario! {
    /// Rows 3, 4, 27 to 32 at once.
    row: "29", "100 random faults (SIGKILL, SIGTERM, SIGSTOP and SIGCONT; of the agent, the guardian, both, the process group) in FREEZE or the hold, under large writes, sleeping pipes, dm suspends and a disk that others have frozen",
    c_daemon_gap: Some("leaves everything frozen"),
    fn random_faults_under_load_keep_nothing_frozen_and_tell_no_lie(bed) {
        let (mut guest, sleepers) = ready(bed)?;
        start(bed, &mut guest)?;
        let mut dice = Dice::new(0x5eed_0017_5eed_0017);
        let (mut held, mut kept, mut early) = (0, 0, 0);
        for attempt in 1..=TRIES {
            let fault = dice.one_of(&FAULTS).copied().unwrap_or(Fault::KillGroup);
            let what = format!("try {attempt} of {TRIES}, {fault:?}");
            let theirs = attempt % THEIRS_AT == 0;
            if theirs {
                guest.sh(&format!("fsfreeze --freeze {THEIRS}"))?;
            }
            let seen = during(&what, once(bed, &mut guest, &mut dice, fault))?;
            if theirs {
                during(&what, frozen(&guest, &[THEIRS]))?;
                guest.sh(&format!("fsfreeze --unfreeze {THEIRS}"))?;
            }
            held += u32::from(seen.held);
            kept += u32::from(seen.kept);
            early += u32::from(seen.early);
        }
        for sleeper in &sleepers {
            sleeper.writes_what_comes(&guest, "later")?;
        }
        guest.signal("snapshots", nix::sys::signal::Signal::SIGKILL)?;
        guest.sh("/sbin/dmsetup resume snapshotted")?;
        checkpoint(&mut guest)?;
        writable(&guest, &[WRITERS.as_slice(), &[THEIRS]].concat())?;
        Ok::<_, Failure>(format!("{TRIES} of {TRIES}: {early} before the answer to FREEZE, {held} holds, {kept} of them to a THAW with success; nothing of ours frozen, theirs always, both sleepers alive"))
    }
}
