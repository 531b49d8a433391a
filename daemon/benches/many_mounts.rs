//! What a scan and a plan cost with many mounts and many processes: `cargo bench --bench many_mounts`.
//!
//! The tables are made up and read from a directory; so what the kernel needs to write its own is not in the figures. Where a C compiler is found, a walk with
//! getmntent over a table of the same mounts is measured beside it: the least that a daemon costs which freezes whatever /proc/mounts names.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hv_vssd::filesystems::mountinfo::parse;
use hv_vssd::filesystems::{Baseline, DeviceNodes, Plan, Policy, Roots, scan_below};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// As the engine has it.
const MOST_MOUNTS: usize = 16;

const WALK: &str = r#"
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    long found = 0;
    for (int left = atoi(argv[2]); left > 0; left--) {
        struct mntent *mount;
        FILE *table = setmntent(argv[1], "r");
        while ((mount = getmntent(table)))
            found += !strncmp(mount->mnt_fsname, "/dev/", 5) && strcmp(mount->mnt_type, "vfat") && !hasmntopt(mount, "ro");
        endmntent(table);
    }
    return found == 0;
}
"#;

/// A guest in a directory: what its mount table says, as mountinfo and as /proc/mounts have it.
struct Guest {
    place: tempfile::TempDir,
    roots: Roots,
}

/// One disk for the root and 20 that are mounted over and over, as containers and chroots do.
fn tables(mounts: usize) -> (String, String) {
    let mut info = "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                    21 20 0:5 / /proc rw shared:2 - proc proc rw\n"
        .to_owned();
    let mut mtab =
        "/dev/sda1 / ext4 rw,relatime,errors=remount-ro 0 0\nproc /proc proc rw 0 0\n".to_owned();
    for index in 0..mounts {
        let (disk, id) = (index % 20 + 1, index + 30);
        let point = format!("/srv/tenants/{}/mount-{index}", index % 500);
        let _ = writeln!(
            info,
            "{id} 20 8:{} /data/{index} {point} rw,relatime shared:{id} - ext4 /dev/sd{disk} rw,stripe=64",
            16 * disk
        );
        let _ = writeln!(mtab, "/dev/sd{disk} {point} ext4 rw,relatime,stripe=64 0 0");
    }
    (info, mtab)
}

impl Guest {
    fn new(mounts: usize) -> Self {
        // In memory where possible.
        let place = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let (info, mtab) = tables(mounts);
        fs::write(place.path().join("mounts"), mtab).unwrap();
        fs::write(place.path().join("filesystems"), "nodev\tproc\n\text4\n").unwrap();
        let roots = Roots {
            proc: place.path().into(),
            sys: place.path().join("sys"),
            dev: DeviceNodes::Listed([].into()),
            other_namespaces: true,
        };
        let guest = Self { place, roots };
        guest.process("self", 1, &info);
        guest
    }

    fn process(&self, name: &str, namespace: usize, table: &str) {
        let dir = self.place.path().join(name);
        fs::create_dir_all(dir.join("ns")).unwrap();
        symlink(format!("mnt:[{namespace}]"), dir.join("ns/mnt")).unwrap();
        symlink("/", dir.join("root")).unwrap();
        fs::write(dir.join("mountinfo"), table).unwrap();
    }

    /// Processes that share namespaces, each of which repeats our table but for one mount of a disk that is known.
    fn with_processes(self, mounts: usize, processes: usize, namespaces: usize) -> Self {
        let (info, _) = tables(mounts);
        for index in 0..processes {
            let namespace = index % (namespaces + 1);
            let table = match namespace {
                0 => String::new(),
                own => format!("{info}9000{own} 20 8:16 / /run/only-{own} rw - ext4 /dev/sd1 rw\n"),
            };
            // Only the first of each namespace has a table: a second read would be seen.
            let table = if index <= namespaces {
                table.as_str()
            } else {
                ""
            };
            self.process(&(1000 + index).to_string(), 1 + namespace, table);
        }
        self
    }
}

/// Processor time of this process, or of its children, in user mode and in the kernel.
fn spent(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let sum = micros(usage.user_time()) + micros(usage.system_time());
    Duration::from_micros(u64::try_from(sum).unwrap())
}

/// The least of five rounds: processor time of one run, in microseconds.
fn measure(who: UsageWho, runs: u32, mut work: impl FnMut(u32)) -> f64 {
    let round = |_| {
        let before = spent(who);
        work(runs);
        (spent(who) - before).as_secs_f64() * 1e6 / f64::from(runs)
    };
    (0..5).map(round).fold(f64::INFINITY, f64::min)
}

fn repeat(work: impl Fn()) -> impl FnMut(u32) {
    move |runs| (0..runs).for_each(|_| work())
}

fn compile(place: &Path) -> Option<std::path::PathBuf> {
    let (source, program) = (place.join("walk.c"), place.join("walk"));
    fs::write(&source, WALK).ok()?;
    let built = Command::new("cc")
        .arg("-O2")
        .arg("-o")
        .args([&program, &source])
        .status();
    built
        .is_ok_and(|status| status.success())
        .then_some(program)
}

fn main() {
    let own = UsageWho::RUSAGE_SELF;
    let policy = Policy::default();
    let tools = tempfile::tempdir().unwrap();
    let walk = compile(tools.path());
    println!("processor time in µs\n");
    println!(
        "| mounts | scan | plan | scan and plan | has anything appeared | walk with getmntent |"
    );
    println!("|---|---|---|---|---|---|");
    for mounts in [2_500, 5_000, 10_000, 20_000] {
        let guest = Guest::new(mounts);
        let runs = u32::try_from(1_000_000 / mounts).unwrap();
        let scan = measure(
            own,
            runs,
            repeat(|| drop(scan_below(&guest.roots).unwrap())),
        );
        let both = measure(
            own,
            runs,
            repeat(|| {
                let scan = scan_below(&guest.roots).unwrap();
                assert_eq!(
                    Plan::with_mounts(&scan, &policy, MOST_MOUNTS)
                        .superblocks()
                        .count(),
                    21
                );
            }),
        );
        let before = Baseline::of(&scan_below(&guest.roots).unwrap());
        let table = fs::read(guest.place.path().join("self/mountinfo")).unwrap();
        let appeared = measure(
            own,
            runs,
            repeat(|| {
                assert!(
                    before
                        .appeared_in(&parse(&table).unwrap(), &policy)
                        .is_empty()
                )
            }),
        );
        let walked = walk.as_ref().map(|program| {
            let table = guest.place.path().join("mounts");
            measure(UsageWho::RUSAGE_CHILDREN, runs, |runs| {
                let status = Command::new(program)
                    .arg(&table)
                    .arg(runs.to_string())
                    .status();
                assert!(status.unwrap().success());
            })
        });
        let walked = walked.map_or("-".to_owned(), |walked| format!("{walked:.0}"));
        println!(
            "| {mounts} | {scan:.0} | {:.0} | {both:.0} | {appeared:.0} | {walked} |",
            both - scan
        );
    }
    println!("\n| mounts | processes | other namespaces | scan and plan |\n|---|---|---|---|");
    for (mounts, processes, namespaces) in [(100, 1_000, 4), (100, 2_000, 4), (10_000, 1_000, 4)] {
        let guest = Guest::new(mounts).with_processes(mounts, processes, namespaces);
        let both = measure(
            own,
            20,
            repeat(|| {
                let scan = scan_below(&guest.roots).unwrap();
                assert_eq!(scan.elsewhere.len(), namespaces);
                assert_eq!(
                    Plan::with_mounts(&scan, &policy, MOST_MOUNTS)
                        .superblocks()
                        .count(),
                    21
                );
            }),
        );
        println!("| {mounts} | {processes} | {namespaces} | {both:.0} |");
    }
}
