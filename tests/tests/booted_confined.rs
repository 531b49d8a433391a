//! Under AppArmor: the shipped profile is enforced, is no obstacle, and is a fence.

use std::time::{Duration, Instant};

use tests::booted::{self, System, WRITTEN};
use tests::error::{Failure, Step};
use tests::faults::{fails, writable_within};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::held::SOON;
use tests::host::Operation;
use tests::steps::{checkpoint, start_container, succeeds, writers_go_on, writers_sleep};
use tests::{promise, scenario};

/// It makes, checks and repairs file systems, under emulation.
const DEMO: Duration = Duration::from_secs(120);

/// A hook that notes its calls.
const HOOK: &str = "#!/bin/sh\\necho $1 >> /run/hook\\n";

/// What the kernel has refused under this project's profile: also what its own log had no room for.
fn denials(guest: &Guest) -> Step<String> {
    Ok(guest.sh("journalctl --sync; journalctl -b -o cat --no-pager | grep 'apparmor=\"DENIED\".*hv-vssd' || true")?)
}

/// Every process of the service is confined.
fn confined(guest: &Guest, unit: &str) -> Step<()> {
    let group = booted::property(guest, unit, "ControlGroup")?;
    let pids = guest.read(&format!("/sys/fs/cgroup{group}/cgroup.procs"))?;
    // Beside them, for a moment, what starts a hook.
    promise!(pids.lines().count() >= 2, "no agent and guardian: {pids}");
    for pid in pids.lines() {
        let label = guest.read(&format!("/proc/{pid}/attr/current"))?;
        promise!(
            label.trim() == "hv-vssd (enforce)",
            "process {pid} is under {label}"
        );
    }
    Ok(())
}

scenario! {
    /// The profile is part of the package, and loaded at boot.
    row: "26", "a booted Debian under AppArmor: a disk hidden under another mount, one that only a container has, a hook, every command by hand, a hook without systemd, SIGKILL of all in a hold; then what the profile must refuse",
    hv_vssd_alone,
    fn the_apparmor_profile_is_a_fence_and_no_obstacle(bed) {
        let system = System::new().packages(&["apparmor"]).disks(&[Disk::new(FsKind::Ext4)]).setup(&format!(
            "mkdir -p /etc/hv-vssd/hooks.d; printf '{HOOK}' > /etc/hv-vssd/hooks.d/10-note; chmod 755 /etc/hv-vssd/hooks.d/10-note"
        ));
        let mut guest = bed.boot_system(&system)?;
        let unit = booted::unit(bed.agent);
        confined(&guest, unit)?;

        // A volume under another mount, and a disk that only a container has.
        let mut points = WRITTEN.map(ToOwned::to_owned).to_vec();
        for point in &points {
            guest.start_writer(point)?;
        }
        guest.sh("mount -t tmpfs none /srv")?;
        start_container(&guest, "/dev/vde", "/mnt/inner")?;
        points.push("/mnt/inner".to_owned());
        writers_go_on(&guest, &points)?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let asleep = writers_sleep(&guest, &points);
        succeeds(&mut guest, Operation::THAW)?;
        asleep?;
        writers_go_on(&guest, &points)?;
        let called = poll_until(SOON, || {
            let calls = guest.read("/run/hook").unwrap_or_default();
            Ok::<_, Failure>((calls == "freeze\nthaw\n").then_some(()))
        })?;
        promise!(called.is_some(), "the hook was called: {:?}", guest.read("/run/hook"));

        // By hand, with an agent and without one.
        for command in ["plan", "plan --json", "status", "status --json", "check", "config", "freeze --for 1s --report", "thaw"] {
            guest.sh(&format!("hv-vssd {command}"))?;
        }
        let demo = guest.exec(&["hv-vssd", "demo"], DEMO)?;
        promise!(demo.status == Some(0), "the demo: {demo:?}");
        guest.sh(&format!("systemctl stop {unit}; hv-vssd freeze --for 1s; hv-vssd thaw; hv-vssd check || true; systemctl start {unit}"))?;
        bed.agent.wait_registered(&mut guest)?;
        // What a shell has opened for it, it may write to, wherever that is.
        guest.sh("hv-vssd status > /root/told; grep -q Guardian /root/told")?;

        // Where no systemd runs hooks, the command itself does, and they leave the profile.
        let calls = guest.read("/run/hook")?.lines().count();
        guest.sh(&format!("systemctl stop {unit}; unshare -m sh -c 'mount -t tmpfs none /run/systemd; hv-vssd freeze --for 100ms'; systemctl start {unit}"))?;
        bed.agent.wait_registered(&mut guest)?;
        promise!(guest.read("/run/hook")?.lines().count() == calls + 2, "the hook was not called without systemd");

        // What agent and guardian leave frozen the next start thaws, confined as well.
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        let struck = Instant::now();
        guest.sh(&format!("systemctl kill -s KILL {unit}"))?;
        writable_within(&guest, &["/var/tmp".to_owned()], struck, SOON)?;
        fails(&mut guest, Operation::THAW, SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        guest.sh(&format!("systemctl reload {unit}"))?;
        checkpoint(&mut guest)?;
        confined(&guest, unit)?;
        let denied = denials(&guest)?;
        promise!(denied.is_empty(), "refused in its own work:\n{denied}");

        // Root's own files are none of its business; that this is on record shows that the record works.
        let read = guest.exec(&["hv-vssd", "config", "--config", "/etc/shadow"], SOON)?;
        promise!(
            read.status == Some(2) && read.stderr.contains("Permission denied"),
            "it may read /etc/shadow: {read:?}"
        );
        let denied = denials(&guest)?;
        promise!(denied.contains("/etc/shadow"), "a refusal is not on record: {denied:?}");
        let made = guest.exec(&["hv-vssd", "demo", "--dir", "/root"], SOON)?;
        promise!(
            made.status == Some(1) && made.stderr.contains("Permission denied"),
            "it may write to /root: {made:?}"
        );
        booted::nothing_failed(&guest)?;
        Ok("agent and guardian enforced; all of it frozen and thawed, the hook called, every command works, nothing refused; /etc/shadow refused, and writing to /root".into())
    }
}
