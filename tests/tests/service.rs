//! The service itself: switched off and on, stopped and started, without a device, and
//! with a host that talks nonsense.

use std::time::{Duration, Instant};

use tests::error::{Failure, Step};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::{E_FAIL, Header, Operation, vss};
use tests::scenario::Bed;
use tests::steps::{checkpoint, mount_all, succeeds, writable, writers_go_on, writers_sleep};
use tests::{promise, scenario};

const EXT4: [FsKind; 1] = [FsKind::Ext4];
const POINT: &str = "/mnt/ext4";

/// The driver lets go of a service only when the agent has closed the device.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// The host switches the service off and on again, and the agent comes back by itself.
fn off_and_on(bed: &Bed, guest: &mut Guest) -> Step<()> {
    let removal = guest.host_does("remove")?;
    removal.wait(REMOVAL_LIMIT).map_err(|_| {
        Failure::Promise(format!(
            "the device was still open {REMOVAL_LIMIT:?} after the service was switched off"
        ))
    })?;
    guest.host_does("probe")?.wait(REMOVAL_LIMIT)?;
    promise!(
        bed.agent.state(guest)?.running,
        "the agent ended when the service was switched off"
    );
    guest.host()?.negotiate()?;
    bed.agent.wait_registered(guest)?;
    checkpoint(guest)
}

scenario! {
    /// Row 18: VSS-09.
    row: "18", "the host switches the service off and on, three times",
    c_daemon_gap: Some("exits when the service is switched off"),
    fn the_agent_comes_back_when_the_service_is_switched_on(bed) {
        let mut guest = bed.boot(&EXT4.map(Disk::new))?;
        mount_all(&guest, &EXT4)?;
        bed.start_agent(&mut guest)?;
        checkpoint(&mut guest)?;
        for _ in 0..3 {
            off_and_on(bed, &mut guest)?;
        }
        writable(&guest, &[POINT])?;
        Ok("re-registered 3 of 3 times without a restart".into())
    }
}

scenario! {
    /// Row 18, the hard half.
    row: "18", "the host switches the service off during a hold, then on",
    c_daemon_gap: Some("thaws, then exits"),
    fn a_service_switched_off_during_a_hold_thaws_at_once(bed) {
        let mut guest = bed.boot(&EXT4.map(Disk::new))?;
        let points = mount_all(&guest, &EXT4)?;
        bed.start_agent(&mut guest)?;
        guest.start_writer(POINT)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        let before = guest.writer(POINT)?.synced;
        let off = Instant::now();
        let removal = guest.host_does("remove")?;
        let woken = poll_until(REMOVAL_LIMIT, || {
            Ok::<_, Failure>((guest.writer(POINT)?.synced > before).then(|| off.elapsed()))
        })?;
        let Some(woken) = woken else {
            return Err(Failure::Promise(format!("still frozen {REMOVAL_LIMIT:?} after the service was switched off")));
        };
        bed.measured("thawed after", woken);
        promise!(woken < Duration::from_secs(2), "thawed only after {woken:?}");
        removal.wait(REMOVAL_LIMIT)?;
        guest.host_does("probe")?.wait(REMOVAL_LIMIT)?;
        guest.host()?.negotiate()?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        writers_go_on(&guest, &points)?;
        Ok(format!("writing again {} ms after the switch; re-registered without a restart", woken.as_millis()))
    }
}

scenario! {
    /// Row 19: VSS-10, FAILBACK.
    row: "19", "agent stopped, HOT_BACKUP; agent started, HOT_BACKUP, a checkpoint",
    c_daemon_gap: None,
    fn a_stopped_agent_lets_the_host_fall_back(bed) {
        let mut guest = bed.boot(&EXT4.map(Disk::new))?;
        mount_all(&guest, &EXT4)?;
        bed.start_agent(&mut guest)?;
        checkpoint(&mut guest)?;
        bed.agent.stop(&guest)?;
        let refusal = guest.host()?.request(Operation::HOT_BACKUP)?;
        promise!(refusal.status == E_FAIL, "HOT_BACKUP without an agent was answered {:#x}", refusal.status);
        promise!(refusal.took < Duration::from_secs(5), "HOT_BACKUP without an agent took {:?}", refusal.took);
        bed.agent.start(&mut guest)?;
        checkpoint(&mut guest)?;
        writable(&guest, &[POINT])?;
        Ok(format!("stopped: HOT_BACKUP fails in {} ms; started: a checkpoint works", refusal.took.as_millis()))
    }
}

/// Starts the agent where it cannot serve, and returns what it said when it gave up.
fn refusal(bed: &Bed, guest: &Guest) -> Step<String> {
    let started = Instant::now();
    bed.agent.spawn(guest, "refused")?;
    let limit = Duration::from_secs(10);
    let state = poll_until(limit, || {
        let state = guest.job("refused")?;
        Ok::<_, Failure>((!state.running).then_some(state))
    })?;
    let Some(state) = state else {
        return Err(Failure::Promise(format!("still running after {limit:?}")));
    };
    promise!(state.status != Some(0), "ended with success");
    promise!(
        started.elapsed() < Duration::from_secs(5),
        "took {:?} to give up",
        started.elapsed()
    );
    Ok(state.output + &guest.syslog()?)
}

/// A message says what to do if it has one of these words.
fn advises(message: &str, words: &[&str]) -> Step<()> {
    if words.iter().any(|word| message.contains(word)) {
        return Ok(());
    }
    // The last line without its time stamp, so that two runs say the same.
    let line = message.trim().lines().last().unwrap_or_default();
    let line = line.split_once("VSS: ").map_or(line, |(_, said)| said);
    Err(Failure::Promise(format!("said only {line:?}")))
}

scenario! {
    /// Row 22: Azure, bare metal, a service switched off in the virtual machine's settings.
    row: "22", "no device: hv_utils not loaded",
    c_daemon_gap: Some("names the error, not a remedy"),
    fn an_absent_device_is_explained(bed) {
        let guest = bed.boot(&[])?;
        let message = refusal(bed, &guest)?;
        advises(&message, &["hv_utils", "Integration Services", "integration services"])?;
        Ok("ends at once, says what to do".into())
    }
}

scenario! {
    /// Row 22: the driver declines below VMBus protocol WIN8_1, and the device never appears.
    row: "22", "a host older than Windows Server 2012 R2",
    c_daemon_gap: Some("names the error, not a remedy"),
    fn an_old_host_is_explained(bed) {
        let guest = bed.boot(&[])?;
        // Protocol 2.4 is Windows 8's.
        guest.plug_in_with(&format!("proto_version={}", (2 << 16) | 4))?;
        let kernel_log = guest.sh("dmesg")?;
        promise!(guest.sh("test ! -e /dev/vmbus/hv_vss").is_ok(), "the device appeared: {kernel_log}");
        let message = refusal(bed, &guest)?;
        advises(&message, &["2012 R2", "hv_utils", "Integration Services", "integration services"])?;
        Ok("ends at once, says what to do".into())
    }
}

scenario! {
    /// Row 22: the device admits one.
    row: "22", "a second agent while the first one serves",
    c_daemon_gap: Some("names the error, not a remedy"),
    fn a_second_agent_is_explained_and_does_no_harm(bed) {
        let mut guest = bed.boot(&EXT4.map(Disk::new))?;
        mount_all(&guest, &EXT4)?;
        bed.start_agent(&mut guest)?;
        let before = bed.agent.log(&guest)?;
        let message = refusal(bed, &guest)?;
        let message = message.strip_prefix(before.as_str()).unwrap_or(&message).to_owned();
        checkpoint(&mut guest)?;
        writable(&guest, &[POINT])?;
        advises(&message, &["another", "already", "hv_vss_daemon", "stop"])?;
        Ok("ends at once, says what to do; the first goes on".into())
    }
}

scenario! {
    /// Row 23: whatever the host sends, the agent lives and nothing stays frozen.
    row: "23", "unknown operations, short, oversized and garbage packets, THAW first, FREEZE twice, THAW twice",
    c_daemon_gap: None,
    fn a_host_that_talks_nonsense_does_no_harm(bed) {
        let mut guest = bed.boot(&EXT4.map(Disk::new))?;
        mount_all(&guest, &EXT4)?;
        bed.start_agent(&mut guest)?;

        // THAW when nothing is frozen is answered, one way or the other.
        guest.host()?.request(Operation::THAW)?;
        checkpoint(&mut guest)?;

        for number in [0, 1, 3, 4, 7, 42, 127, 128, 129, 255] {
            let limit = Duration::from_secs(5);
            let answer = guest.host()?.try_request(Operation(number), limit)?;
            promise!(answer.is_some(), "operation {number} was not answered in {limit:?}");
        }
        // Too short for a header, too short for an operation: the driver drops them.
        for length in [1, 8, 27, 28, 32] {
            let mut packet = vss(Operation::FREEZE, 0);
            packet.truncate(length);
            guest.host()?.send(&packet)?;
        }
        guest.host()?.send(&[0xa5; 512])?;
        succeeds(&mut guest, Operation::HOT_BACKUP)?;
        // Larger than the driver's buffer, and yet a request.
        let oversized = |transaction| {
            let mut packet = vss(Operation::HOT_BACKUP, transaction);
            packet.resize(16 * 1024, 0xff);
            packet
        };
        let answer = guest.host()?.transact(oversized, Duration::from_secs(40))?;
        let status = answer.and_then(|(packet, _)| Header::of(&packet)).map(|header| header.status);
        promise!(status == Some(0), "an oversized HOT_BACKUP was answered {status:?}");
        succeeds(&mut guest, Operation::HOT_BACKUP)?;

        succeeds(&mut guest, Operation::FREEZE)?;
        guest.host()?.request(Operation::FREEZE)?;
        guest.host()?.request(Operation::THAW)?;
        guest.host()?.request(Operation::THAW)?;
        writable(&guest, &[POINT])?;

        promise!(bed.agent.state(&guest)?.running, "the agent has ended");
        checkpoint(&mut guest)?;
        writable(&guest, &[POINT])?;
        Ok("every request answered, agent alive, nothing frozen at the end".into())
    }
}
