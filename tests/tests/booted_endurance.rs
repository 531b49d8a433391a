//! A booted Debian that is backed up again and again while it works.

use std::path::PathBuf;
use std::time::Duration;

use tests::agent::Agent;
use tests::assets::Kernel;
use tests::booted::{self, System, WRITTEN};
use tests::error::{Failure, Step};
use tests::footprint::Footprint;
use tests::guest::Guest;
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{succeeds, writers_go_on, writers_sleep};
use tests::{images, promise, scenario};

/// Checkpoints of hv-vssd, on one kernel.
const MANY: usize = 1000;

/// On the other, and of the C daemon: enough to show whether it grows.
const FEW: usize = 200;

/// What is there after this checkpoint is what later ones are compared with.
const SETTLED: usize = 100;

/// In every so many holds it is looked at whether the writers sleep, and after it whether they go on.
const SAMPLE: usize = 50;

/// Syncing writers on both file systems; on `/` small files come and go, data is rewritten and never synced, and
/// the journal is written to.
fn start_load(guest: &Guest) -> Step<()> {
    for point in WRITTEN {
        guest.start_writer(point)?;
    }
    let testguest = "/sbin/hv-testguest";
    guest.sh("mkdir /var/tmp/small")?;
    guest.spawn("small files", &[testguest, "small-files", "/var/tmp/small"])?;
    for file in ["/var/tmp/stream", "/srv/stream"] {
        guest.spawn(file, &[testguest, "stream", file, "500000", "8000000"])?;
    }
    let journal = "while sleep 1; do echo the load goes on; done | logger -t load";
    guest.spawn("journal", &["/bin/sh", "-c", journal])?;
    // The disks are to be busy. The two emulated processors are few, and would be all that is measured.
    guest.sh("renice -n 19 -p $(pgrep -f '^/sbin/hv-testguest ')")?;
    Ok(())
}

/// How long the host waited for its answers.
#[derive(Default)]
struct Waits(Vec<Duration>);

impl Waits {
    fn report(mut self, bed: &mut Bed, what: &str) {
        self.0.sort_unstable();
        for (name, at) in [("median", self.0.len() / 2), ("longest", self.0.len() - 1)] {
            if let Some(wait) = self.0.get(at) {
                bed.measured(&format!("{what}, {name}"), *wait);
            }
        }
    }
}

/// Copies of both file systems, and how many records were synced on `/`.
fn copy(guest: &Guest) -> Step<(PathBuf, u64, PathBuf)> {
    let [on_root, _] = WRITTEN;
    let root = guest.dir().join("root-copy.img");
    let synced = guest.writer(on_root)?.synced;
    images::copy(guest.image(0)?, &root)?;
    Ok((root, synced, booted::copy_volume(guest)?))
}

scenario! {
    /// Row 25 in a whole system.
    row: "25", "a booted Debian at work: 1,000 checkpoints on 6.1 (on 6.12, and of the C daemon, 200), the image copied in the last hold",
    c_daemon_gap: None,
    fn a_booted_debian_at_work_is_backed_up_again_and_again(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        let unit = booted::unit(bed.agent);
        let rounds = if bed.agent == Agent::HvVssd && bed.kernel == Kernel::V6_1 { MANY } else { FEW };
        let points = WRITTEN.map(ToOwned::to_owned);
        start_load(&guest)?;
        let [mut checks, mut freezes, mut thaws] = [Waits::default(), Waits::default(), Waits::default()];
        let mut settled = None;
        let mut image = None;
        for round in 1..=rounds {
            if round == rounds {
                // The last hold is as long as the copy takes.
                for (point, what) in points.iter().zip(["/", "/srv"]) {
                    let worst = Duration::from_millis(guest.writer(point)?.worst_ms);
                    bed.measured(&format!("longest write and fsync on {what}"), worst);
                }
            }
            checks.0.push(succeeds(&mut guest, Operation::HOT_BACKUP)?.took);
            freezes.0.push(succeeds(&mut guest, Operation::FREEZE)?.took);
            let sample = round % SAMPLE == 0;
            if sample {
                writers_sleep(&guest, &points)?;
            }
            if round == rounds {
                image = Some(copy(&guest)?);
            }
            thaws.0.push(succeeds(&mut guest, Operation::THAW)?.took);
            if sample {
                writers_go_on(&guest, &points)?;
            }
            if round == SETTLED {
                settled = Some(Footprint::at_rest(&guest, unit)?);
            }
        }
        let settled = settled.ok_or_else(|| Failure::Promise("nothing to compare with".into()))?;
        let grown = Footprint::at_rest(&guest, unit)?;
        println!("after {SETTLED}: {settled:?}\nafter {rounds}: {grown:?}");
        if let Some(growth) = grown.growth_since(&settled) {
            return Err(Failure::Promise(format!("from checkpoint {SETTLED} to {rounds}: {growth}")));
        }
        let restarts = booted::property(&guest, unit, "NRestarts")?;
        promise!(restarts == "0", "the agent was started anew {restarts} times");
        for job in ["small files", "/var/tmp/stream", "/srv/stream", "journal"] {
            let state = guest.job(job)?;
            promise!(state.running, "the load has ended: {job}: {}", state.output);
        }
        guest.sh("logger -t bed after all of them; journalctl --sync; journalctl -b -t bed | grep -q 'after all'")?;
        booted::nothing_failed(&guest)?;
        checks.report(bed, "HOT_BACKUP");
        freezes.report(bed, "FREEZE");
        thaws.report(bed, "THAW");
        drop(guest);
        let Some((root, synced, volume)) = image else { return Err(Failure::Promise("no image".into())) };
        booted::clean_and_complete(&root, synced, &volume)?;
        Ok(format!(
            "{} of {} statuses 0; the same processes, {} threads and {} open files as after {SETTLED}; {} KiB resident, then {}; the last image clean and complete",
            rounds * 3, rounds * 3, grown.threads, grown.files, settled.resident, grown.resident
        ))
    }
}
