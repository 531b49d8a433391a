//! `hv-vssd check`: each cause produced in a guest, on the real driver.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::agent::Agent;
use tests::error::{Failure, Step};
use tests::faults::configure;
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{mount_all, succeeds};
use tests::{promise, scenario};

/// VMBus protocol 2.4, Windows 8's, and 5.0, Windows 10's.
const OLD_HOST: u32 = (2 << 16) | 4;
const NEW_HOST: u32 = 5 << 16;

const LIMIT: Duration = Duration::from_secs(20);

/// What `check` found, and its exit status.
struct Found {
    report: Value,
    status: Option<i32>,
}

fn check(guest: &Guest) -> Step<Found> {
    check_by(guest, &["/usr/sbin/hv-vssd", "check", "--json"])
}

fn check_by(guest: &Guest, command: &[&str]) -> Step<Found> {
    let ended = guest.exec(command, LIMIT)?;
    let report = serde_json::from_str(&ended.stdout).map_err(|error| {
        Failure::Promise(format!(
            "no JSON ({error}): {}{}",
            ended.stdout, ended.stderr
        ))
    })?;
    Ok(Found {
        report,
        status: ended.status,
    })
}

impl Found {
    fn codes(&self) -> Vec<&str> {
        let findings = self.report.get("findings").and_then(Value::as_array);
        findings
            .into_iter()
            .flatten()
            .filter_map(|finding| finding["code"].as_str())
            .collect()
    }

    /// The finding of this code, of this severity; its sentence.
    fn has(&self, code: &str, severity: &str) -> Step<&str> {
        let findings = self.report.get("findings").and_then(Value::as_array);
        let found = findings
            .into_iter()
            .flatten()
            .find(|finding| finding["code"] == code);
        let Some(found) = found else {
            return Err(Failure::Promise(format!(
                "{code} is not found: {}",
                self.report
            )));
        };
        promise!(
            found["severity"] == severity,
            "{code} is no {severity}: {}",
            self.report
        );
        promise!(
            severity == "note" || !found["remedy"].as_str().unwrap_or_default().is_empty(),
            "{code} has no remedy"
        );
        Ok(found["finding"].as_str().unwrap_or_default())
    }

    fn has_not(&self, code: &str) -> Step<&Self> {
        promise!(
            !self.codes().contains(&code),
            "{code} is found: {}",
            self.report
        );
        Ok(self)
    }

    /// What the host gets, with the exit status that belongs to it.
    fn gives(&self, outcome: &str) -> Step<&Self> {
        promise!(
            self.report.get("outcome").and_then(Value::as_str) == Some(outcome),
            "not {outcome}: {}",
            self.report
        );
        let consistent = matches!(outcome, "application-consistent" | "file-system-consistent");
        let status = Some(i32::from(!consistent));
        promise!(
            self.status == status,
            "{outcome} with exit status {:?}",
            self.status
        );
        Ok(self)
    }
}

/// The first thing that is missing on the way to the host, and nothing else of that way.
fn lacks(guest: &Guest, code: &str) -> Step<()> {
    let found = check(guest)?;
    found.gives("fallback")?.has(code, "error")?;
    let way = [
        "not-hyper-v",
        "no-vmbus",
        "service-off",
        "driver-not-loaded",
        "host-too-old",
        "no-device-node",
        "agent-not-running",
    ];
    for other in way.iter().filter(|other| **other != code) {
        found.has_not(other)?;
    }
    Ok(())
}

/// The driver again, on a host of this age.
fn reload(guest: &Guest, protocol: u32) -> Step<()> {
    guest.sh(&format!(
        "rmmod hv_utils; echo {protocol} >/sys/module/hv_vmbus/parameters/proto_version"
    ))?;
    Ok(guest.load("hv_utils", "")?)
}

fn the_way_to_the_host(bed: &mut Bed) -> Step<String> {
    let guest = bed.boot(&[])?;
    lacks(&guest, "not-hyper-v")?;
    // Firmware that says so, as Hyper-V's does.
    guest.sh(
        "echo 'Microsoft Corporation' >/tmp/vendor; mount --bind /tmp/vendor /sys/class/dmi/id/sys_vendor
         echo 'Virtual Machine' >/tmp/product; mount --bind /tmp/product /sys/class/dmi/id/product_name",
    )?;
    lacks(&guest, "no-vmbus")?;
    guest.sh("umount /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name; insmod /lib/hv_vmbus.ko")?;
    lacks(&guest, "driver-not-loaded")?;
    guest.sh("echo remove >/dev/vmbus_control")?;
    lacks(&guest, "service-off")?;
    guest.sh("echo probe >/dev/vmbus_control")?;
    guest.load("hv_utils", "")?;
    lacks(&guest, "agent-not-running")?;
    guest.sh("mv /dev/vmbus/hv_vss /tmp/node")?;
    lacks(&guest, "no-device-node")?;
    guest.sh("mv /tmp/node /dev/vmbus/hv_vss")?;
    reload(&guest, OLD_HOST)?;
    lacks(&guest, "host-too-old")?;
    reload(&guest, NEW_HOST)?;
    lacks(&guest, "agent-not-running")?;
    Ok("each missing part is named alone: no Hyper-V, no bus, no service, no driver, an old host, no node, no agent".into())
}

fn the_service(bed: &mut Bed) -> Step<String> {
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
    // Both at once, so that neither thaws.
    guest.sh(&format!(
        "kill -STOP {agent}; kill -KILL {guardian} {agent}"
    ))?;
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

fn configuration_and_hooks(bed: &mut Bed) -> Step<String> {
    let mut guest = bed.boot(&[Disk::new(FsKind::Ext4), Disk::new(FsKind::Vfat)])?;
    mount_all(&guest, &[FsKind::Ext4, FsKind::Vfat])?;
    bed.start_agent(&mut guest)?;
    let found = check(&guest)?;
    let told = found
        .gives("file-system-consistent")?
        .has("cannot-freeze", "warning")?;
    promise!(told.contains("/mnt/vfat (vfat)"), "{told}");

    configure(&guest, "strictness = \"strict\"\n")?;
    check(&guest)?
        .gives("fallback")?
        .has("cannot-freeze", "error")?;
    configure(&guest, "strictness = \"flush-only\"\n")?;
    check(&guest)?
        .gives("flushed-only")?
        .has("flush-only", "warning")?;
    configure(
        &guest,
        "[filesystems]\nexclude_types = [\"ext4\", \"vfat\"]\n",
    )?;
    let found = check(&guest)?;
    let told = found.has("excluded", "warning")?;
    promise!(told.contains("/mnt/ext4 (ext4)"), "{told}");
    configure(&guest, "strictnes = 1\n")?;
    check(&guest)?
        .gives("fallback")?
        .has("configuration", "error")?;
    configure(&guest, "")?;

    guest.sh(
        "mkdir -p /etc/hv-vssd/hooks.d; chmod 755 /etc/hv-vssd /etc/hv-vssd/hooks.d
         printf '#!/bin/sh\\n' >/etc/hv-vssd/hooks.d/10-app; chmod 755 /etc/hv-vssd/hooks.d/10-app",
    )?;
    check(&guest)?
        .gives("application-consistent")?
        .has_not("no-hooks")?;
    guest.sh("chmod 777 /etc/hv-vssd/hooks.d/10-app")?;
    let found = check(&guest)?;
    let told = found.gives("fallback")?.has("hook-refused", "error")?;
    promise!(told.contains("10-app"), "{told}");
    guest.sh("chmod 755 /etc/hv-vssd/hooks.d/10-app; chown 1000 /etc/hv-vssd/hooks.d/10-app")?;
    check(&guest)?
        .gives("fallback")?
        .has("hook-refused", "error")?;
    configure(&guest, "[hooks]\non_failure = \"continue\"\n")?;
    check(&guest)?
        .gives("file-system-consistent")?
        .has("hook-refused", "warning")?;
    guest.sh("chown 0 /etc/hv-vssd/hooks.d/10-app")?;
    configure(&guest, "[hooks]\nenabled = false\n")?;
    check(&guest)?
        .gives("file-system-consistent")?
        .has("hooks-disabled", "warning")?;
    Ok(
        "strictness, exclusions, a broken configuration, hooks of the wrong owner or mode are told"
            .into(),
    )
}

fn file_systems(bed: &mut Bed) -> Step<String> {
    let mut guest = bed.boot(&[Disk::new(FsKind::Ext4), Disk::new(FsKind::Xfs)])?;
    mount_all(&guest, &[FsKind::Ext4, FsKind::Xfs])?;
    bed.start_agent(&mut guest)?;
    check(&guest)?.gives("file-system-consistent")?;

    // By an administrator; seen by who waits for it.
    guest.sh("fsfreeze --freeze /mnt/xfs")?;
    promise!(guest.write_sleeps("/mnt/xfs")?, "the disk is not frozen");
    let found = check(&guest)?;
    let told = found.gives("fallback")?.has("frozen-already", "error")?;
    promise!(told.contains("(touch)"), "{told}");
    guest.sh("fsfreeze --unfreeze /mnt/xfs")?;
    gone(&guest, "frozen-already")?;

    guest.sh(
        "modprobe dm_mod; umount /mnt/xfs; size=$(blockdev --getsz /dev/vdb)
         dmsetup create data --table \"0 $size linear /dev/vdb 0\"; dmsetup mknodes; mount -t xfs /dev/mapper/data /mnt/xfs
         dmsetup suspend --nolockfs data",
    )?;
    let found = check(&guest)?;
    let told = found.gives("fallback")?.has("device-suspended", "error")?;
    promise!(told.contains("/mnt/xfs is on data"), "{told}");
    guest.sh("dmsetup resume data")?;
    check(&guest)?
        .gives("file-system-consistent")?
        .has_not("device-suspended")?;

    // A served disk, and one that the driver has made read-only.
    guest.sh(
        "modprobe nbd nbds_max=1 max_part=0; ifconfig lo 127.0.0.1 up
         dd if=/dev/zero of=/tmp/nbd.img bs=1M count=32 2>/dev/null; /sbin/mke2fs -q -F -t ext4 /tmp/nbd.img
         /sbin/nbd-server -C /dev/null 127.0.0.1:10809 /tmp/nbd.img; mkdir -p /mnt/served",
    )?;
    let mut said = String::new();
    let connected = poll_until(LIMIT, || {
        let client = ["/sbin/nbd-client", "127.0.0.1", "10809", "/dev/nbd0"];
        let ended = guest.exec(&client, Duration::from_secs(5))?;
        said = format!("{ended:?}");
        Ok::<_, Failure>((ended.status == Some(0)).then_some(()))
    })?;
    promise!(connected.is_some(), "the served disk cannot be connected");
    guest.sh("mount -t ext4 /dev/nbd0 /mnt/served")?;
    let found = check(&guest)?;
    let told = found
        .gives("file-system-consistent")?
        .has("not-in-image", "warning")?;
    promise!(told.contains("/mnt/served (served by nbd)"), "{told}");

    guest.sh("mount -o remount,errors=remount-ro /mnt/ext4; echo broken >/sys/fs/ext4/vda/trigger_fs_error")?;
    let found = check(&guest)?;
    let told = found
        .gives("fallback")?
        .has("read-only-after-error", "error")?;
    promise!(
        told.contains("/mnt/ext4") && told.contains("after 1 error"),
        "{told}"
    );
    let answer = guest.host()?.request(Operation::FREEZE)?;
    promise!(!answer.ok(), "what check calls impossible has succeeded");
    // One that was mounted so on purpose is none.
    guest.sh("mount -o remount,ro /mnt/served")?;
    let found = check(&guest)?;
    let told = found.has("read-only-after-error", "error")?;
    promise!(!told.contains("/mnt/served"), "{told}");

    let hidden = [
        "/bin/unshare",
        "-m",
        "/bin/sh",
        "-c",
        "umount -l /proc; exec /usr/sbin/hv-vssd check --json",
    ];
    check_by(&guest, &hidden)?
        .gives("fallback")?
        .has("plan-fails", "error")?;
    Ok("a foreign freeze, a suspended device, a served disk, a disk read-only after an error, and no /proc are told".into())
}

/// Waits until it is found: a process that was told to end or to stop takes a moment.
fn eventually(guest: &Guest, code: &str) -> Step<()> {
    let found = poll_until(LIMIT, || {
        Ok::<_, Failure>(check(guest)?.codes().contains(&code).then_some(()))
    })?;
    found.ok_or_else(|| Failure::Promise(format!("{code} is not found")))
}

fn gone(guest: &Guest, code: &str) -> Step<()> {
    let gone = poll_until(LIMIT, || {
        Ok::<_, Failure>((!check(guest)?.codes().contains(&code)).then_some(()))
    })?;
    gone.ok_or_else(|| Failure::Promise(format!("{code} is still found")))
}

scenario! {
    /// Beside the table: each cause of `hv-vssd check`, one after the other.
    row: "", "hv-vssd check: each part on the way to the host taken away",
    hv_vssd_alone,
    fn check_names_what_is_missing_on_the_way_to_the_host(bed) {
        the_way_to_the_host(bed)
    }
}

scenario! {
    row: "", "hv-vssd check: other agents, a stopped one, a dead guardian, a left-over",
    hv_vssd_alone,
    fn check_tells_who_serves_the_host(bed) {
        the_service(bed)
    }
}

scenario! {
    row: "", "hv-vssd check: strictness, exclusions, refused hooks",
    hv_vssd_alone,
    fn check_tells_what_the_configuration_does(bed) {
        configuration_and_hooks(bed)
    }
}

scenario! {
    row: "", "hv-vssd check: frozen, suspended, served and broken disks",
    hv_vssd_alone,
    fn check_tells_the_state_of_the_disks(bed) {
        file_systems(bed)
    }
}
