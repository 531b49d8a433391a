use std::fs;
use std::os::unix::fs::symlink;

use super::*;

const OWN: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /srv rw - xfs /dev/sda2 rw\n";

/// What is mounted only in the container.
const CONTAINER: &str = "101 90 0:70 / / rw - overlay overlay rw,upperdir=/up\n\
     102 101 8:3 / /data rw - ext4 /dev/sdb rw\n103 101 8:2 /d /own rw - xfs /dev/sda2 rw\n";

/// A proc file system in a directory of its own.
struct Proc(tempfile::TempDir);

impl Proc {
    fn new() -> Self {
        // In memory where possible: one test makes 10,000 processes.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let proc = Self(dir.unwrap());
        proc.process("self", 1, Some(OWN));
        proc.process("7", 1, None);
        proc
    }

    fn process(&self, pid: &str, namespace: u32, table: Option<&str>) {
        let dir = self.0.path().join(pid);
        fs::create_dir_all(dir.join("ns")).unwrap();
        symlink(format!("mnt:[{namespace}]"), dir.join("ns/mnt")).unwrap();
        if let Some(table) = table {
            fs::write(dir.join("mountinfo"), table).unwrap();
        }
    }

    fn read(&self) -> Result<Others, ScanError> {
        let own = mountinfo::parse(OWN.as_bytes()).unwrap();
        let kind_of = |fstype: &str| Kind::of(fstype, |name| name == "tmpfs");
        read_others(self.0.path(), &own, &kind_of, &mut |_| {})
    }

    fn seen_by(&self) -> Vec<u32> {
        let others = self.read().unwrap();
        let pids = others.namespaces.iter();
        pids.map(|namespace| namespace.process.pid).collect()
    }
}

#[test]
fn a_namespace_is_read_once_however_many_processes_it_has() {
    let proc = Proc::new();
    // Every second process is in one of 50 namespaces that repeat ours, the others are in the container. Any table but the first of each is an error.
    for pid in 100..10_100_u32 {
        let (namespace, table, first) = match pid % 2 {
            0 => (1_000 + pid % 100, OWN, pid < 200),
            _ => (2, CONTAINER, pid == 101),
        };
        let table = if first { table } else { "read again\n" };
        proc.process(&pid.to_string(), namespace, Some(table));
    }
    let start = Instant::now();
    let others = proc.read().unwrap();
    let took = start.elapsed();
    assert_eq!(others.namespaces.len(), 1);
    assert_eq!(others.namespaces[0].process.pid, 101);
    assert_eq!(others.namespaces[0].mounts.len(), 3);
    assert_eq!(others.unread_processes, 0);
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_repeated_table_is_not_even_parsed() {
    let proc = Proc::new();
    // The line has all that tells it to be a repetition, and no more.
    proc.process("50", 5, Some("1 0 8:1 / /\n"));
    assert_eq!(proc.seen_by(), [0; 0]);
    proc.process("60", 6, Some("1 0 8:9 / /\n"));
    let text = proc.read().unwrap_err().to_string();
    assert!(text.contains("60/mountinfo: line 1"), "{text}");
}

#[test]
fn another_process_stands_in_for_one_that_is_gone() {
    let proc = Proc::new();
    proc.process("40", 2, None);
    proc.process("41", 2, Some(""));
    proc.process("42", 2, Some(CONTAINER));
    fs::write(proc.0.path().join("42/comm"), "web\x1b\n").unwrap();
    let others = proc.read().unwrap();
    let process = &others.namespaces[0].process;
    assert_eq!(process.to_string(), "PID 42 (web\\u{1b})");
    assert_eq!(others.unread_processes, 0);
}

#[test]
fn a_process_that_sees_the_whole_namespace_is_preferred() {
    let proc = Proc::new();
    proc.process("40", 2, Some("102 101 8:3 /jail / rw - ext4 /dev/sdb rw\n"));
    symlink("/data/jail", proc.0.path().join("40/root")).unwrap();
    proc.process("41", 2, Some(CONTAINER));
    symlink("/", proc.0.path().join("41/root")).unwrap();
    assert_eq!(proc.seen_by(), [41]);
}

#[test]
fn what_may_not_be_looked_into_is_counted() {
    let proc = Proc::new();
    // No symbolic link can be read there: ENOTDIR in place of EACCES, which root never gets.
    fs::create_dir_all(proc.0.path().join("30")).unwrap();
    fs::write(proc.0.path().join("30/ns"), "").unwrap();
    // The table is a directory: EISDIR.
    for pid in ["40", "41"] {
        proc.process(pid, 2, None);
        fs::create_dir(proc.0.path().join(pid).join("mountinfo")).unwrap();
    }
    // A zombie has no namespace any more.
    fs::create_dir_all(proc.0.path().join("50")).unwrap();
    assert_eq!(proc.read().unwrap().unread_processes, 3);
}

#[test]
fn what_is_hidden_here_is_looked_for_elsewhere_until_it_is_found() {
    let hidden = format!("{OWN}3 2 8:4 / /srv rw - ext4 /dev/sdd rw\n");
    let open = "11 0 8:2 / / rw - xfs /dev/sda2 rw\n";
    let proc = Proc::new();
    proc.process("50", 5, Some(&hidden));
    proc.process("60", 6, Some(open));
    proc.process("70", 7, Some(open));
    let own = mountinfo::parse(hidden.as_bytes()).unwrap();
    let kind_of = |_: &str| Kind::Freezable;
    let others = read_others(proc.0.path(), &own, &kind_of, &mut |_| {}).unwrap();
    let pids: Vec<u32> = others
        .namespaces
        .iter()
        .map(|other| other.process.pid)
        .collect();
    assert_eq!(pids, [60]);
}

#[test]
fn mount_points_of_all_other_namespaces_are_gathered() {
    let proc = Proc::new();
    proc.process("50", 5, Some(OWN));
    proc.process(
        "60",
        6,
        Some("11 0 8:1 / / rw - ext4 /dev/sda1 rw\n12 11 8:2 / /a\\040b rw - xfs /dev/sda2 rw\n"),
    );
    let others = proc.read().unwrap();
    assert!(others.namespaces.is_empty());
    let expected = [("/a b".into(), [DeviceNumber::new(8, 2)].into())];
    assert_eq!(others.elsewhere, expected.into());
}

/// Makes the process that of an ordinary user; whoever runs this as one has only such.
fn of_a_user(proc: &Proc, pid: &str) -> u32 {
    use std::os::unix::fs::{MetadataExt, chown};
    let dir = proc.0.path().join(pid);
    let _ = chown(&dir, Some(65_534), Some(65_534));
    fs::metadata(dir).unwrap().uid()
}

/// Binds of one directory, under long paths.
fn long_table(length: usize) -> String {
    let mut table = String::new();
    let mut id = 200;
    while table.len() < length {
        id += 1;
        table += &format!(
            "{id} 200 8:2 /d /{}/{id} rw - xfs /dev/sda2 rw\n",
            "long".repeat(500)
        );
    }
    table
}

#[test]
fn a_users_endless_tables_are_cut_and_told_and_nobody_elses_suffer() {
    let proc = Proc::new();
    let table = long_table(3 << 20);
    for (namespace, pid) in [(2, "40"), (3, "41"), (4, "42")] {
        proc.process(pid, namespace, Some(&table));
    }
    let uid = ["40", "41", "42"].map(|pid| of_a_user(&proc, pid))[0];
    proc.process("90", 9, Some(CONTAINER));
    let others = proc.read().unwrap();
    // The first is whole, the second the rest of what a user has, the third nothing. A machine that is very busy has no time for the first.
    let cut = others
        .unread_tables
        .iter()
        .find(|cut| cut.uid == Some(uid))
        .unwrap();
    assert!((2..=3).contains(&cut.namespaces), "{cut}");
    let told = cut.to_string();
    assert!(
        told.starts_with(&format!("the mount tables of user {uid} are too")),
        "{told}"
    );
    if uid == 65_534 {
        // The system's own namespace is read, though it comes last.
        assert_eq!(proc.seen_by(), [90]);
    }
}

#[test]
fn a_table_without_an_end_costs_no_more_than_what_is_granted() {
    let proc = Proc::new();
    proc.process("40", 2, None);
    symlink("/dev/zero", proc.0.path().join("40/mountinfo")).unwrap();
    let others = proc.read().unwrap();
    assert_eq!(others.unread_tables.len(), 1);
    assert_eq!(others.unread_processes, 0);
    assert!(others.namespaces.is_empty());
}

#[test]
fn what_a_user_mounts_makes_no_plan_anew_and_what_the_system_does_does() {
    let proc = Proc::new();
    let fingerprint = |table: &str, user: bool| {
        let _ = fs::remove_dir_all(proc.0.path().join("40"));
        proc.process("40", 2, Some(table));
        let is_user = user && of_a_user(&proc, "40") != 0;
        (proc.read().unwrap().fingerprint, is_user)
    };
    let longer = format!("{CONTAINER}104 101 8:4 / /more rw - ext4 /dev/sdd rw\n");
    let (one, is_user) = fingerprint(CONTAINER, true);
    let (other, _) = fingerprint(&longer, true);
    assert!(is_user);
    assert_eq!(one, other);
    if of_a_user(&proc, "40") == 65_534 {
        assert_ne!(fingerprint(CONTAINER, false), fingerprint(&longer, false));
    }
}

#[test]
fn what_is_opened_again_is_the_systems_alone_and_counts_the_same() {
    let proc = Proc::new();
    proc.process("40", 2, Some(CONTAINER));
    let uid = of_a_user(&proc, "40");
    proc.process("90", 9, Some(CONTAINER));
    let (files, fingerprint) = open_others(proc.0.path()).unwrap();
    assert_eq!(fingerprint, proc.read().unwrap().fingerprint);
    // Whoever runs this as an ordinary user has no namespace of the system's.
    assert_eq!(files.len(), usize::from(uid == 65_534));
}
