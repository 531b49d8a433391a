//! What is made of a made-up /proc.

use std::os::unix::fs::symlink;

use super::*;

const SPLICE: &str = "0x0 0x0 0x4 0x0 0x10000 0x0 0x7ffe25a05648 0x7f042bf222ad";

const OURS: &str = "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
     21 20 8:2 / /mnt/a rw - ext4 /dev/sda2 rw\n\
     22 20 0:50 / /srv/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/mnt/a/up,workdir=/mnt/a/work\n\
     23 20 0:51 / /net rw - nfs server:/ rw\n";

const DEV: DeviceNumber = DeviceNumber::new(8, 2);

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        machine.write("self/mountinfo", OURS);
        machine
    }

    fn proc(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.proc().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A thread that is in `call` with descriptor 4 on mount `mount`.
    fn thread(&self, pid: u32, tid: u32, call: &str, mount: u64) {
        let task = format!("{pid}/task/{tid}");
        self.write(&format!("{pid}/comm"), "pv\n");
        self.write(&format!("{task}/syscall"), &format!("{call}\n"));
        self.status(pid, tid, "S (sleeping)", 3);
        self.write(&format!("{task}/wchan"), "pipe_wait_readable");
        let fdinfo = format!("pos:\t0\nflags:\t0100001\nmnt_id:\t{mount}\nino:\t12\n");
        self.write(&format!("{task}/fdinfo/4"), &fdinfo);
        // A file of this machine, which is looked at.
        self.write("file", "");
        self.opens(pid, tid, &self.proc().join("file"));
    }

    fn opens(&self, pid: u32, tid: u32, what: &Path) {
        let link = self.proc().join(format!("{pid}/task/{tid}/fd/4"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&link);
        symlink(what, link).unwrap();
    }

    fn status(&self, pid: u32, tid: u32, state: &str, sleeps: u64) {
        let text = format!(
            "Name:\tpv\nState:\t{state}\nTgid:\t{pid}\nvoluntary_ctxt_switches:\t{sleeps}\nnonvoluntary_ctxt_switches:\t9\n"
        );
        self.write(&format!("{pid}/task/{tid}/status"), &text);
    }

    fn gather(&self) -> Writers {
        self.gather_by(WriterRules::default())
    }

    fn gather_by(&self, rules: WriterRules) -> Writers {
        Writers::gather(&Search {
            proc: self.proc(),
            ..Search::of(&[DEV], rules)
        })
    }

    fn found(&self) -> Vec<(u32, Option<DeviceNumber>)> {
        let writers = self.gather();
        writers
            .iter()
            .map(|writer| (writer.tid, writer.device))
            .collect()
    }
}

fn call(number: libc::c_long, arguments: &str) -> String {
    format!("{number} {arguments}")
}

fn splice() -> String {
    call(libc::SYS_splice, SPLICE)
}

// Numbers that no process of this machine has.
const PID: u32 = 5_000_000;

#[test]
fn only_writers_of_the_wanted_superblock_are_found() {
    let machine = Machine::new();
    machine.thread(PID, PID, &splice(), 21);
    machine.thread(PID + 1, PID + 1, &splice(), 20);
    machine.thread(PID + 2, PID + 2, "running", 21);
    machine.thread(PID + 3, PID + 3, &call(libc::SYS_read, SPLICE), 21);
    machine.thread(PID + 4, PID + 4, &splice(), 23);
    assert_eq!(machine.found(), [(PID, Some(DEV))]);
}

#[test]
fn each_thread_of_a_process_is_looked_at() {
    let machine = Machine::new();
    machine.thread(PID, PID, "running", 21);
    machine.thread(PID, PID + 1, &splice(), 21);
    let writers = machine.gather();
    let named: Vec<String> = writers.of(DEV).map(ToString::to_string).collect();
    let file = machine.proc().join("file");
    let expected = format!(
        "thread 5000001 of process 5000000 (pv) sleeps in splice(2) to {}",
        file.display()
    );
    assert_eq!(named, [expected]);
}

#[test]
fn whoever_waits_for_a_thaw_or_has_left_the_call_is_no_writer() {
    let machine = Machine::new();
    for place in ["percpu_rwsem_wait", "__percpu_down_read", "do_freezer_trap"] {
        machine.thread(PID, PID, &splice(), 21);
        machine.write(&format!("{PID}/task/{PID}/wchan"), place);
        assert_eq!(machine.found(), [], "{place}");
    }
    machine.thread(PID, PID, &splice(), 21);
    machine.status(PID, PID, "R (running)", 3);
    assert_eq!(machine.found(), []);
}

#[test]
fn pipes_and_directories_on_a_disk_have_no_writers() {
    let machine = Machine::new();
    machine.thread(PID, PID, &splice(), 21);
    machine.opens(PID, PID, Path::new("/dev/null"));
    assert_eq!(machine.found(), []);
    machine.opens(PID, PID, machine.proc());
    assert_eq!(machine.found(), []);
}

#[test]
fn whoever_writes_to_an_overlay_writes_to_what_is_beneath() {
    let machine = Machine::new();
    machine.thread(PID, PID, &splice(), 22);
    assert_eq!(machine.found(), [(PID, Some(DEV))]);
}

#[test]
fn a_mount_of_another_namespace_is_looked_up_there() {
    let machine = Machine::new();
    machine.thread(PID, PID, &splice(), 71);
    machine.write(
        &format!("{PID}/task/{PID}/mountinfo"),
        "70 1 0:60 / / rw - tmpfs t rw\n71 70 8:2 /sub /data rw - ext4 /dev/sda2 rw\n72 70 8:2 cut",
    );
    let ns = machine.proc().join(format!("{PID}/task/{PID}/ns"));
    fs::create_dir(&ns).unwrap();
    symlink("mnt:[4026532000]", ns.join("mnt")).unwrap();
    assert_eq!(machine.found(), [(PID, Some(DEV))]);
}

#[test]
fn a_file_of_no_known_mount_may_be_of_any_superblock_and_a_pipe_is_of_none() {
    let machine = Machine::new();
    machine.thread(PID, PID, &splice(), 99);
    assert_eq!(machine.found(), [(PID, None)]);
    machine.opens(PID, PID, Path::new("pipe:[4711]"));
    assert_eq!(machine.found(), []);
}

#[test]
fn an_open_that_truncates_is_a_writer_while_it_waits_for_a_lease() {
    let machine = Machine::new();
    let truncating = format!(
        "0xffffff9c 0x0 {:#x} 0x0 0x0 0x0 0x7ffe25a05648 0x7f042bf222ad",
        libc::O_WRONLY | libc::O_TRUNC
    );
    machine.thread(PID, PID, &call(libc::SYS_openat, &truncating), 21);
    // A pipe with a name that nobody reads from: a shell opens it like that.
    machine.write(&format!("{PID}/task/{PID}/wchan"), "wait_for_partner");
    assert_eq!(machine.found(), []);
    machine.write(&format!("{PID}/task/{PID}/wchan"), "__break_lease");
    let writers = machine.gather();
    let named: Vec<String> = writers.unplaced().map(ToString::to_string).collect();
    assert_eq!(named, ["process 5000000 (pv) sleeps in openat(2)"]);
}

#[test]
fn states_are_told_apart_and_a_stirring_thread_is_dropped() {
    let machine = Machine::new();
    for (state, text) in [
        ("D (disk sleep)", " sleeps uninterruptibly in "),
        ("T (stopped)", " is stopped in "),
        ("t (tracing stop)", " is stopped in "),
    ] {
        machine.thread(PID, PID, &splice(), 21);
        machine.status(PID, PID, state, 3);
        let writers = machine.gather();
        let writer = writers.of(DEV).next().unwrap();
        assert!(writer.to_string().contains(text), "{writer}");
        assert!(!writer.can_be_interrupted(&WriterRules::default()));
    }
    let mut writers = machine.gather();
    writers.retain_asleep();
    assert_eq!(writers.iter().count(), 1);
    machine.status(PID, PID, "S (sleeping)", 4);
    writers.retain_asleep();
    assert_eq!(writers.iter().count(), 0);
}

#[test]
fn processes_are_excluded_by_name_and_by_executable() {
    let machine = Machine::new();
    machine.thread(PID, PID, &splice(), 21);
    symlink(
        "/usr/bin/pv (deleted)",
        machine.proc().join(format!("{PID}/exe")),
    )
    .unwrap();
    for (excluded, is_excluded) in [
        ("pv", true),
        ("/usr/bin/pv", true),
        ("p", false),
        ("/usr/bin/p", false),
    ] {
        let writers = machine.gather_by(WriterRules {
            interrupt: true,
            excluded: vec![excluded.to_owned()],
        });
        let writer = writers.of(DEV).next().unwrap();
        assert_eq!(writer.is_excluded, is_excluded, "{excluded}");
    }
}

#[test]
fn freezers_are_found_with_their_superblock() {
    let machine = Machine::new();
    for (tid, command) in [
        (PID, "0xc0045877"),
        (PID + 1, "0xc0045878"),
        (PID + 2, "0x5401"),
    ] {
        let arguments = format!("0x4 {command} 0x0 0x0 0x0 0x0 0x7ffe25a05648 0x7f042bf222ad");
        machine.thread(PID, tid, &call(libc::SYS_ioctl, &arguments), 21);
        machine.status(PID, tid, "D (disk sleep)", 3);
    }
    let mut named: Vec<String> = freezers(machine.proc())
        .iter()
        .map(ToString::to_string)
        .collect();
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "process 5000000 (pv) waits in FIFREEZE of 8:2",
            "thread 5000001 of process 5000000 (pv) waits in FITHAW of 8:2"
        ]
    );
    assert!(machine.found().is_empty());
}

#[test]
fn a_writer_on_a_subvolume_with_a_number_of_its_own_is_on_the_superblock() {
    let machine = Machine::new();
    let line = |id: u32, number: u32, subvolume: u32| {
        format!(
            "{id} 20 0:{number} /@{subvolume} /b{id} rw - btrfs /dev/sdb rw,subvolid={subvolume},subvol=/@{subvolume}\n"
        )
    };
    let table = format!("{OURS}{}{}", line(30, 70, 256), line(31, 71, 257));
    machine.write("self/mountinfo", &table);
    machine.thread(PID, PID, &splice(), 31);
    let number = DeviceNumber::new(0, 70);
    let writers = Writers::gather(&Search {
        proc: machine.proc(),
        ..Search::of(&[number], WriterRules::default())
    });
    let found: Vec<_> = writers.iter().map(|writer| writer.device).collect();
    assert_eq!(found, [Some(number)]);
}
