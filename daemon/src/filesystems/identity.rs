//! Which mounts are of one superblock where their device numbers do not tell. Pure.
//!
//! SUSE's kernels print a number for each btrfs subvolume, where others print the superblock's. The source is the superblock's own (`btrfs_show_devname` in
//! fs/btrfs/super.c): all of its mounts have the same, in every namespace, and on those kernels each subvolume has one number and each number one subvolume.

use hashbrown::HashMap;
use std::os::unix::ffi::OsStrExt;

use super::device::DeviceNumber;
use super::mount_table::MountTable;
use super::mountinfo::Mount;

/// The numbers under which each btrfs is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    by_source: HashMap<Vec<u8>, Pool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pool {
    /// Stands for all of them: the first in the table, which is likely to stay mounted longest.
    first: DeviceNumber,
    by_number: HashMap<DeviceNumber, u64>,
    by_subvolume: HashMap<u64, DeviceNumber>,
    /// A number has several subvolumes, or a subvolume several numbers: then each number is a superblock's own.
    is_plain: bool,
}

impl Identities {
    /// Takes note of a table; our own goes first.
    pub(crate) fn note(&mut self, table: &MountTable) {
        if !table.types().any(|fstype| fstype == "btrfs") {
            return;
        }
        for mount in table.iter().filter(is_btrfs) {
            let source = mount.source.as_bytes();
            if let Some(pool) = self.by_source.get_mut(source) {
                pool.add(&mount);
                continue;
            }
            let mut pool = Pool::new(mount.dev);
            pool.add(&mount);
            self.by_source.insert(source.to_owned(), pool);
        }
    }

    /// The number that stands for the mount's superblock: of a mount in one of the tables, or in a later one.
    pub(crate) fn of(&self, mount: &Mount<'_>) -> DeviceNumber {
        let pool = match is_btrfs(mount) {
            true => self.by_source.get(mount.source.as_bytes()),
            false => None,
        };
        match pool {
            Some(pool) if pool.has(mount) => pool.first,
            _ => mount.dev,
        }
    }

    /// Gives the mounts of a table the numbers of their superblocks.
    pub(crate) fn apply(&self, table: &mut MountTable) {
        if self.pools().next().is_some() {
            table.renumber(|mount| self.of(mount));
        }
    }

    /// All numbers that stand for another one, with that.
    pub(crate) fn renumbered(&self) -> HashMap<DeviceNumber, DeviceNumber> {
        let numbers = |pool: &Pool| {
            let first = pool.first;
            let numbers: Vec<_> = pool.by_number.keys().copied().collect();
            numbers.into_iter().map(move |number| (number, first))
        };
        self.pools().flat_map(numbers).collect()
    }

    /// Those that are known under several numbers.
    fn pools(&self) -> impl Iterator<Item = &Pool> {
        let pools = self.by_source.values();
        pools.filter(|pool| !pool.is_plain && pool.by_number.len() > 1)
    }
}

impl Pool {
    fn new(first: DeviceNumber) -> Self {
        Self {
            first,
            by_number: HashMap::new(),
            by_subvolume: HashMap::new(),
            is_plain: false,
        }
    }

    fn add(&mut self, mount: &Mount<'_>) {
        if self.is_plain {
            return;
        }
        let Some(subvolume) = subvolume(mount) else {
            self.is_plain = true;
            return;
        };
        let known = self.by_number.insert(mount.dev, subvolume);
        let number = self.by_subvolume.insert(subvolume, mount.dev);
        self.is_plain = known.is_some_and(|known| known != subvolume)
            || number.is_some_and(|number| number != mount.dev);
        if self.is_plain {
            // Nothing more is asked of them.
            self.by_number = HashMap::new();
            self.by_subvolume = HashMap::new();
        }
    }

    /// Whether a mount with the same source is of this superblock.
    fn has(&self, mount: &Mount<'_>) -> bool {
        if self.is_plain {
            return mount.dev == self.first;
        }
        let Some(subvolume) = subvolume(mount) else {
            return mount.dev == self.first;
        };
        let same_number = |known: &u64| *known == subvolume;
        match self.by_number.get(&mount.dev) {
            Some(known) => same_number(known),
            // A subvolume that was not mounted then; one that was has not changed its number.
            None => !self.by_subvolume.contains_key(&subvolume),
        }
    }
}

fn is_btrfs(mount: &Mount<'_>) -> bool {
    mount.dev.is_anonymous() && mount.fstype == "btrfs" && !mount.source.is_empty()
}

/// Shown since Linux 4.2.
fn subvolume(mount: &Mount<'_>) -> Option<u64> {
    mount.super_option("subvolid")?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystems::mountinfo::parse;

    fn table(lines: &[(u32, &str, u64)]) -> MountTable {
        let line = |(index, (number, source, subvolume)): (usize, &(u32, &str, u64))| {
            format!(
                "{} 1 0:{number} /@/{subvolume} /m{index} rw - btrfs {source} rw,space_cache=v2,subvolid={subvolume},subvol=/@/{subvolume}\n",
                index + 2
            )
        };
        parse(
            lines
                .iter()
                .enumerate()
                .map(line)
                .collect::<String>()
                .as_bytes(),
        )
        .unwrap()
    }

    fn numbers(tables: &[&[(u32, &str, u64)]]) -> Vec<Vec<u32>> {
        let mut tables: Vec<MountTable> = tables.iter().map(|lines| table(lines)).collect();
        let mut identities = Identities::default();
        tables.iter().for_each(|table| identities.note(table));
        tables.iter_mut().for_each(|table| identities.apply(table));
        let numbers = |table: &MountTable| table.iter().map(|mount| mount.dev.minor).collect();
        tables.iter().map(numbers).collect()
    }

    #[test]
    fn numbers_of_subvolumes_are_those_of_their_source() {
        assert_eq!(
            numbers(&[&[
                (39, "/dev/sda2", 264),
                (38, "/dev/sda2", 263),
                (38, "/dev/sda2", 263)
            ]]),
            [[39, 39, 39]]
        );
        assert_eq!(
            numbers(&[&[
                (39, "/dev/sda2", 264),
                (50, "/dev/sdb", 5),
                (51, "/dev/sdb", 256)
            ]]),
            [[39, 50, 50]]
        );
    }

    #[test]
    fn numbers_of_superblocks_are_left_as_they_are() {
        // Each number has all of the subvolumes: two file systems, the name of one being that which the other had.
        let mainline = [
            (40, "/dev/vg/a", 5),
            (40, "/dev/vg/a", 256),
            (41, "/dev/vg/a", 5),
        ];
        assert_eq!(numbers(&[&mainline]), [[40, 40, 41]]);
        let same_subvolume = [(40, "/dev/vg/a", 5), (41, "/dev/vg/a", 5)];
        assert_eq!(numbers(&[&same_subvolume]), [[40, 41]]);
    }

    #[test]
    fn another_namespace_has_the_number_of_ours() {
        let ours = [(39, "/dev/sda2", 264)];
        let theirs = [(30, "/dev/sda2", 300), (31, "/dev/sda2", 301)];
        assert_eq!(numbers(&[&ours, &theirs]), [vec![39], vec![39, 39]]);
    }

    #[test]
    fn a_table_that_is_read_later_may_have_more_subvolumes_but_not_other_numbers() {
        let mut identities = Identities::default();
        identities.note(&table(&[(39, "/dev/sda2", 264), (40, "/dev/sda2", 263)]));
        let later = table(&[
            (77, "/dev/sda2", 900),
            (78, "/dev/sda2", 263),
            (79, "/dev/sdq", 5),
        ]);
        let of: Vec<u32> = later
            .iter()
            .map(|mount| identities.of(&mount).minor)
            .collect();
        assert_eq!(of, [39, 78, 79]);
    }

    #[test]
    fn without_a_subvolume_in_the_options_nothing_is_guessed() {
        let mut text = String::new();
        for number in [40, 41] {
            text += &format!(
                "{number} 1 0:{number} / /m{number} rw - btrfs /dev/sda2 rw,space_cache\n"
            );
        }
        let mut table = parse(text.as_bytes()).unwrap();
        let mut identities = Identities::default();
        identities.note(&table);
        identities.apply(&mut table);
        assert_eq!(
            table
                .iter()
                .map(|mount| mount.dev.minor)
                .collect::<Vec<_>>(),
            [40, 41]
        );
    }
}
