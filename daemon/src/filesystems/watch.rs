//! Whether the mount table has changed since a scan, found out without opening anything and without looking up a path: file systems are frozen then.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hashbrown::{Equivalent, HashSet};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::budget::Grant;
use super::device::DeviceNumber;
use super::error::ScanError;
use super::identity::Identities;
use super::kinds::{Kind, Kinds};
use super::mount_table::MountTable;
use super::mountinfo::{self, Mount};
use super::namespaces::open_others;
use super::policy::Policy;
use super::processes;
use super::scan::Scan;

/// How long reading our own table may take while nothing is frozen.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Our mount table, held open. Open it before the scan, so that no change falls between the two.
///
/// It sees our own mount namespace only: a mount made in another one's meanwhile is found by the next scan.
#[derive(Debug)]
pub struct TableWatch {
    table: File,
}

impl TableWatch {
    /// Opens the mount table of this process; changes from now on are told.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn open() -> Result<Self, ScanError> {
        let path = "/proc/self/mountinfo";
        match File::open(path) {
            Ok(table) => Ok(Self { table }),
            Err(source) => Err(ScanError::Read {
                path: path.into(),
                source,
            }),
        }
    }

    /// Whether anything was mounted, unmounted, moved or remounted since the last call, or since [`TableWatch::open`]. Does not wait.
    ///
    /// Asking takes note of the change (`mounts_poll` in fs/proc_namespace.c remembers the table's event counter for each open file); reading does not. So ask
    /// first and read then: what changes while the table is read is told by the next call.
    ///
    /// # Errors
    /// When `poll` fails.
    pub fn changed(&self) -> io::Result<bool> {
        changed_of(std::slice::from_ref(self)).map(|changed| !changed.is_empty())
    }

    /// What [`Baseline::appeared_in`] finds in the table as it is now.
    ///
    /// # Errors
    /// When the table cannot be read, in time, or understood: take it for a change that matters.
    pub fn appeared(
        &self,
        before: &Baseline,
        policy: &Policy,
        deadline: Instant,
    ) -> io::Result<Appeared> {
        let now = self.read(deadline)?;
        Ok(before.appeared_in(&now, policy))
    }

    /// The table as it is now.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn mounts(&self) -> io::Result<MountTable> {
        self.read(Instant::now() + READ_LIMIT)
    }

    fn read(&self, until: Instant) -> io::Result<MountTable> {
        let mut table = &self.table;
        table.rewind()?;
        let bytes = usize::MAX;
        match processes::read_lines(table, Grant { bytes, until })? {
            (_, true) => Err(io::ErrorKind::TimedOut.into()),
            (text, false) => mountinfo::parse_owned(text).map_err(io::Error::other),
        }
    }
}

/// Of these tables those that have changed since they were last asked, in one system call.
///
/// # Errors
/// When `poll` fails.
fn changed_of(tables: &[TableWatch]) -> io::Result<Vec<&TableWatch>> {
    let changed = PollFlags::POLLPRI | PollFlags::POLLERR;
    let mut fds: Vec<_> = tables
        .iter()
        .map(|watch| PollFd::new(watch.table.as_fd(), changed))
        .collect();
    loop {
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let has_changed = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
    let all = tables.iter().zip(&fds);
    Ok(all
        .filter(|(_, fd)| has_changed(fd))
        .map(|(watch, _)| watch)
        .collect())
}

/// The mount tables of the system's other namespaces, held open for as long as a checkpoint takes: while open they keep the namespaces alive.
///
/// Those of ordinary users are not among them. No disk can be mounted there but by the system, which has it mounted elsewhere, too; and what
/// users mount must not be able to undo a freeze.
#[derive(Debug, Default)]
pub struct OtherTables {
    tables: Vec<TableWatch>,
    fingerprint: u64,
}

impl OtherTables {
    pub(crate) fn new(tables: Vec<File>, fingerprint: u64) -> Self {
        let watch = |table| TableWatch { table };
        Self {
            tables: tables.into_iter().map(watch).collect(),
            fingerprint,
        }
    }

    /// Opens and reads one table for each namespace that a process is in, and parses none.
    ///
    /// # Errors
    /// When `/proc` cannot be read. A process that is gone, or may not be looked into, is no error.
    pub fn open() -> Result<Self, ScanError> {
        let (tables, fingerprint) = open_others(Path::new("/proc"))?;
        Ok(Self::new(tables, fingerprint))
    }

    /// A number that stays the same as long as all other namespaces of the system have the mounts they have: of the tables as they were read.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// What [`Baseline::appeared_in`] finds in those that have changed since they were opened. Opens nothing.
    ///
    /// # Errors
    /// When one cannot be read in time, or understood: take it for a change that matters.
    pub fn appeared(
        &self,
        before: &Baseline,
        policy: &Policy,
        deadline: Instant,
    ) -> io::Result<Appeared> {
        let mut appeared = Appeared::default();
        // Those that cannot be asked count as changed.
        let changed = changed_of(&self.tables).unwrap_or_else(|_| self.tables.iter().collect());
        for table in changed {
            match table.appeared(before, policy, deadline) {
                Ok(more) => appeared.add(more),
                // A namespace whose last process has gone has no mounts any more.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(appeared)
    }
}

/// What was mounted since a scan, each superblock by one of its mount points.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appeared {
    /// What a plan would freeze now.
    pub to_freeze: Vec<PathBuf>,
    /// What it would list as a gap: on a disk and writable, but of a type that cannot be frozen.
    pub gaps: Vec<PathBuf>,
}

impl Appeared {
    /// Whether nothing has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to_freeze.is_empty() && self.gaps.is_empty()
    }

    /// With what another table tells.
    pub fn add(&mut self, mut more: Self) {
        self.to_freeze.append(&mut more.to_freeze);
        self.gaps.append(&mut more.gaps);
    }
}

/// What is kept of a scan to tell later whether anything was added: few words for each superblock, however often it is mounted.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    /// A device may later be given another file system, and the plan left read-only ones out.
    writable: HashSet<(DeviceNumber, String)>,
    nodev: BTreeSet<String>,
    identities: Identities,
}

impl Baseline {
    /// What the scan saw.
    #[must_use]
    pub fn of(scan: &Scan) -> Self {
        let mut writable = HashSet::new();
        let mut last = None;
        for mount in scan.all_mounts() {
            // Neighbours in the table are often mounts of one superblock.
            let superblock = (mount.dev, mount.fstype);
            if last.replace(superblock) != Some(superblock) && !mount.superblock_is_read_only() {
                writable.insert((mount.dev, mount.fstype.to_owned()));
            }
        }
        Self {
            writable,
            nodev: scan.nodev.clone(),
            identities: scan.identities.clone(),
        }
    }

    /// The superblocks that a plan of the table `now` would freeze, or list as a gap, and a plan of the scan did not: they are new, or were read-only.
    /// Decided by type and policy alone, without a look into sysfs. Pure.
    #[must_use]
    pub fn appeared_in(&self, now: &MountTable, policy: &Policy) -> Appeared {
        if policy.flush_only {
            // Nothing is frozen, so that nothing can be missing.
            return Appeared::default();
        }
        let kind = |fstype: &str| Kind::of(fstype, |name| self.nodev.contains(name));
        let kinds = Kinds::of(now, kind);
        let mut known = None;
        let mut new: Vec<(Mount<'_>, bool)> = Vec::new();
        for (index, mount) in now.iter().enumerate() {
            let superblock = Some((mount.dev, now.type_of(index)));
            if known == superblock {
                continue;
            }
            let kind = kinds.kind(now, index);
            if self.has(&mount) {
                known = superblock;
            } else if kind.has_blocks()
                && is_on_a_device(&mount)
                && !mount.superblock_is_read_only()
            {
                new.push((mount, kind == Kind::Freezable));
            }
        }
        // A mount that the policy names takes the whole superblock with it.
        let excluded: HashSet<DeviceNumber> = new
            .iter()
            .filter(|(mount, _)| policy.excludes(mount, true))
            .map(|(mount, _)| mount.dev)
            .collect();
        // One that the lists of what to include name does, too.
        let included: HashSet<DeviceNumber> = new
            .iter()
            .filter(|(mount, _)| policy.may_include(mount))
            .map(|(mount, _)| mount.dev)
            .collect();
        let mut seen = HashSet::new();
        new.retain(|(mount, _)| {
            included.contains(&mount.dev)
                && !excluded.contains(&mount.dev)
                && seen.insert(mount.dev)
        });
        let (to_freeze, gaps): (Vec<_>, Vec<_>) = new.iter().partition(|(_, freezable)| *freezable);
        let points = |mounts: Vec<&(Mount<'_>, bool)>| {
            let points = mounts.iter().map(|(mount, _)| mount.mount_point.to_owned());
            points.collect()
        };
        Appeared {
            to_freeze: points(to_freeze),
            gaps: points(gaps),
        }
    }

    /// The number under which the scan knows the mount's superblock, if it does.
    #[must_use]
    pub fn superblock_of(&self, mount: &Mount<'_>) -> DeviceNumber {
        self.identities.of(mount)
    }

    fn has(&self, mount: &Mount<'_>) -> bool {
        let dev = self.superblock_of(mount);
        self.writable.contains(&Key(dev, mount.fstype))
    }
}

/// A key of [`Baseline::writable`] without a string of its own.
#[derive(Hash)]
struct Key<'a>(DeviceNumber, &'a str);

impl Equivalent<(DeviceNumber, String)> for Key<'_> {
    fn equivalent(&self, (dev, fstype): &(DeviceNumber, String)) -> bool {
        self.0 == *dev && self.1 == fstype
    }
}

/// A type that the kernel did not know at the scan may be one of those without a device.
fn is_on_a_device(mount: &Mount<'_>) -> bool {
    !mount.dev.is_anonymous() || mount.source.as_encoded_bytes().starts_with(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
         2 1 8:2 / /fat rw - vfat /dev/sda2 rw\n\
         3 1 8:3 / /ro ro - xfs /dev/sda3 ro\n";

    fn names(added: &str, policy: &str) -> Vec<String> {
        let before = Scan {
            mounts: mountinfo::parse(BEFORE.as_bytes()).unwrap(),
            nodev: ["tmpfs", "nfs"].map(String::from).into(),
            ..Scan::default()
        };
        let now = mountinfo::parse(format!("{BEFORE}{added}").as_bytes()).unwrap();
        let appeared = Baseline::of(&before).appeared_in(&now, &toml::from_str(policy).unwrap());
        let gaps = appeared
            .gaps
            .iter()
            .map(|point| format!("gap {}", point.display()));
        let to_freeze = appeared
            .to_freeze
            .iter()
            .map(|point| point.display().to_string());
        to_freeze.chain(gaps).collect()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn a_new_superblock_appears_once() {
        assert_eq!(
            names(
                "9 1 8:9 / /new rw - ext4 /dev/sdz rw\n10 1 8:9 / /again rw - ext4 /dev/sdz rw\n\
                 11 1 0:60 / /pool rw - btrfs /dev/sdy rw\n",
                ""
            ),
            ["/new", "/pool"]
        );
    }

    #[test]
    fn a_subvolume_with_a_number_of_its_own_is_known_by_its_source() {
        let line = |id: u32, number: u32, subvolume: u32, source: &str| {
            format!(
                "{id} 1 0:{number} /@/{id} /m{id} rw - btrfs {source} rw,subvolid={subvolume},subvol=/@/{id}\n"
            )
        };
        let before = format!(
            "{BEFORE}{}{}",
            line(5, 40, 256, "/dev/sdc"),
            line(6, 41, 257, "/dev/sdc")
        );
        let appeared = |added: String| {
            let mut scan = Scan {
                mounts: mountinfo::parse(before.as_bytes()).unwrap(),
                ..Scan::default()
            };
            scan.identities.note(&scan.mounts);
            scan.identities.apply(&mut scan.mounts);
            let now = mountinfo::parse(format!("{before}{added}").as_bytes()).unwrap();
            Baseline::of(&scan)
                .appeared_in(&now, &Policy::default())
                .to_freeze
        };
        let none: [PathBuf; 0] = [];
        assert_eq!(appeared(String::new()), none, "the numbers of the scan");
        assert_eq!(
            appeared(line(9, 77, 300, "/dev/sdc")),
            none,
            "one more subvolume"
        );
        assert_eq!(
            appeared(line(9, 77, 300, "/dev/sdd")),
            [PathBuf::from("/m9")]
        );
        // The file system was unmounted and another one made there: the same subvolume under a new number.
        assert_eq!(
            appeared(line(9, 77, 256, "/dev/sdc")),
            [PathBuf::from("/m9")]
        );
    }

    #[test]
    fn what_is_known_or_would_not_be_frozen_does_not() {
        assert_eq!(
            names(
                "9 1 8:1 /dir /bind rw - ext4 /dev/sda1 rw\n10 1 0:61 / /t rw - tmpfs tmpfs rw\n\
                 11 1 0:62 / /n rw - nfs4 server:/ rw\n12 1 8:9 / /usb ro - exfat /dev/sdz ro\n\
                 13 1 8:10 / /cd ro - iso9660 /dev/sr0 ro\n14 1 0:63 / /m rw - just_loaded_fs none rw\n",
                ""
            ),
            NONE
        );
    }

    #[test]
    fn what_cannot_be_frozen_is_a_gap() {
        let new = "9 1 8:9 / /usb rw - exfat /dev/sdz rw\n10 1 0:63 / /z rw - zfs pool rw\n";
        assert_eq!(names(new, ""), ["gap /usb"]);
        assert_eq!(names(new, r#"exclude_types = ["exfat"]"#), NONE);
    }

    #[test]
    fn a_table_that_cannot_be_read_in_time_is_an_error() {
        let watch = TableWatch::open().unwrap();
        let error = watch.appeared(&Baseline::default(), &Policy::default(), Instant::now());
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_superblock_that_was_read_only_or_another_appears() {
        assert_eq!(
            names(
                "9 1 8:3 / /rw rw - xfs /dev/sda3 rw\n10 1 8:2 / /made rw - ext4 /dev/sda2 rw\n",
                ""
            ),
            ["/rw", "/made"]
        );
    }

    #[test]
    fn the_policy_holds() {
        let new = "9 1 8:9 / /a rw - ext4 /dev/sdz rw\n10 1 8:9 / /b rw - ext4 /dev/sdz rw\n";
        assert_eq!(names(new, r#"exclude_mount_points = ["/b"]"#), NONE);
        assert_eq!(names(new, r#"exclude_devices = ["8:9"]"#), NONE);
        assert_eq!(names(new, r#"exclude_types = ["xfs"]"#), ["/a"]);
        assert_eq!(names(new, r#"include_mount_points = ["/b"]"#), ["/a"]);
        assert_eq!(names(new, r#"include_types = ["xfs"]"#), NONE);
        // The device's other names are not known here: a new plan tells.
        assert_eq!(names(new, r#"include_devices = ["sdq"]"#), ["/a"]);
        assert_eq!(names(new, "flush_only = true"), NONE);
    }
}
