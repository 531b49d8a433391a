//! What `check` makes of made-up machines: a tree of /proc, /sys, /dev and /run in, findings out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use hv_vssd::check::{Cause, Facts, Outcome, Places, Report, Severity, gather};
use hv_vssd::config::Config;
use hv_vssd::filesystems::{Plan, Policy};
use hv_vssd::hooks::discover;
use hv_vssd::status::{self, Counters, Service, Status, Work};

const VSS: &str = "{35fa2e29-ea23-4236-96ae-3a6ebacba440}\n";

const MOUNTS: &str =
    "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /boot/efi rw - vfat /dev/sda2 rw\n";

/// A guest in a directory.
struct Guest {
    dir: tempfile::TempDir,
    places: Places,
    config: String,
}

impl Guest {
    /// One of Hyper-V's in which hv-vssd serves as process 100, with guardian 101.
    fn healthy() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let places = Places {
            root: root.clone(),
            hooks: discover::Places {
                directories: vec![root.join("hooks.d")],
                owner: nix::unistd::geteuid().as_raw(),
            },
            hypervisor: Some(Some("Microsoft Hv".to_owned())),
        };
        let config = String::new();
        let guest = Self {
            dir,
            places,
            config,
        };
        guest.write("proc/self/mountinfo", MOUNTS);
        guest.write("proc/filesystems", "nodev\tproc\n\text4\n");
        guest.write(
            "proc/locks",
            "1: FLOCK  ADVISORY  WRITE 100 00:18:3 0 EOF\n",
        );
        guest.write("run/hv-vssd/lock", "100");
        guest.write("sys/bus/vmbus/devices/vss/class_id", VSS);
        guest.write("sys/module/hv_utils/version", "3.1\n");
        guest.write("sys/class/misc/vmbus!hv_vss/dev", "10:60\n");
        guest.write("dev/vmbus/hv_vss", "");
        guest.process(100, "hv-vssd", 'S', 1);
        guest.process(101, "hv-vssd", 'S', 100);
        guest.opens(100, "/dev/vmbus/hv_vss");
        guest
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) -> &Self {
        let path = self.path(path);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
        self
    }

    fn process(&self, pid: u32, name: &str, state: char, parent: u32) {
        let stat = format!("{pid} ({name}) {state} {parent} 0 0\n");
        self.write(&format!("proc/{pid}/stat"), &stat);
        self.write(&format!("proc/{pid}/comm"), &format!("{name}\n"));
        self.write(&format!("proc/{pid}/task/{pid}/stat"), &stat);
        fs::create_dir_all(self.path(&format!("proc/{pid}/fd"))).unwrap();
        let exe = self.path(&format!("proc/{pid}/exe"));
        let _ = fs::remove_file(&exe);
        symlink(format!("/usr/sbin/{name}"), exe).unwrap();
    }

    fn opens(&self, pid: u32, what: &str) {
        symlink(what, self.path(&format!("proc/{pid}/fd/7"))).unwrap();
    }

    fn hook(&self, name: &str, mode: u32) {
        let path = format!("hooks.d/{name}");
        self.write(&path, "#!/bin/sh\n");
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
        };
        set(&self.path(&path), mode);
        set(&self.path("hooks.d"), 0o755);
    }

    fn report(&self) -> Report {
        let config = Config::parse(&self.config, Path::new("/etc/hv-vssd/config.toml"));
        let facts = gather(&self.places, config.as_ref(), &Policy::default());
        Report::of(&facts)
    }

    /// The errors alone, as words.
    fn errors(&self) -> Vec<&'static str> {
        let report = self.report();
        let errors = report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error);
        errors.map(|finding| finding.code.code()).collect()
    }
}

fn sentence(report: &Report, cause: Cause) -> (Severity, String) {
    let found = report.findings.iter().find(|finding| finding.code == cause);
    let found = found.unwrap_or_else(|| panic!("{} in {report:?}", cause.code()));
    (found.severity, found.finding.clone())
}

#[test]
fn a_healthy_guest_gets_a_production_checkpoint() {
    let guest = Guest::healthy();
    let report = guest.report();
    assert_eq!(report.outcome, Outcome::FileSystemConsistent);
    let (severity, text) = sentence(&report, Cause::CannotFreeze);
    assert_eq!(severity, Severity::Warning);
    assert!(text.contains("/boot/efi (vfat)"), "{text}");
    guest.hook("10-app", 0o755);
    assert_eq!(guest.report().outcome, Outcome::ApplicationConsistent);
}

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
    let expected = [
        (Severity::Error, "/acts"),
        (Severity::Error, "/says"),
        (Severity::Warning, "/turned"),
    ];
    assert_eq!(broken, expected);
    assert!(
        report.render().contains("after 3 errors"),
        "{}",
        report.render()
    );
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
fn strictness_and_hooks_follow_the_configuration() {
    let mut guest = Guest::healthy();
    guest.config = "strictness = \"strict\"".to_owned();
    assert_eq!(guest.errors(), ["cannot-freeze"]);
    guest.config = "strictness = \"flush-only\"".to_owned();
    assert_eq!(guest.report().outcome, Outcome::FlushedOnly);
    guest.config = "strictness = \"sloppy\"".to_owned();
    assert_eq!(guest.errors(), ["configuration"]);
    guest.config = String::new();
    guest.hook("10-app", 0o777);
    assert_eq!(guest.errors(), ["hook-refused"]);
    let refused = guest.report();
    let refused = refused
        .findings
        .iter()
        .find(|finding| finding.code == Cause::HookRefused)
        .unwrap();
    assert!(refused.remedy.starts_with("chmod go-w "), "{refused:?}");
    guest.config = "[hooks.by_name.\"10-app\"]\non_failure = \"continue\"".to_owned();
    assert_eq!(guest.errors(), [""; 0]);
    guest.hook("10-app", 0o755);
    guest.config = "[hooks]\nenabled = false".to_owned();
    let report = guest.report();
    assert_eq!(report.outcome, Outcome::FileSystemConsistent);
    assert_eq!(sentence(&report, Cause::HooksDisabled).0, Severity::Warning);
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
fn an_empty_machine_is_no_reason_to_panic() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places {
        root: dir.path().to_owned(),
        hypervisor: Some(None),
        ..Places::default()
    };
    let report = Report::of(&gather(&places, Ok(&Config::default()), &Policy::default()));
    assert_eq!(report.outcome, Outcome::Fallback);
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

#[test]
fn the_text_fits_a_terminal_and_json_has_its_shape() {
    let guest = Guest::healthy();
    guest.remove("proc/locks").remove("proc/100");
    let report = guest.report();
    let text = report.render();
    assert!(
        text.lines().all(|line| line.chars().count() <= 96),
        "{text}"
    );
    assert!(
        text.starts_with("The host gets no production checkpoint"),
        "{text}"
    );
    assert!(
        text.contains(
            "\n  error    hv-vssd does not run. [agent-not-running]\n           → systemctl"
        ),
        "{text}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["outcome"], "fallback");
    assert_eq!(json["explanation"], Outcome::Fallback.explanation());
    assert_eq!(json["findings"][0]["code"], "agent-not-running");
    assert_eq!(json["findings"][0]["severity"], "error");
    let mut keys: Vec<&String> = json["findings"][0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["code", "finding", "remedy", "severity"]);
}

/// docs/check.md has each finding once, and no other.
#[test]
fn the_docs_name_every_finding() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/check.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, findings) = docs.split_once("\n## Findings\n").unwrap();
    let documented: Vec<&str> = findings
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code)
        .collect();
    let known: Vec<&str> = Cause::ALL.iter().map(|cause| cause.code()).collect();
    assert_eq!(documented, known);
}
