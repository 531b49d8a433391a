//! Who serves the host: other agents, a stopped one, one without its guardian.

use nix::sys::signal::Signal;
use tests::agent::Agent;
use tests::error::Step;
use tests::faults::Victim;
use tests::guest::{Disk, FsKind};
use tests::host::Operation;
use tests::promise;
use tests::scenario::Bed;
use tests::steps::{mount_all, succeeds};

use super::{LIMIT, check, eventually, gone};

pub(super) fn the_service(bed: &mut Bed) -> Step<String> {
    let mut guest = bed.boot(&[Disk::new(FsKind::Ext4)])?;
    mount_all(&guest, &[FsKind::Ext4])?;
    guest.plug_in()?;
    guest.host()?.negotiate()?;

    guest.spawn(
        "other",
        &["/bin/sh", "-c", "exec 3<>/dev/vmbus/hv_vss; sleep 1000"],
    )?;
    eventually(&guest, "device-held")?;
    let found = check(&guest)?;
    found.gives("other-agent")?.has_not("agent-not-running")?;
    promise!(
        found.has("device-held", "error")?.contains("(sleep)"),
        "{}",
        found.report
    );
    guest.sh("kill $(pidof sleep)")?;
    gone(&guest, "device-held")?;

    Agent::CDaemon.start(&mut guest)?;
    let found = check(&guest)?;
    let told = found.gives("other-agent")?.has("device-held", "error")?;
    promise!(
        told.contains("hv_vss_daemon, the daemon of the kernel's tools"),
        "{told}"
    );
    guest.signal(Agent::CDaemon.name(), Signal::SIGTERM)?;
    gone(&guest, "device-held")?;

    bed.agent.start(&mut guest)?;
    let found = check(&guest)?;
    found
        .gives("file-system-consistent")?
        .has("no-hooks", "note")?;

    guest.signal(bed.agent.name(), Signal::SIGSTOP)?;
    eventually(&guest, "agent-not-ready")?;
    let found = check(&guest)?;
    found.gives("fallback")?.has("agent-not-ready", "error")?;
    guest.signal(bed.agent.name(), Signal::SIGCONT)?;
    gone(&guest, "agent-not-ready")?;

    let agent = bed.agent.state(&guest)?.pid;
    let guardian = format!("$(grep -l '^PPid:.{agent}$' /proc/[0-9]*/status | cut -d / -f 3)");
    guest.sh(&format!("kill -KILL {guardian}"))?;
    eventually(&guest, "guardian-missing")?;
    check(&guest)?
        .gives("fallback")?
        .has("guardian-missing", "error")?;
    succeeds(&mut guest, Operation::HOT_BACKUP)?;
    check(&guest)?
        .gives("file-system-consistent")?
        .has_not("guardian-missing")?;

    succeeds(&mut guest, Operation::FREEZE)?;
    check(&guest)?
        .gives("file-system-consistent")?
        .has("busy", "note")?;
    // All at once, so that none thaws.
    Victim::All.strike(&guest, bed.agent, "KILL")?;
    eventually(&guest, "left-over")?;
    let found = check(&guest)?;
    let told = found.gives("fallback")?.has("left-over", "error")?;
    promise!(told.contains("/mnt/ext4"), "{told}");
    guest.sh("/usr/sbin/hv-vssd thaw")?;
    check(&guest)?
        .has_not("left-over")?
        .has("agent-not-running", "error")?;

    let text = guest.exec(&["/usr/sbin/hv-vssd", "check"], LIMIT)?;
    promise!(text.status == Some(1), "exit status {:?}", text.status);
    promise!(
        text.stdout.contains("[agent-not-running]") && text.stderr.is_empty(),
        "{text:?}"
    );
    Ok("another agent, the C daemon, a stopped agent, a dead guardian, a hold and a left-over are told apart".into())
}
