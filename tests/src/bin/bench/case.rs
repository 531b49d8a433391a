//! What is measured: disks and load.

use std::time::Duration;

use ::tests::error::BedResult;
use ::tests::guest::{Disk, FsKind, Guest};

use crate::database;
use crate::programs::Programs;

/// Of all disks but the slow one.
pub(crate) const SPEED: u64 = 20_000_000;

/// A fifth of it.
pub(crate) const SLOW_SPEED: u64 = SPEED / 5;

/// The disks in the guest: all cases choose from them. The last two hold the database.
const DISKS: [(FsKind, u64); 12] = [
    (FsKind::Ext4, SPEED),
    (FsKind::Ext4, SPEED),
    (FsKind::Ext4, SPEED),
    (FsKind::Ext4, SPEED),
    (FsKind::Ext4, SPEED),
    (FsKind::Ext4, SPEED),
    (FsKind::Ext4, SPEED),
    (FsKind::Ext4, SLOW_SPEED),
    (FsKind::Xfs, SPEED),
    (FsKind::Btrfs, SPEED),
    (FsKind::Ext4, SPEED),
    (FsKind::Ext4, SPEED),
];

/// What goes on on the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Nothing but the probe.
    Nothing,
    /// Bytes a second, over and over.
    Stream(u64),
    /// Many small files.
    SmallFiles,
    /// Commits of PostgreSQL.
    Commits,
}

/// A case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) letter: char,
    pub(crate) title: &'static str,
    /// Numbers of its disks.
    pub(crate) disks: &'static [usize],
    /// On each disk before every FREEZE; of the database on that of its data.
    pub(crate) dirty: u64,
    pub(crate) load: Load,
    pub(crate) bind_mounts: u32,
}

const MB: u64 = 1_000_000;
const PLAIN: Case = Case {
    letter: ' ',
    title: "",
    disks: &[0, 1, 2, 3],
    dirty: 0,
    load: Load::Nothing,
    bind_mounts: 0,
};

/// All cases.
pub(crate) const CASES: [Case; 8] = [
    Case {
        letter: 'a',
        title: "4 disks of 20 MB/s, 40 MB dirty on each",
        dirty: 40 * MB,
        ..PLAIN
    },
    Case {
        letter: 'b',
        title: "8 disks, one of them 4 MB/s, 40 MB dirty on each",
        disks: &[0, 1, 2, 3, 4, 5, 6, 7],
        dirty: 40 * MB,
        ..PLAIN
    },
    Case {
        letter: 'c',
        title: "4 disks, 40 MB dirty on each and 10 MB/s more all the time",
        dirty: 40 * MB,
        load: Load::Stream(10 * MB),
        ..PLAIN
    },
    Case {
        letter: 'd',
        title: "4 disks, nothing dirty",
        ..PLAIN
    },
    Case {
        letter: 'e',
        title: "4,000 bind mounts",
        disks: &[0],
        bind_mounts: 4_000,
        ..PLAIN
    },
    Case {
        letter: 'E',
        title: "10,000 bind mounts",
        disks: &[0],
        bind_mounts: 10_000,
        ..PLAIN
    },
    Case {
        letter: 'f',
        title: "small files on ext4, xfs and btrfs",
        disks: &[0, 8, 9],
        load: Load::SmallFiles,
        ..PLAIN
    },
    Case {
        letter: 'g',
        title: "PostgreSQL commits, WAL and data on a disk each, a batch of 40 MB just written",
        disks: &[10, 11],
        dirty: 40 * MB,
        load: Load::Commits,
        ..PLAIN
    },
];

/// The guest's disks, to be made: the database's only if it is wanted, the programs' last.
pub(crate) fn disks(programs: &Programs, with_database: bool) -> Vec<Disk> {
    let throttled = |(kind, speed): &(FsKind, u64)| {
        let mib = if *kind == FsKind::Xfs { 400 } else { 256 };
        Disk::sized(*kind, mib).throttled(*speed)
    };
    let database = programs.database_disks().map(|disk| disk.throttled(SPEED));
    let empty = DISKS.iter().take(DISKS.len() - database.len());
    let database = database.into_iter().filter(|_| with_database);
    let all = empty.map(throttled).chain(database);
    all.chain([programs.disk()]).collect()
}

/// A disk's name in the guest.
pub(crate) fn device(disk: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(disk).unwrap_or_default());
    format!("vd{letter}")
}

/// Of a disk, in bytes a second.
pub(crate) fn speed(disk: usize) -> u64 {
    DISKS.get(disk).map_or(SPEED, |(_, speed)| *speed)
}

/// Where a disk is mounted.
pub(crate) fn mount_point(disk: usize) -> String {
    format!("/mnt/{disk}")
}

impl Case {
    /// The least a FREEZE can take where the case says what is dirty: these bytes over the speed of their disk, for the slowest.
    pub(crate) fn least(&self) -> Option<Duration> {
        let is_said = self.dirty > 0 && matches!(self.load, Load::Nothing | Load::Commits);
        let seconds = |disk: &usize| self.dirty as f64 / speed(*disk) as f64;
        let slowest = self.disks.iter().map(seconds).fold(0.0, f64::max);
        is_said.then(|| Duration::from_secs_f64(slowest))
    }

    /// Mounts its disks, and what is bound on them.
    pub(crate) fn set_up(&self, guest: &Guest) -> BedResult<()> {
        for disk in self.disks {
            let (kind, _) = DISKS.get(*disk).copied().unwrap_or((FsKind::Ext4, SPEED));
            let (device, point) = (device(*disk), mount_point(*disk));
            // ext4 writes its inode tables late, which would be load of its own.
            let options = if kind == FsKind::Ext4 {
                "-o noinit_itable"
            } else {
                ""
            };
            guest.sh(&format!(
                "mkdir -p {point}; mount -t {} {options} /dev/{device} {point}",
                kind.name()
            ))?;
        }
        if self.bind_mounts > 0 {
            guest.bind_mounts(&mount_point(0), "/run/binds", self.bind_mounts)?;
        }
        if self.load == Load::Commits {
            database::start(guest)?;
        }
        Ok(())
    }

    /// Takes it all away.
    pub(crate) fn tear_down(&self, guest: &Guest) -> BedResult<()> {
        let limit = Duration::from_secs(300);
        if self.load == Load::Commits {
            database::stop(guest)?;
        }
        let all = "for n in $(seq 0 11); do while grep -q \" /mnt/$n \" /proc/mounts; do umount /mnt/$n || sleep 0.2; done; done";
        let binds = "grep ' /run/binds/' /proc/mounts | cut -d' ' -f2 | xargs -r -n 200 umount";
        let script = format!("{binds}; {all}");
        guest.exec(&["/bin/sh", "-c", &script], limit)?;
        Ok(())
    }
}
