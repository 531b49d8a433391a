//! One checkpoint under a load, measured.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use ::tests::error::{BedError, BedResult, Step};
use ::tests::guest::{Guest, poll_until};

use crate::case::{Case, Load, device, mount_point, speed};
use crate::contender::{Contender, now};
use crate::database;
use crate::stats::text;

const LIMIT: Duration = Duration::from_secs(60);

/// From FREEZE answered to THAW sent.
const HOLD: Duration = Duration::from_millis(300);

/// What one checkpoint cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Of those who are asked first.
    pub(crate) hot_backup: Option<Duration>,
    pub(crate) freeze: Duration,
    /// What the disks were given to write before the answer, over their speed; of the one that needs longest.
    pub(crate) writing: Duration,
    pub(crate) thaw: Duration,
    /// The longest small write on each disk, hold taken off.
    pub(crate) stalls: Vec<Stall>,
    /// The longest transaction of a database, hold taken off.
    pub(crate) transaction: Option<Stall>,
    /// Of all its processes, from before HOT_BACKUP to after THAW.
    pub(crate) cpu: Duration,
}

/// The longest operation of its kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stall {
    /// The hold taken off.
    pub(crate) length: Duration,
    /// When it began, in milliseconds from FREEZE on.
    pub(crate) began_ms: i64,
}

impl Sample {
    /// What an application waited: the longest transaction, or else the longest small write of all disks.
    pub(crate) fn worst_stall(&self) -> Stall {
        let longest = self.transaction.or(self.stalls.iter().max().copied());
        longest.unwrap_or_default()
    }

    /// For whoever watches.
    pub(crate) fn line(&self) -> String {
        let longest = self.worst_stall();
        format!(
            "FREEZE {}, THAW {}, processor {}, worst stall {} from {} ms after FREEZE on",
            text(self.freeze),
            text(self.thaw),
            text(self.cpu),
            text(longest.length),
            longest.began_ms
        )
    }
}

/// Keeps the kernel from writing back by itself: what is dirty at FREEZE is what was written. Its flushers are called as
/// often as anywhere, and find nothing that is old enough.
pub(crate) fn keep_dirty(guest: &Guest) -> BedResult<()> {
    guest.sh("cd /proc/sys/vm
         echo 600000000 > dirty_background_bytes; echo 700000000 > dirty_bytes
         echo 360000 > dirty_expire_centisecs")?;
    Ok(())
}

fn file(disk: usize) -> String {
    format!("/run/probe{disk}")
}

/// Starts the probes and the load of a case.
pub(crate) fn start_load(guest: &Guest, case: &Case) -> BedResult<()> {
    for disk in case.disks {
        let point = mount_point(*disk);
        let probe = ["/sbin/hv-testguest", "probe", &point, &file(*disk)];
        guest.spawn(&format!("probe {disk}"), &probe)?;
        let program = "/sbin/hv-testguest";
        let load = format!("load {disk}");
        match case.load {
            // Commits begin once their batch is written.
            Load::Nothing | Load::Commits => {}
            Load::Stream(rate) => {
                let (file, rate) = (format!("{point}/stream"), rate.to_string());
                guest.spawn(&load, &[program, "stream", &file, &rate, "60000000"])?;
            }
            Load::SmallFiles => {
                guest.spawn(&load, &[program, "small-files", &point])?;
            }
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Ends them.
pub(crate) fn stop_load(guest: &Guest, case: &Case) -> BedResult<()> {
    if case.load == Load::Commits {
        database::abandon_stream(guest);
    }
    for disk in case.disks {
        for job in [format!("probe {disk}"), format!("load {disk}")] {
            // There is not always a load.
            let _ = guest.signal(&job, Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Makes everything clean, then as much dirty as the case wants.
fn make_dirty(guest: &Guest, case: &Case) -> BedResult<()> {
    if case.load == Load::Commits {
        return database::start_stream(guest);
    }
    let mut script = String::new();
    for disk in case.disks {
        // First, so that what was not written back need not be.
        script.push_str(&format!("rm -f {}/dirty\n", mount_point(*disk)));
    }
    script.push_str("sync\n");
    if case.dirty > 0 {
        for disk in case.disks {
            let point = mount_point(*disk);
            script.push_str(&format!(
                "/sbin/hv-testguest dirty {point}/dirty {} &\n",
                case.dirty
            ));
        }
        script.push_str("wait\n");
    }
    let done = guest.exec(&["/bin/sh", "-euc", &script], LIMIT * 3)?;
    if done.status == Some(0) {
        return Ok(());
    }
    Err(BedError::Guest(format!("dirtying: {}", done.stderr)))
}

/// Processor time of processes so far, by process.
fn cpu(guest: &Guest, agent: Contender) -> BedResult<BTreeMap<String, u64>> {
    let processes = agent.processes(guest)?;
    let mut argv = vec!["/sbin/hv-testguest", "cpu"];
    argv.extend(processes.iter().map(String::as_str));
    let said = guest.exec(&argv, LIMIT)?.stdout;
    let times = said.lines().skip(1).flat_map(str::parse);
    Ok(processes.iter().cloned().zip(times).collect())
}

/// Bytes written to each disk of a case so far.
fn written(guest: &Guest, case: &Case) -> BedResult<Vec<u64>> {
    let table = guest.read("/proc/diskstats")?;
    // Documentation/admin-guide/iostats.rst: number, number, name, then the seventh count is of sectors written.
    let of = |disk: &usize| {
        let device = device(*disk);
        let mut lines = table.lines().map(|line| line.split_whitespace().skip(2));
        let mut line = lines.find_map(|mut words| (words.next() == Some(&device)).then_some(words));
        let sectors = line.as_mut().and_then(|words| words.nth(6)?.parse().ok());
        sectors.unwrap_or(0u64) * 512
    };
    Ok(case.disks.iter().map(of).collect())
}

/// When things happened.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Before anything was asked.
    since: u64,
    /// FREEZE was sent.
    sent: u64,
    /// FREEZE was answered.
    frozen: u64,
    /// THAW was sent.
    thaw: u64,
}

impl Times {
    /// The longest operation that ended after all began, the hold taken off.
    fn longest(self, operations: impl IntoIterator<Item = (u64, u64)>) -> Stall {
        let stall = |(start, end): (u64, u64)| {
            let held = end.min(self.thaw).saturating_sub(start.max(self.frozen));
            Stall {
                length: Duration::from_nanos(end.saturating_sub(start).saturating_sub(held)),
                began_ms: (signed(start) - signed(self.sent)) / 1_000_000,
            }
        };
        let since = operations
            .into_iter()
            .filter(|(_, end)| *end > self.since)
            .map(stall);
        since.max().unwrap_or_default()
    }
}

/// The slow operations of a probe: beginning and end.
fn slow_operations(guest: &Guest, disk: usize) -> BedResult<Vec<(u64, u64)>> {
    let slow = guest.read(&format!("{}.slow", file(disk)))?;
    let operation = |line: &str| {
        let (start, end) = line.split_once(' ')?;
        Some((start.parse().ok()?, end.parse().ok()?))
    };
    Ok(slow.lines().filter_map(operation).collect())
}

/// Waits until every probe has ended an operation that was begun after a time.
fn wait_for_probes(guest: &Guest, case: &Case, after: u64) -> BedResult<()> {
    for disk in case.disks {
        let beat = format!("{}.beat", file(*disk));
        let went_on = poll_until(LIMIT, || {
            let beat = guest.read(&beat)?.trim().parse::<u64>().unwrap_or(0);
            Ok::<_, BedError>((beat > after).then_some(()))
        })?;
        went_on.ok_or_else(|| BedError::Guest(format!("the probe of disk {disk} sleeps")))?;
    }
    Ok(())
}

/// One checkpoint; without an agent as long a time in which nothing is asked.
pub(crate) fn checkpoint(guest: &mut Guest, case: &Case, agent: Contender) -> Step<Sample> {
    make_dirty(guest, case)?;
    let before = cpu(guest, agent)?;
    let written_before = written(guest, case)?;
    let since = now(guest)?;
    let hot_backup = agent.is_asked_first(guest)?;
    let (sent, frozen) = agent.asks(guest, true)?;
    let writing = written(guest, case)?
        .into_iter()
        .zip(written_before)
        .zip(case.disks)
        .map(|((after, before), disk)| after.saturating_sub(before) as f64 / speed(*disk) as f64)
        .fold(0.0, f64::max);
    std::thread::sleep(HOLD);
    let (thaw, thawed) = agent.asks(guest, false)?;
    wait_for_probes(guest, case, thawed + 200_000_000)?;
    let cpu_time: u64 = cpu(guest, agent)?
        .iter()
        .map(|(pid, time)| time.saturating_sub(before.get(pid).copied().unwrap_or(0)))
        .sum();
    let times = Times {
        since,
        sent,
        frozen,
        thaw,
    };
    let mut stalls = Vec::new();
    for disk in case.disks {
        stalls.push(times.longest(slow_operations(guest, *disk)?));
    }
    let mut transaction = None;
    if case.load == Load::Commits {
        transaction = Some(times.longest(database::end_stream(guest)?));
    }
    Ok(Sample {
        hot_backup,
        freeze: Duration::from_nanos(frozen.saturating_sub(sent)),
        writing: Duration::from_secs_f64(writing),
        thaw: Duration::from_nanos(thawed.saturating_sub(thaw)),
        stalls,
        transaction,
        cpu: Duration::from_nanos(cpu_time),
    })
}

fn signed(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}
