//! The unit's sandbox, as the running system has it: tight, and yet no obstacle.

use std::time::{Duration, Instant};

use tests::booted::{self, System, WRITTEN};
use tests::error::Failure;
use tests::faults::{fails, writable_within};
use tests::guest::poll_until;
use tests::host::Operation;
use tests::steps::{checkpoint, succeeds, writers_go_on, writers_sleep};
use tests::{promise, scenario};

/// A promise that is kept soon is kept within this time, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Notes its calls, and the mount namespace they are made in.
const HOOK: &str = "#!/bin/sh\necho $1 $(readlink /proc/self/ns/mnt) >> /run/hook\n";

scenario! {
    /// As tight as an agent can be that must see the mounts of the machine.
    row: "26", "a booted Debian: the service's namespaces, capabilities and memory; a disk hidden under another mount, and a hook, in its sandbox",
    hv_vssd_alone,
    fn the_sandbox_hides_no_mount_and_bars_no_work(bed) {
        let mut guest = bed.boot_system(&System::new().setup(&format!(
            "mkdir -p /etc/hv-vssd/hooks.d; printf '{}' > /etc/hv-vssd/hooks.d/10-note; chmod 755 /etc/hv-vssd/hooks.d/10-note",
            HOOK.replace('\n', "\\n")
        )))?;
        let unit = booted::unit(bed.agent);
        let group = booted::property(&guest, unit, "ControlGroup")?;
        let pids = guest.read(&format!("/sys/fs/cgroup{group}/cgroup.procs"))?;
        let ours = guest.sh("readlink /proc/1/ns/mnt")?;
        let network = guest.sh("readlink /proc/1/ns/net")?;
        promise!(pids.lines().count() == 2, "agent and guardian are not two processes: {pids}");
        for pid in pids.lines() {
            let theirs = guest.sh(&format!("readlink /proc/{pid}/ns/mnt"))?;
            promise!(theirs == ours, "the service has a mount namespace of its own");
            let theirs = guest.sh(&format!("readlink /proc/{pid}/ns/net"))?;
            promise!(theirs != network, "the service is on the machine's network");
            let status = guest.read(&format!("/proc/{pid}/status"))?;
            let value = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().trim().trim_end_matches(" kB").to_owned()
            };
            promise!(value("Seccomp:") == "2", "no filter of system calls: {status}");
            promise!(value("NoNewPrivs:") == "1", "may gain privileges: {status}");
            // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN; the guardian has the last alone.
            let capabilities = u64::from_str_radix(&value("CapEff:"), 16).unwrap_or(u64::MAX);
            promise!(capabilities & !0x28_0004 == 0, "too many capabilities: {status}");
            promise!(value("VmLck:").parse().is_ok_and(|kib: u64| kib > 500), "its memory is not locked: {status}");
        }
        guest.sh(&format!("systemd-analyze security --threshold=37 {unit} > /dev/null"))?;

        let points = WRITTEN.map(ToOwned::to_owned);
        for point in &points {
            guest.start_writer(point)?;
        }
        guest.sh("mount -t tmpfs none /srv")?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        succeeds(&mut guest, Operation::THAW)?;
        writers_go_on(&guest, &points)?;
        let calls = poll_until(SOON, || {
            let calls = guest.read("/run/hook").unwrap_or_default();
            Ok::<_, Failure>(calls.contains("thaw").then_some(calls))
        })?;
        let expected = format!("freeze {ours}thaw {ours}");
        promise!(calls.as_deref() == Some(expected.as_str()), "the hook was called: {calls:?}");
        checkpoint(&mut guest)?;
        let said = booted::journal(&guest, bed.agent)?;
        let denied = said.lines().find(|line| line.contains("not permitted") || line.contains("cannot be locked"));
        promise!(denied.is_none(), "{}", denied.unwrap_or_default());
        booted::nothing_failed(&guest)?;
        Ok("the machine's mount namespace and no network; three capabilities, locked memory; the hidden disk frozen, the hook called outside the sandbox".into())
    }
}

scenario! {
    /// A core file would be written to what is frozen: its process would not die, and nobody thaw for it before the limit of the hold.
    row: "3", "a booted Debian that keeps core files on /: SIGABRT of the agent in a hold",
    hv_vssd_alone,
    fn a_dump_of_core_delays_no_thaw(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        guest.sh("echo /var/tmp/core.%p > /proc/sys/kernel/core_pattern")?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let struck = Instant::now();
        guest.sh(&format!("systemctl kill --kill-whom=main -s ABRT {}", booted::unit(bed.agent)))?;
        writable_within(&guest, &["/var/tmp".to_owned()], struck, SOON)?;
        fails(&mut guest, Operation::THAW, SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        let left = guest.sh("ls /var/tmp")?;
        promise!(!left.contains("core."), "a core file was written: {left}");
        booted::nothing_failed(&guest)?;
        Ok("thawed at once, no core file, the next backup works".into())
    }
}
