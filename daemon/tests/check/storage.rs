//! The file systems: left frozen, waited for, broken, elsewhere, or out of sight.

use std::fs;
use std::os::unix::fs::symlink;

use hv_vssd::check::{Cause, Facts, Outcome, Report, Severity};
use hv_vssd::filesystems::Plan;

use super::{Guest, sentence};

#[test]
fn what_an_agent_left_frozen_is_told() {
    let guest = Guest::healthy();
    guest.write(
        "run/hv-vssd/ledger",
        "hv-vssd ledger 1\nF 8:1 ext4 /dev/sda1 /\nT 8:3 ext4 /dev/sda3 /srv\n",
    );
    let report = guest.report();
    assert_eq!(
        report.outcome,
        Outcome::FileSystemConsistent,
        "the agent is at work"
    );
    assert_eq!(sentence(&report, Cause::Busy).0, Severity::Note);
    guest.remove("proc/locks").remove("proc/100");
    let report = guest.report();
    assert_eq!(
        sentence(&report, Cause::LeftOver),
        (
            Severity::Error,
            "An agent that died has left frozen: /.".to_owned()
        )
    );
}

#[test]
fn whoever_waits_for_a_thaw_tells_of_a_freeze() {
    let guest = Guest::healthy();
    guest.process(50, "postgres", 'S', 1);
    let thread = "50 (writer) D 1 0 0\n";
    guest.write("proc/50/task/51/stat", thread);
    // Without a stack, as for a kernel built without them.
    guest.write("proc/50/task/51/wchan", "percpu_rwsem_wait");
    let text = sentence(&guest.report(), Cause::FrozenAlready).1;
    assert!(text.contains("PID 50 (postgres)"), "{text}");
    guest.write(
        "proc/50/task/51/stack",
        "[<0>] percpu_rwsem_wait+0x1\n[<0>] cgroup_attach_lock+0x1\n",
    );
    assert_eq!(guest.errors(), [""; 0], "it waits for a control group");
    guest.write(
        "proc/50/task/51/stack",
        "[<0>] percpu_rwsem_wait+0x1\n[<0>] vfs_write+0x1\n",
    );
    assert_eq!(guest.errors(), ["frozen-already"]);
    // Our own hold is no surprise.
    guest.write(
        "run/hv-vssd/ledger",
        "hv-vssd ledger 1\nF 8:1 ext4 /dev/sda1 /\n",
    );
    assert_eq!(guest.errors(), [""; 0]);
}

#[test]
fn disks_that_do_not_serve_are_told() {
    let guest = Guest::healthy();
    guest.write(
        "proc/self/mountinfo",
        "1 0 253:0 / / rw - ext4 /dev/mapper/root rw\n\
         2 1 8:2 / /turned rw,relatime - ext4 /dev/sda2 ro,errors=remount-ro\n\
         3 1 8:3 / /asked ro,relatime - ext4 /dev/sda3 ro\n\
         4 1 8:4 / /says rw - ext4 /dev/sda4 rw,emergency_ro\n\
         5 1 7:0 / /image rw - squashfs /dev/loop0 ro\n\
         6 1 8:6 / /bind ro - ext4 /dev/sda6 rw\n\
         7 1 8:7 / /acts rw - ext4 /dev/sda7 rw\n\
         8 1 8:8 / /before rw - ext4 /dev/sda8 rw\n",
    );
    guest.write("proc/stat", "cpu 1\nbtime 1000\n");
    for (name, time) in [("sda7", 1001), ("sda8", 999)] {
        guest.write(
            &format!("proc/fs/ext4/{name}/options"),
            "rw\nerrors=remount-ro\n",
        );
        guest.write(&format!("sys/fs/ext4/{name}/errors_count"), "1\n");
        guest.write(
            &format!("sys/fs/ext4/{name}/last_error_time"),
            &format!("{time}\n"),
        );
    }
    for (dev, name) in [
        ("253:0", "dm-0"),
        ("8:2", "sda2"),
        ("8:4", "sda4"),
        ("8:7", "sda7"),
        ("8:8", "sda8"),
    ] {
        guest.write(&format!("sys/devices/{name}/dev"), &format!("{dev}\n"));
        fs::create_dir_all(guest.path("sys/dev/block")).unwrap();
        symlink(
            format!("../../devices/{name}"),
            guest.path(&format!("sys/dev/block/{dev}")),
        )
        .unwrap();
    }
    guest.write("sys/block/dm-0/dm/suspended", "1\n");
    guest.write("sys/block/dm-0/dm/name", "root\n");
    guest.write("sys/fs/ext4/sda2/errors_count", "3\n");
    let report = guest.report();
    let (severity, text) = sentence(&report, Cause::DeviceSuspended);
    assert_eq!(severity, Severity::Error);
    assert!(text.contains("/ is on root, which is suspended"), "{text}");
    let broken: Vec<(Severity, &str)> = report
        .findings
        .iter()
        .filter(|finding| finding.code == Cause::ReadOnlyAfterError)
        .map(|finding| {
            (
                finding.severity,
                finding.finding.split_whitespace().next().unwrap(),
            )
        })
        .collect();
    let expected = [(Severity::Warning, "/acts"), (Severity::Warning, "/turned")];
    assert_eq!(broken, expected);
    let (severity, text) = sentence(&report, Cause::TakesNoWrites);
    assert_eq!(severity, Severity::Warning, "{text}");
    assert!(text.contains("/says (ext4)"), "{text}");
    assert!(
        report.render().contains("after 3 errors"),
        "{}",
        report.render()
    );
}

#[test]
fn an_lvm_snapshot_within_a_hold_is_warned_of_where_the_kernel_loses_count() {
    let guest = Guest::healthy();
    let found = || -> Option<String> {
        let report = guest.report();
        assert_eq!(report.outcome, Outcome::FileSystemConsistent);
        let mut findings = report.findings.into_iter();
        let found = findings.find(|finding| finding.code == Cause::SnapshotInHold);
        found.map(|finding| {
            assert_eq!(finding.severity, Severity::Note);
            finding.finding
        })
    };
    let runs = |release: &str| guest.write("proc/sys/kernel/osrelease", release);
    runs("6.12.48+deb13-cloud-amd64\n");
    assert_eq!(found(), None, "nothing is on device mapper");
    guest.write(
        "proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 253:0 / /srv rw - xfs /dev/mapper/vg-srv rw\n",
    );
    guest.write("sys/devices/dm-0/dev", "253:0\n");
    fs::create_dir_all(guest.path("sys/dev/block")).unwrap();
    symlink("../../devices/dm-0", guest.path("sys/dev/block/253:0")).unwrap();
    let text = found().unwrap();
    assert!(text.ends_with("On device mapper are: /srv."), "{text}");
    for (release, is_defective) in [
        ("5.10.0-32-amd64", false),
        ("6.7.12\n", false),
        ("6.8.0-45-generic\n", true),
        ("6.18-rc1\n", true),
        ("7.0.0\n", true),
        ("7.2.9\n", true),
        ("7.3.0\n", false),
        ("10.1\n", false),
        ("odd\n", false),
    ] {
        runs(release);
        assert_eq!(found().is_some(), is_defective, "{release}");
    }
}

#[test]
fn disks_from_elsewhere_are_told() {
    let guest = Guest::healthy();
    guest.write(
        "proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:16 / /data rw - xfs /dev/sdb rw\n",
    );
    let disk = "sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb";
    guest.write(&format!("{disk}/dev"), "8:16\n");
    fs::create_dir_all(guest.path("sys/dev/block")).unwrap();
    symlink(
        format!("../../{}", disk.strip_prefix("sys/").unwrap()),
        guest.path("sys/dev/block/8:16"),
    )
    .unwrap();
    let (severity, text) = sentence(&guest.report(), Cause::NotInImage);
    assert_eq!(severity, Severity::Warning);
    assert!(text.contains("/data") && text.contains("iSCSI"), "{text}");
}

#[test]
fn a_table_that_cannot_be_read_is_an_error() {
    let guest = Guest::healthy();
    guest.write("proc/self/mountinfo", "nonsense\n");
    let report = guest.report();
    let (severity, text) = sentence(&report, Cause::PlanFails);
    assert_eq!(severity, Severity::Error);
    assert!(text.contains("line 1 of the mount table"), "{text}");
}

#[test]
fn what_cannot_be_seen_is_said() {
    let plan = Plan {
        unread_processes: 2,
        ..Plan::default()
    };
    let facts = Facts {
        plan: Ok(plan),
        ..Facts::default()
    };
    let (severity, text) = sentence(&Report::of(&facts), Cause::UnseenMounts);
    assert_eq!(severity, Severity::Warning);
    assert!(text.contains("2 processes"), "{text}");
}

/// A process with one thread, which sleeps in splice(2) from a pipe to a file on `/`.
fn sleeps_in_splice(guest: &Guest, pid: u32, name: &str, state: char) {
    let task = format!("proc/{pid}/task/{pid}");
    guest.process(pid, name, state, 1);
    guest.write(&format!("proc/{pid}/comm"), &format!("{name}\n"));
    guest.write(
        &format!("{task}/syscall"),
        &format!(
            "{} 0x0 0x0 0x4 0x0 0x7ffff000 0x0 0x7ffd12345678 0x7f3b12345678\n",
            libc::SYS_splice
        ),
    );
    guest.write(
        &format!("{task}/status"),
        &format!("State:\t{state} (sleeping)\nvoluntary_ctxt_switches:\t7\n"),
    );
    guest.write(&format!("{task}/wchan"), "pipe_wait_readable");
    guest.write(
        &format!("{task}/fdinfo/4"),
        "pos:\t0\nflags:\t0100001\nmnt_id:\t1\nino:\t9\n",
    );
    guest.write("srv/out", "x");
    fs::create_dir_all(guest.path(&format!("{task}/fd"))).unwrap();
    let _ = symlink(guest.path("srv/out"), guest.path(&format!("{task}/fd/4")));
}

#[test]
fn sleeping_writers_are_named_ahead_and_a_warning_only_where_they_are_not_interrupted() {
    let mut guest = Guest::healthy();
    let found = |guest: &Guest| {
        let report = guest.report();
        assert_eq!(report.outcome, Outcome::FileSystemConsistent);
        let findings = report.findings.into_iter();
        let of = findings.filter(|finding| finding.code == Cause::SleepingWriter);
        of.map(|finding| (finding.severity, finding.finding))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&guest), []);
    sleeps_in_splice(&guest, 300, "pv", 'S');
    let all = found(&guest);
    let [(Severity::Note, text)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert!(
        text.contains("process 300 (pv) sleeps in splice(2) to "),
        "{text}"
    );
    assert!(text.contains("/srv/out"), "{text}");
    // One that is stopped is out of its system call.
    sleeps_in_splice(&guest, 302, "stopped", 'T');
    assert_eq!(found(&guest), all);
    // One that no interruption reaches, and one that is to be left alone.
    sleeps_in_splice(&guest, 301, "stuck", 'D');
    guest.config = "exclude_processes = [\"pv\"]\n".to_owned();
    let all = found(&guest);
    let [(Severity::Warning, text)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert!(text.contains("process 300 (pv)"), "{text}");
    assert!(
        text.contains("process 301 (stuck) sleeps uninterruptibly in splice(2)"),
        "{text}"
    );
}

#[test]
fn a_kernel_that_panics_before_the_limits_have_passed_is_warned_of() {
    let mut guest = Guest::healthy();
    let found = |guest: &Guest| -> Option<String> {
        let report = guest.report();
        assert_eq!(report.outcome, Outcome::FileSystemConsistent);
        let mut findings = report.findings.into_iter();
        let found = findings.find(|finding| finding.code == Cause::HungTaskPanic)?;
        assert_eq!(found.severity, Severity::Warning);
        Some(found.finding)
    };
    guest.write("proc/sys/kernel/hung_task_timeout_secs", "120\n");
    guest.write("proc/sys/kernel/hung_task_panic", "0\n");
    assert_eq!(found(&guest), None);
    guest.write("proc/sys/kernel/hung_task_panic", "1\n");
    let text = found(&guest).unwrap();
    assert!(
        text.contains("waits for 120 s")
            && text.ends_with("end after 100 s, before their own limits."),
        "{text}"
    );
    guest.config = "limits.ignore_hung_task_panic = true".to_owned();
    assert!(found(&guest).unwrap().contains("bring the machine down"));
    for (config, timeout) in [
        ("limits.freeze = 40\nlimits.hold = 60", "120"),
        ("", "200"),
        ("", "0"),
    ] {
        guest.config = config.to_owned();
        guest.write("proc/sys/kernel/hung_task_timeout_secs", timeout);
        assert_eq!(found(&guest), None, "{config} {timeout}");
    }
}

#[test]
fn an_operation_that_a_freeze_would_wait_for_keeps_the_host_from_a_checkpoint() {
    let mut facts = Facts::default();
    facts.disks.at_work = vec![("/srv (btrfs on 0:42)".to_owned(), "balance".to_owned())];
    let report = Report::of(&facts);
    let mut findings = report.findings.iter();
    let found = findings
        .find(|finding| finding.code == Cause::OperationAtWork)
        .unwrap();
    assert_eq!(found.severity, Severity::Error);
    assert!(
        found
            .finding
            .starts_with("/srv (btrfs on 0:42) is busy with an operation of its own (balance)")
    );
    assert!(found.remedy.contains("btrfs balance pause"));
}
