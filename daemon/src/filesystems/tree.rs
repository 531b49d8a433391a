//! The mount table as a tree: which mounts a path look-up reaches, and on which one a path lies (`Documentation/filesystems/path-lookup.rst`). Pure.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::mountinfo::Mount;

/// Where mounts cover each other. Mounts are meant by their index in the table.
pub(crate) struct MountTree<'a> {
    mounts: &'a [Mount],
    /// By the parent's id and the mount point.
    children: HashMap<(u64, &'a [u8]), Vec<usize>>,
    hidden: Vec<bool>,
    /// By mount point: the mount that look-ups reach first, then the one mounted last.
    at: HashMap<&'a [u8], Vec<usize>>,
}

impl<'a> MountTree<'a> {
    /// Linear in the number of mounts, times the depth of their paths.
    pub(crate) fn new(mounts: &'a [Mount]) -> Self {
        let mut tree = Self {
            mounts,
            children: HashMap::with_capacity(mounts.len()),
            hidden: Vec::new(),
            at: HashMap::with_capacity(mounts.len()),
        };
        for (index, mount) in mounts.iter().enumerate() {
            let point = bytes(&mount.mount_point);
            tree.children
                .entry((mount.parent, point))
                .or_default()
                .push(index);
            tree.at.entry(point).or_default().push(index);
        }
        tree.hidden = tree.find_hidden();
        let hidden = &tree.hidden;
        for stacked in tree.at.values_mut() {
            stacked.sort_by_key(|index| (is_set(hidden, *index), std::cmp::Reverse(*index)));
        }
        tree
    }

    /// Whether another mount covers this one, so that its path leads elsewhere.
    pub(crate) fn is_hidden(&self, index: usize) -> bool {
        is_set(&self.hidden, index)
    }

    /// The mounts on which a file of this path may lie: first the one that a look-up reaches, then, as a mount may have come over the file since it was
    /// opened, all others above it, nearest first.
    pub(crate) fn holders(&self, path: &Path) -> Vec<usize> {
        let above: Vec<usize> = ancestors(bytes(path))
            .filter_map(|point| self.at.get(point))
            .flatten()
            .copied()
            .collect();
        let reached = above.iter().copied().find(|index| !self.is_hidden(*index));
        let others = above
            .iter()
            .copied()
            .filter(|index| Some(*index) != reached);
        reached.into_iter().chain(others).collect()
    }

    fn find_hidden(&self) -> Vec<bool> {
        let by_id: HashMap<u64, usize> = self
            .mounts
            .iter()
            .enumerate()
            .map(|(index, mount)| (mount.id, index))
            .collect();
        let parent = |index: usize| {
            let parent = by_id.get(&self.mounts.get(index)?.parent)?;
            (*parent != index).then_some(*parent)
        };
        // None: not known yet. A chain of parents is climbed once; a circle, which no kernel writes, ends where it closes.
        let mut reached: Vec<Option<bool>> = vec![None; self.mounts.len()];
        for start in 0..self.mounts.len() {
            let mut chain = Vec::new();
            let mut next = Some(start);
            while let Some(index) = next.filter(|index| reached.get(*index) == Some(&None)) {
                if let Some(state) = reached.get_mut(index) {
                    *state = Some(true);
                }
                chain.push(index);
                next = parent(index);
            }
            let mut ok = next.is_none_or(|index| reached.get(index) != Some(&Some(false)));
            for index in chain.into_iter().rev() {
                ok = ok && !self.is_passed_by(index, parent(index));
                if let Some(state) = reached.get_mut(index) {
                    *state = Some(ok);
                }
            }
        }
        reached
            .into_iter()
            .enumerate()
            .map(|(index, reached)| reached == Some(false) || self.is_covered(index))
            .collect()
    }

    /// Whether something is mounted right on this mount's root.
    fn is_covered(&self, index: usize) -> bool {
        let Some(mount) = self.mounts.get(index) else {
            return false;
        };
        self.children
            .get(&(mount.id, bytes(&mount.mount_point)))
            .is_some_and(|on_top| on_top.iter().any(|other| *other != index))
    }

    /// Whether a look-up leaves the parent on another of its children before it comes to this one.
    fn is_passed_by(&self, index: usize, parent: Option<usize>) -> bool {
        let Some(mount) = self.mounts.get(index) else {
            return false;
        };
        let point = bytes(&mount.mount_point);
        let top = parent
            .and_then(|parent| self.mounts.get(parent))
            .map_or(&b"/"[..], |parent| bytes(&parent.mount_point));
        ancestors(point)
            .take_while(|ancestor| ancestor.len() >= top.len())
            .filter_map(|ancestor| {
                self.children
                    .get(&(mount.parent, ancestor))
                    .map(|found| (ancestor, found))
            })
            .any(|(ancestor, siblings)| match ancestor.len() == point.len() {
                true => siblings.last().is_some_and(|last| *last > index),
                false => siblings.iter().any(|other| *other != index),
            })
    }
}

fn is_set(flags: &[bool], index: usize) -> bool {
    flags.get(index).copied().unwrap_or(false)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// `/a/b`, `/a`, `/`.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |path| {
        if path.len() <= 1 {
            return None;
        }
        match path.iter().rposition(|byte| *byte == b'/')? {
            0 => path.get(..1),
            end => path.get(..end),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystems::mountinfo::parse;

    const NONE: [u64; 0] = [];

    fn table(mounts: &[(u64, u64, &str)]) -> Vec<Mount> {
        let lines: String = mounts
            .iter()
            .map(|(id, parent, point)| {
                format!("{id} {parent} 8:{id} / {point} rw - ext4 /dev/sda{id} rw\n")
            })
            .collect();
        parse(lines.as_bytes()).unwrap()
    }

    fn hidden(mounts: &[(u64, u64, &str)]) -> Vec<u64> {
        let mounts = table(mounts);
        let tree = MountTree::new(&mounts);
        (0..mounts.len())
            .filter(|index| tree.is_hidden(*index))
            .map(|index| mounts[index].id)
            .collect()
    }

    #[test]
    fn a_plain_tree_hides_nothing() {
        assert_eq!(
            hidden(&[(1, 0, "/"), (2, 1, "/a"), (3, 2, "/a/b"), (4, 1, "/ab")]),
            NONE
        );
    }

    #[test]
    fn a_mount_over_a_mount_hides_it_and_what_is_on_it() {
        assert_eq!(
            hidden(&[(1, 0, "/"), (2, 1, "/a"), (3, 2, "/a/b"), (4, 2, "/a")]),
            [2, 3]
        );
    }

    #[test]
    fn a_mount_over_a_parent_directory_hides() {
        assert_eq!(
            hidden(&[(1, 0, "/"), (2, 1, "/a/b"), (3, 2, "/a/b/c"), (4, 1, "/a")]),
            [2, 3]
        );
    }

    #[test]
    fn what_is_mounted_in_the_covering_mount_is_seen() {
        assert_eq!(
            hidden(&[(1, 0, "/"), (2, 1, "/a/b"), (3, 1, "/a"), (4, 3, "/a/b")]),
            [2]
        );
    }

    #[test]
    fn a_root_over_the_root_hides_all_beneath() {
        assert_eq!(
            hidden(&[(1, 0, "/"), (2, 1, "/a"), (3, 1, "/"), (4, 3, "/a")]),
            [1, 2]
        );
    }

    #[test]
    fn the_order_of_the_table_and_circles_do_not_matter() {
        assert_eq!(
            hidden(&[(3, 2, "/a/b"), (4, 2, "/a"), (2, 1, "/a"), (1, 0, "/")]),
            [3, 2]
        );
        assert_eq!(hidden(&[(1, 2, "/a"), (2, 1, "/b"), (3, 3, "/c")]), NONE);
    }

    #[test]
    fn a_path_lies_on_the_mount_that_a_look_up_reaches() {
        let mounts = table(&[(1, 0, "/"), (2, 1, "/a"), (3, 2, "/a"), (4, 1, "/ab")]);
        let tree = MountTree::new(&mounts);
        let holders = |path: &str| -> Vec<u64> {
            tree.holders(Path::new(path))
                .into_iter()
                .map(|index| mounts[index].id)
                .collect()
        };
        assert_eq!(holders("/a/file"), [3, 2, 1]);
        assert_eq!(holders("/ab"), [4, 1]);
        assert_eq!(holders("/abc"), [1]);
        assert_eq!(holders("relative"), NONE);
    }

    #[test]
    fn ten_thousand_stacked_mounts_take_linear_time() {
        let mounts: Vec<_> = (1..=10_000).map(|id| (id, id - 1, "/a")).collect();
        let start = std::time::Instant::now();
        assert_eq!(hidden(&mounts).len(), 9_999);
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }
}
