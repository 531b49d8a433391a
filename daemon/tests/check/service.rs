//! The way to the host, and who serves it.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use hv_vssd::check::{Cause, Outcome, Report};
use hv_vssd::status::{self, Counters, Service, Status, Work};

use super::{Guest, sentence};

#[test]
fn the_first_missing_part_of_the_way_to_the_host_is_named_and_no_other() {
    let mut guest = Guest::healthy();
    guest
        .remove("proc/locks")
        .remove("dev/vmbus/hv_vss")
        .remove("proc/100");
    assert_eq!(guest.errors(), ["no-device-node"]);
    guest.remove("sys/class/misc/vmbus!hv_vss");
    assert_eq!(guest.errors(), ["host-too-old"]);
    guest.remove("sys/module/hv_utils");
    assert_eq!(guest.errors(), ["driver-not-loaded"]);
    guest.write(
        "sys/bus/vmbus/devices/vss/class_id",
        "{57164f39-9115-4e78-ab55-382f3bd5422d}\n",
    );
    assert_eq!(guest.errors(), ["service-off"]);
    guest.remove("sys/bus/vmbus");
    assert_eq!(guest.errors(), ["no-vmbus"]);
    guest.places.hypervisor = Some(Some("KVMKVMKVM".to_owned()));
    let report = guest.report();
    assert_eq!(guest.errors(), ["not-hyper-v"]);
    assert!(sentence(&report, Cause::NotHyperV).1.contains("KVMKVMKVM"));
    assert_eq!(report.outcome, Outcome::Fallback);
    // Where CPUID tells nothing the firmware does.
    guest.places.hypervisor = Some(None);
    guest.write("sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n");
    guest.write("sys/class/dmi/id/product_name", "Surface\n");
    assert_eq!(guest.errors(), ["not-hyper-v"]);
    guest.write("sys/class/dmi/id/product_name", "Virtual Machine\n");
    assert_eq!(guest.errors(), ["no-vmbus"]);
}

#[test]
fn another_agent_is_named() {
    let guest = Guest::healthy();
    guest.remove("proc/locks").remove("proc/100");
    // The kernel keeps 15 characters; this one has 13.
    guest.process(7, "hv_vss_daemon", 'S', 1);
    guest.opens(7, "/dev/vmbus/hv_vss");
    let report = guest.report();
    assert_eq!(report.outcome, Outcome::OtherAgent);
    let text = sentence(&report, Cause::DeviceHeld).1;
    assert!(text.contains("Process 7 is hv_vss_daemon"), "{text}");
    guest.process(8, "odd\x1b", 'S', 1);
    guest.opens(8, "/dev/vmbus/hv_vss");
    let text = guest.report().render();
    assert!(text.contains("PID 8 (odd\\u{1b}) holds"), "{text}");
}

#[test]
fn an_agent_that_is_not_ready_is_told_from_one_that_does_not_run() {
    let guest = Guest::healthy();
    guest.remove("proc/100/fd/7");
    assert_eq!(guest.errors(), ["agent-not-ready"]);
    guest.process(100, "hv-vssd", 'T', 1);
    let report = guest.report();
    let text = sentence(&report, Cause::AgentNotReady).1;
    assert!(text.contains("stopped by a signal"), "{text}");
    // Its number is in the file, but the kernel knows of no lock.
    guest.write(
        "proc/locks",
        "1: POSIX  ADVISORY  WRITE 100 00:18:3 0 EOF\n2: FLOCK  ADVISORY  WRITE 99 00:18:3 0 EOF\n",
    );
    assert_eq!(guest.errors(), ["agent-not-running"]);
}

/// The finding of an agent that does not run although it lives, and its remedy.
fn halted(guest: &Guest) -> (String, String) {
    assert_eq!(guest.errors(), ["agent-not-ready"]);
    let report = guest.report();
    let found = report
        .findings
        .iter()
        .find(|finding| finding.code == Cause::AgentNotReady)
        .unwrap();
    (found.finding.clone(), found.remedy.clone())
}

#[test]
fn an_agent_that_sigstop_or_a_frozen_cgroup_keeps_from_running_is_told_with_the_remedy() {
    let guest = Guest::healthy();
    guest.process(100, "hv-vssd", 'T', 1);
    let (text, remedy) = halted(&guest);
    assert!(
        text.contains("process 100, is stopped by a signal"),
        "{text}"
    );
    assert!(remedy.ends_with(": kill -CONT 100"), "{remedy}");
    guest.process(100, "hv-vssd", 'S', 1);

    let unit = "system.slice/hv-vssd.service";
    let table = |version: &str, path: &str| {
        guest.write(
            "proc/100/cgroup",
            &format!("1:name=systemd:/x\n{version}:/{path}\n"),
        );
    };
    let group = |path: &str, file: &str, text: &str| {
        guest.write(&format!("sys/fs/cgroup/{path}/{file}"), text);
    };
    // The service's own, of version 2.
    table("0:", unit);
    group(unit, "cgroup.freeze", "0\n");
    group(unit, "cgroup.events", "populated 1\nfrozen 0\n");
    assert_eq!(guest.errors(), [""; 0]);
    group(unit, "cgroup.freeze", "1\n");
    group(unit, "cgroup.events", "populated 1\nfrozen 1\n");
    let (text, remedy) = halted(&guest);
    let told =
        "the control group of hv-vssd is frozen (process 100, /system.slice/hv-vssd.service)";
    assert!(text.contains(told), "{text}");
    assert!(
        remedy.ends_with(": systemctl thaw hv-vssd.service"),
        "{remedy}"
    );
    // One above it.
    group(unit, "cgroup.freeze", "0\n");
    group("system.slice", "cgroup.freeze", "1\n");
    let (text, remedy) = halted(&guest);
    assert!(text.contains("(process 100, /system.slice)"), "{text}");
    assert!(
        remedy.ends_with(": systemctl thaw system.slice"),
        "{remedy}"
    );
    // One that is out of sight.
    group("system.slice", "cgroup.freeze", "0\n");
    assert!(
        halted(&guest)
            .1
            .ends_with(": systemctl thaw hv-vssd.service")
    );
    guest.remove("sys/fs/cgroup");
    assert_eq!(guest.errors(), [""; 0]);

    // No unit, and a path as of another control group namespace.
    table("0:", "../hand/made");
    group("unified/hand", "cgroup.freeze", "1\n");
    let remedy = halted(&guest).1;
    let command = ": echo 0 >/sys/fs/cgroup/unified/hand/cgroup.freeze";
    assert!(remedy.ends_with(command), "{remedy}");

    // Version 1, where the freezer may share its hierarchy.
    table("7:cpuset,freezer", "jobs/backup");
    group("freezer/jobs/backup", "freezer.state", "FROZEN\n");
    group("freezer/jobs/backup", "freezer.self_freezing", "0\n");
    group("freezer/jobs", "freezer.self_freezing", "1\n");
    let remedy = halted(&guest).1;
    let command = ": echo THAWED >/sys/fs/cgroup/freezer/jobs/freezer.state";
    assert!(remedy.ends_with(command), "{remedy}");
}

/// What is found while an agent answers one question with this line.
fn answering(guest: &Guest, line: &str) -> Report {
    let socket = guest.path("run/hv-vssd/control");
    let _ = fs::remove_file(&socket);
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            let mut question = String::new();
            BufReader::new(&stream).read_line(&mut question).unwrap();
            assert_eq!(question, "{\"command\":\"check\"}\n");
            (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
        });
        guest.report()
    })
}

fn status(registered: bool, guardian: bool, work: Work) -> String {
    let status = Status {
        version: "1".to_owned(),
        pid: 100,
        started: String::new(),
        started_unix: 0.0,
        service: Service {
            registered,
            ..Service::default()
        },
        guardian: status::Guardian {
            pid: Some(101),
            alive: guardian,
        },
        work,
        hold: None,
        counters: Counters::default(),
        checkpoints: Vec::new(),
    };
    serde_json::json!({ "ok": status }).to_string()
}

#[test]
fn what_the_agent_says_goes_before_what_it_looks_like() {
    let guest = Guest::healthy();
    let codes = |line: &str| -> Vec<&'static str> {
        let report = answering(&guest, line);
        let told = report.findings.iter().map(|finding| finding.code.code());
        told.filter(|code| !["cannot-freeze", "no-hooks"].contains(code))
            .collect()
    };
    assert_eq!(codes(&status(true, true, Work::Idle)), [""; 0]);
    assert_eq!(codes(&status(false, true, Work::Idle)), ["agent-not-ready"]);
    assert_eq!(
        codes(&status(true, false, Work::Idle)),
        ["guardian-missing"]
    );
    assert_eq!(codes(&status(true, true, Work::Held)), ["busy"]);
    assert_eq!(codes("{\"error\":\"no.\"}"), ["agent-not-ready"]);
    let report = answering(&guest, "nonsense");
    let text = sentence(&report, Cause::AgentNotReady).1;
    assert!(
        text.contains("process 100, cannot be asked") && text.contains("another version"),
        "{text}"
    );
}

#[test]
fn a_guardian_that_ended_is_missing() {
    let guest = Guest::healthy();
    guest.process(101, "hv-vssd", 'Z', 100);
    assert_eq!(guest.errors(), ["guardian-missing"]);
    // A hook is a child of the agent's as well.
    guest.process(102, "10-app", 'S', 100);
    assert_eq!(guest.errors(), ["guardian-missing"]);
}
