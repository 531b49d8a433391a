//! Nothing that the rest of the machine waits for may hold up a thaw.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::error::{Failure, Step};
use tests::faults::{THAW_LIMIT, answer, begin, plug_in, writable_within};
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::Operation;
use tests::steps::{checkpoint, mount_all, succeeds, writers_go_on, writers_sleep};
use tests::{promise, scenario, strace};

const TWO: [FsKind; 2] = [FsKind::Ext4, FsKind::Xfs];

/// A promise that is kept soon is kept within this time.
const SOON: Duration = Duration::from_secs(5);

/// The host's THAW in the hold that lasts, and how long it took.
fn thaw(guest: &mut Guest) -> Step<Duration> {
    let transaction = begin(guest, Operation::THAW)?;
    let asked = Instant::now();
    let status = answer(guest, transaction, SOON)?;
    promise!(status == 0, "THAW was answered {status:#x}");
    Ok(asked.elapsed())
}

scenario! {
    /// Row 21: journald stopped, and a memory hog.
    row: "21", "in a hold: nobody reads the log, caches dropped, 24 MB of memory left, a process that takes all of it",
    c_daemon_gap: None,
    fn a_machine_in_trouble_is_thawed_in_the_usual_time(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        // A pipe that is full already, and a reader that does not read.
        let script = format!("(head -c 65536 /dev/zero; exec {}) 2>&1 | sleep 1000", bed.agent.command().join(" "));
        guest.spawn(bed.agent.name(), &["/bin/sh", "-c", &script])?;
        bed.agent.wait_registered(&mut guest)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        succeeds(&mut guest, Operation::FREEZE)?;
        let usual = thaw(&mut guest)?;
        bed.measured("usual thaw", usual);
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        guest.sh("echo 3 > /proc/sys/vm/drop_caches; mkdir /mnt/fill; mount -t tmpfs -o size=100% none /mnt/fill
            free=$(awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
            dd if=/dev/zero of=/mnt/fill/file bs=1M count=$((free - 24)) 2> /dev/null")?;
        let short = thaw(&mut guest)?;
        bed.measured("thaw when memory is short", short);
        writers_go_on(&guest, &points)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        // Takes memory until the OOM killer ends it.
        guest.spawn("hog", &["/bin/tail", "/dev/zero"])?;
        let killed = poll_until(SOON * 4, || Ok::<_, Failure>((!guest.job("hog")?.running).then_some(())))?;
        let worst = thaw(&mut guest)?;
        bed.measured("thaw after the OOM killer", worst);
        promise!(killed.is_some(), "the memory hog lives on");
        guest.sh("rm /mnt/fill/file")?;
        writers_go_on(&guest, &points)?;
        promise!(bed.agent.state(&guest)?.running, "the agent has ended");
        checkpoint(&mut guest)?;
        let limit = usual * 4 + Duration::from_millis(500);
        promise!(short < limit && worst < limit, "usually {usual:?}, short of memory {short:?}, after the OOM killer {worst:?}");
        Ok(format!("usually {} ms, short of memory {} ms, after the OOM killer {} ms", usual.as_millis(), short.as_millis(), worst.as_millis()))
    }
}

scenario! {
    /// Row 21: the proof.
    row: "21", "strace of the agent and all its threads and children through three checkpoints",
    c_daemon_gap: Some("opens every mount point while others are frozen"),
    fn nothing_is_opened_executed_or_logged_in_a_hold(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        let traced = [strace::COMMAND.join(" "), bed.agent.command().join(" ")].join(" ");
        guest.spawn(bed.agent.name(), &["/bin/sh", "-c", &format!("PATH=$PATH:/sbin; exec {traced}")])?;
        bed.agent.wait_registered(&mut guest)?;
        for _ in 0..3 {
            checkpoint(&mut guest)?;
        }
        writable_within(&guest, &points, Instant::now(), THAW_LIMIT)?;
        let trace = guest.read(strace::FILE)?;
        let (holds, calls) = strace::quiet_holds(&trace)?;
        promise!(holds == 3, "{holds} of 3 holds in the trace");
        Ok(format!("{calls} lines of trace in {holds} holds: no open, no exec, no look-up, no log record"))
    }
}

scenario! {
    /// Row 21: such as fapolicyd or a virus scanner, itself frozen.
    row: "21", "a fanotify permission listener on every file system that stops answering in a hold",
    c_daemon_gap: Some("opens the mount points to thaw them, and waits for ever"),
    fn a_silent_permission_listener_does_not_hold_up_a_thaw(bed) {
        let mut guest = bed.boot(&TWO.map(Disk::new))?;
        let points = mount_all(&guest, &TWO)?;
        plug_in(&mut guest)?;
        bed.agent.start(&mut guest)?;
        for point in &points {
            guest.start_writer(point)?;
        }
        succeeds(&mut guest, Operation::FREEZE)?;
        writers_sleep(&guest, &points)?;
        // The writers keep their state below /run, which is left out.
        let listener = guest.spawn("listener", &["/sbin/hv-testguest", "listener", "/", "/mnt/ext4", "/mnt/xfs"])?;
        let marked = poll_until(SOON, || {
            let marks = guest.read(&format!("/proc/{listener}/fdinfo/3")).unwrap_or_default();
            Ok::<_, Failure>((marks.matches("fanotify sdev:").count() == 3).then_some(()))
        })?;
        promise!(marked.is_some(), "the listener does not listen: {}", guest.job("listener")?.output);
        let took = thaw(&mut guest)?;
        bed.measured("thaw", took);
        writers_go_on(&guest, &points)?;
        guest.signal("listener", Signal::SIGKILL)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        Ok(format!("thawed in {} ms", took.as_millis()))
    }
}
