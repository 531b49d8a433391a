//! Whether the mount table has changed since a scan, found out without opening anything and without looking up a path: file systems are frozen then.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::device::DeviceNumber;
use super::error::ScanError;
use super::kinds::Kind;
use super::mountinfo::{self, Mount};
use super::policy::Policy;
use super::processes::{self, file_of};
use super::scan::Scan;

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
        let changed = PollFlags::POLLPRI | PollFlags::POLLERR;
        let mut fds = [PollFd::new(self.table.as_fd(), changed)];
        loop {
            match poll(&mut fds, PollTimeout::ZERO) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let [fd] = fds;
        Ok(fd
            .revents()
            .is_some_and(|events| events.intersects(changed)))
    }

    /// The superblocks, each by one mount, that a plan would freeze now and a plan of the scan `before` did not: they are new, or were read-only. Decided by
    /// type and policy alone, without a look into sysfs.
    ///
    /// # Errors
    /// When the table cannot be read or understood: take it for a change that matters.
    pub fn appeared(&self, before: &Scan, policy: &Policy) -> io::Result<Vec<Mount>> {
        Ok(appeared(self.mounts()?, before, policy))
    }

    /// Whether [`TableWatch::appeared`] would name any in the table `now`.
    #[must_use]
    pub fn appeared_in(&self, now: Vec<Mount>, before: &Scan, policy: &Policy) -> bool {
        !appeared(now, before, policy).is_empty()
    }

    /// The table as it is now.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn mounts(&self) -> io::Result<Vec<Mount>> {
        let mut table = &self.table;
        table.rewind()?;
        let mut bytes = Vec::new();
        table.read_to_end(&mut bytes)?;
        mountinfo::parse(&bytes).map_err(io::Error::other)
    }
}

/// The mount tables of all other namespaces, held open for as long as a freeze takes: while open they keep the namespaces alive.
#[derive(Debug)]
pub struct OtherTables {
    tables: Vec<TableWatch>,
}

impl OtherTables {
    /// Opens one table for each namespace that a process is in.
    ///
    /// # Errors
    /// When `/proc` cannot be read. A process that is gone, or may not be looked into, is no error.
    pub fn open() -> Result<Self, ScanError> {
        let proc = Path::new("/proc");
        let open = |pids: Vec<u32>| {
            pids.into_iter().find_map(|pid| {
                let table = File::open(file_of(proc, pid, "mountinfo")).ok()?;
                Some(TableWatch { table })
            })
        };
        let tables = processes::list(proc)?
            .namespaces
            .into_iter()
            .filter_map(open)
            .collect();
        Ok(Self { tables })
    }

    /// Whether one of those that have changed since they were opened has a superblock that [`TableWatch::appeared`] would name. Opens nothing; what cannot be read
    /// counts as such.
    #[must_use]
    pub fn have_more(&self, before: &Scan, policy: &Policy) -> bool {
        self.tables.iter().any(|table| match table.changed() {
            Ok(false) => false,
            // A namespace whose last process has gone has no mounts any more.
            Ok(true) => match table.mounts() {
                Ok(now) => table.appeared_in(now, before, policy),
                Err(error) => error.raw_os_error() != Some(libc::EINVAL),
            },
            Err(_) => true,
        })
    }
}

/// [`TableWatch::appeared`] of the table `now`. Pure.
fn appeared(now: Vec<Mount>, before: &Scan, policy: &Policy) -> Vec<Mount> {
    // A device may since have been given another file system, and the plan left read-only ones out.
    let known: HashSet<(DeviceNumber, &str)> = before
        .all_mounts()
        .filter(|mount| !mount.superblock_is_read_only())
        .map(|mount| (mount.dev, mount.fstype.as_str()))
        .collect();
    let mut new: Vec<Mount> = now
        .into_iter()
        .filter(|mount| !known.contains(&(mount.dev, mount.fstype.as_str())))
        .filter(|mount| before.kind_of(mount) == Kind::Freezable && is_on_a_device(mount))
        .filter(|mount| !mount.superblock_is_read_only())
        .collect();
    // A mount that the policy names takes the whole superblock with it.
    let excluded: HashSet<DeviceNumber> = new
        .iter()
        .filter(|mount| policy.excludes(mount, true))
        .map(|mount| mount.dev)
        .collect();
    let mut seen = HashSet::new();
    new.retain(|mount| !excluded.contains(&mount.dev) && seen.insert(mount.dev));
    new
}

/// A type that the kernel did not know at the scan may be one of those without a device.
fn is_on_a_device(mount: &Mount) -> bool {
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
        appeared(now, &before, &toml::from_str(policy).unwrap())
            .iter()
            .map(|mount| mount.mount_point.display().to_string())
            .collect()
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
    fn what_is_known_or_would_not_be_frozen_does_not() {
        assert_eq!(
            names(
                "9 1 8:1 /dir /bind rw - ext4 /dev/sda1 rw\n10 1 0:61 / /t rw - tmpfs tmpfs rw\n\
                 11 1 0:62 / /n rw - nfs4 server:/ rw\n12 1 8:9 / /usb rw - exfat /dev/sdz rw\n\
                 13 1 8:10 / /cd ro - iso9660 /dev/sr0 ro\n14 1 0:63 / /m rw - just_loaded_fs none rw\n",
                ""
            ),
            NONE
        );
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
    }
}
