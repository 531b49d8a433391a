//! Disks served by a process: a dead server must not hold the others, nor the host.

use std::time::{Duration, Instant};

use tests::error::{BedError, Failure, Step};
use tests::faults::{THAW_LIMIT, answer, begin, configure, plug_in, writable_within};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::{E_FAIL, Operation};
use tests::steps::{checkpoint, mount_all};
use tests::{promise, scenario};

const LOCAL: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];
const SERVED: &str = "/mnt/nbd";

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

/// Mounts a disk that a process of the guest serves.
fn mount_served(guest: &Guest) -> Step<()> {
    guest.sh(
        "ifconfig lo 127.0.0.1 up; modprobe nbd nbds_max=1 max_part=0
         dd if=/dev/zero of=/tmp/nbd.img bs=1M count=32 2>/dev/null; /sbin/mke2fs -q -F -t ext4 /tmp/nbd.img",
    )?;
    // One process for each connection: a handshake that hangs is tried again with another.
    guest.sh("/sbin/nbd-server -C /dev/null 127.0.0.1:10809 /tmp/nbd.img")?;
    let mut said = String::new();
    let connected = poll_until(SOON * 4, || {
        let client = ["/sbin/nbd-client", "127.0.0.1", "10809", "/dev/nbd0"];
        let ended = guest.exec(&client, Duration::from_secs(2))?;
        said = format!("{ended:?}");
        Ok::<_, Failure>((ended.status == Some(0)).then_some(()))
    })?;
    let failed = || BedError::Guest(format!("the served disk cannot be connected: {said}"));
    connected.ok_or_else(failed)?;
    guest.sh(&format!(
        "mkdir -p {SERVED}; mount -t ext4 /dev/nbd0 {SERVED}"
    ))?;
    Ok(())
}

scenario! {
    /// Row 7: a dead nbd server.
    row: "7", "the server of an nbd disk answers no more; the limits are 2 s",
    c_daemon_gap: Some("waits for the server, and holds the others frozen meanwhile"),
    fn a_dead_nbd_server_holds_nobody(bed) {
        let mut guest = bed.boot(&LOCAL.map(Disk::new))?;
        let local = mount_all(&guest, &LOCAL)?;
        mount_served(&guest)?;
        configure(&guest, "[limits]\nflush = 2\nfreeze = 2\n")?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        guest.sh(&format!("echo unwritten > {SERVED}/file"))?;
        guest.sh("kill -STOP $(pidof nbd-server)")?;
        let transaction = begin(&mut guest, Operation::FREEZE)?;
        let asked = Instant::now();
        let status = answer(&mut guest, transaction, Duration::from_secs(10))?;
        let heard = asked.elapsed();
        promise!(status == E_FAIL, "FREEZE was answered {status:#x}");
        bed.measured("failure told", heard);
        writable_within(&guest, &local, Instant::now(), THAW_LIMIT)?;
        guest.sh("kill -CONT $(pidof nbd-server)")?;
        writable_within(&guest, &[SERVED.to_owned()], Instant::now(), SOON)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        Ok(format!("failure after {:.1} s, the others never held; served again, the next checkpoint works", heard.as_secs_f64()))
    }
}
