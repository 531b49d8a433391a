//! The configuration of a running agent on a whole guest: read again on SIGHUP, strict and flush-only.

use nix::sys::signal::Signal;
use tests::error::{Failure, Step};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::{E_FAIL, Operation};
use tests::scenario::Bed;
use tests::steps::{
    LIFE_LIMIT, checkpoint, mount_all, succeeds, writable, writers_go_on, writers_sleep,
};
use tests::{promise, scenario};

const FILE: &str = "/etc/hv-vssd/config.toml";
const DROP_IN: &str = "/etc/hv-vssd/config.toml.d/10-site.toml";

const POINT: &str = "/mnt/ext4";

const TAKEN: &str = "the configuration was read again";
const NOT_TAKEN: &str = "the configuration was not taken";

fn configure(guest: &Guest, file: &str, text: &str) -> Step<()> {
    guest.sh("mkdir -p /etc/hv-vssd/config.toml.d")?;
    guest.write(file, text)?;
    Ok(())
}

/// How often the agent's log says so.
fn said(bed: &Bed, guest: &Guest, what: &str) -> Step<usize> {
    Ok(bed.agent.log(guest)?.matches(what).count())
}

/// Waits until the log says so `count` times.
fn says(bed: &Bed, guest: &Guest, what: &str, count: usize) -> Step<()> {
    let found = poll_until(LIFE_LIMIT, || {
        Ok::<_, Failure>((said(bed, guest, what)? >= count).then_some(()))
    })?;
    found.ok_or_else(|| Failure::Promise(format!("the log does not say {what:?} {count} times")))
}

/// SIGHUP, and the log says what came of it.
fn reload(bed: &Bed, guest: &Guest, what: &str) -> Step<()> {
    let before = said(bed, guest, what)?;
    guest.signal(bed.agent.name(), Signal::SIGHUP)?;
    says(bed, guest, what, before + 1)
}

fn fails(guest: &mut Guest, operation: Operation) -> Step<()> {
    let answer = guest.host()?.request(operation)?;
    promise!(
        answer.status == E_FAIL,
        "{} was answered {:#x}",
        operation.name(),
        answer.status
    );
    Ok(())
}

scenario! {
    row: "", "SIGHUP in a hold with a hold limit of 2 s; then with an unknown key; then without one",
    hv_vssd_alone,
    fn a_reload_waits_for_the_thaw_and_a_broken_one_changes_nothing(bed) {
        let kinds = [FsKind::Ext4];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        let points = mount_all(&guest, &kinds)?;
        bed.start_agent(&mut guest)?;
        guest.start_writer(POINT)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        configure(&guest, FILE, "[limits]\nhold = 600\n")?;
        configure(&guest, DROP_IN, "limits.hold = 2\n")?;
        guest.signal(bed.agent.name(), Signal::SIGHUP)?;
        // The agent hears a request after the signal.
        fails(&mut guest, Operation::HOT_BACKUP)?;
        promise!(bed.agent.state(&guest)?.running, "SIGHUP ended the agent");
        writers_sleep(&guest, &points)?;
        succeeds(&mut guest, Operation::THAW)?;
        says(bed, &guest, TAKEN, 1)?;
        writers_go_on(&guest, &points)?;

        // The drop-in's limit ends the next hold.
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_go_on(&guest, &points)?;
        fails(&mut guest, Operation::THAW)?;
        says(bed, &guest, "did not ask for THAW within 2 s", 1)?;

        configure(&guest, DROP_IN, "\n[limits]\nhodl = 30\n")?;
        reload(bed, &guest, NOT_TAKEN)?;
        let log = bed.agent.log(&guest)?;
        let line = format!("{DROP_IN}, line 3: unknown key limits.hodl; did you mean limits.hold?");
        promise!(log.lines().any(|said| said.contains(NOT_TAKEN) && said.contains(&line)), "said: {log}");
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_go_on(&guest, &points)?;
        fails(&mut guest, Operation::THAW)?;
        says(bed, &guest, "did not ask for THAW within 2 s", 2)?;

        guest.sh(&format!("rm {FILE} {DROP_IN}"))?;
        reload(bed, &guest, TAKEN)?;
        checkpoint(&mut guest)?;
        writable(&guest, &[POINT])?;
        Ok("taken after the thaw; a broken one told with file and line, and the old limit kept".into())
    }
}

scenario! {
    row: "", "strictness = \"strict\" with a vfat disk; then with that disk excluded",
    hv_vssd_alone,
    fn strict_refuses_a_disk_that_cannot_be_frozen(bed) {
        let kinds = [FsKind::Ext4, FsKind::Vfat];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        mount_all(&guest, &kinds)?;
        bed.start_agent(&mut guest)?;
        checkpoint(&mut guest)?;
        guest.start_writer(POINT)?;
        configure(&guest, FILE, "strictness = \"strict\"\n")?;
        reload(bed, &guest, TAKEN)?;
        fails(&mut guest, Operation::HOT_BACKUP)?;
        fails(&mut guest, Operation::FREEZE)?;
        writers_go_on(&guest, &[POINT.to_owned()])?;
        says(bed, &guest, "/mnt/vfat (vfat on ", 2)?;
        let plan = guest.sh("/usr/sbin/hv-vssd plan")?;
        promise!(plan.contains("A checkpoint would FAIL: /mnt/vfat"), "the plan says {plan}");

        configure(&guest, DROP_IN, "filesystems.exclude_mount_points = [\"/mnt/vfat\"]\n")?;
        reload(bed, &guest, TAKEN)?;
        checkpoint(&mut guest)?;
        writers_go_on(&guest, &[POINT.to_owned()])?;
        Ok("HOT_BACKUP and FREEZE failed, /mnt/vfat named, nothing frozen; excluded: a checkpoint works".into())
    }
}

scenario! {
    row: "", "strictness = \"flush-only\", ext4 and xfs under a writer",
    hv_vssd_alone,
    fn flush_only_holds_nobody_and_says_so(bed) {
        let kinds = [FsKind::Ext4, FsKind::Xfs];
        let mut guest = bed.boot(&kinds.map(Disk::new))?;
        let points = mount_all(&guest, &kinds)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        configure(&guest, FILE, "strictness = \"flush-only\"\n")?;
        bed.start_agent(&mut guest)?;
        says(bed, &guest, "nothing will be frozen", 1)?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_go_on(&guest, &points)?;
        succeeds(&mut guest, Operation::THAW)?;
        says(bed, &guest, "nothing was frozen, 2 file systems flushed only: the image is crash-consistent", 1)?;

        configure(&guest, FILE, "")?;
        reload(bed, &guest, TAKEN)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        succeeds(&mut guest, Operation::THAW)?;
        writers_go_on(&guest, &points)?;
        Ok("writers went on in the hold; the log says crash-consistent; after a reload they wait".into())
    }
}
