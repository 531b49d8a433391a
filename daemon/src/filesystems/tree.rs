//! The mount table as a tree: which mounts a path look-up reaches, and on which one a path lies (`Documentation/filesystems/path-lookup.rst`). Pure.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::mountinfo::Mount;

/// Where mounts cover each other. Mounts are meant by their index in the table.
pub(crate) struct MountTree<'a> {
    mounts: &'a [Mount],
    /// By the parent's id and the mount point.
    children: HashMap<(u64, &'a [u8]), Vec<usize>>,
    hidden: Vec<bool>,
    through_server: Vec<bool>,
    /// By mount point: the mount that look-ups reach first, then the one mounted last.
    at: HashMap<&'a [u8], Vec<usize>>,
}

impl<'a> MountTree<'a> {
    /// Linear in the number of mounts, times the depth of their paths. `may_block` tells the mounts on which a look-up could wait for ever.
    pub(crate) fn new(mounts: &'a [Mount], may_block: impl Fn(&Mount) -> bool) -> Self {
        let mut tree = Self {
            mounts,
            children: HashMap::with_capacity(mounts.len()),
            hidden: Vec::new(),
            through_server: Vec::new(),
            at: HashMap::with_capacity(mounts.len()),
        };
        for (index, mount) in mounts.iter().enumerate() {
            let point = bytes(&mount.mount_point);
            // The first root of all, that of an initial RAM file system, is its own parent.
            if mount.parent != mount.id {
                tree.children
                    .entry((mount.parent, point))
                    .or_default()
                    .push(index);
            }
            tree.at.entry(point).or_default().push(index);
        }
        let parents = tree.parents();
        tree.hidden = tree.find_hidden(&parents);
        tree.through_server = tree.find_through_server(&parents, may_block);
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

    /// Whether looking up this mount's path could wait for a server, a process or an automount.
    pub(crate) fn is_through_server(&self, index: usize) -> bool {
        is_set(&self.through_server, index)
    }

    /// Whether this mount can be opened by its path, and without waiting for anybody.
    pub(crate) fn is_open(&self, index: usize) -> bool {
        !self.is_hidden(index) && !self.is_through_server(index)
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

    /// The parent of each mount, where it is in the table.
    fn parents(&self) -> Vec<Option<usize>> {
        let by_id: HashMap<u64, usize> = self
            .mounts
            .iter()
            .enumerate()
            .map(|(index, mount)| (mount.id, index))
            .collect();
        self.mounts
            .iter()
            .enumerate()
            .map(|(index, mount)| {
                let parent = by_id.get(&mount.parent)?;
                (*parent != index).then_some(*parent)
            })
            .collect()
    }

    fn find_hidden(&self, parents: &[Option<usize>]) -> Vec<bool> {
        let passed_by = climb(parents, |index, parent| self.is_passed_by(index, parent));
        passed_by
            .into_iter()
            .enumerate()
            .map(|(index, passed_by)| passed_by || self.is_covered(index))
            .collect()
    }

    /// Whether the look-up of each mount's path comes over a mount that may block, be it on its way or at its end.
    fn find_through_server(
        &self,
        parents: &[Option<usize>],
        may_block: impl Fn(&Mount) -> bool,
    ) -> Vec<bool> {
        let blocks: Vec<bool> = self.mounts.iter().map(may_block).collect();
        let server_points: HashSet<&[u8]> = self
            .mounts
            .iter()
            .zip(&blocks)
            .filter(|(_, blocks)| **blocks)
            .map(|(mount, _)| bytes(&mount.mount_point))
            .collect();
        if server_points.is_empty() {
            return vec![false; self.mounts.len()];
        }
        let below = climb(parents, |_, parent| {
            parent.is_some_and(|parent| is_set(&blocks, parent))
        });
        // The path of a hidden mount leads over those that hide it.
        let misled = |index: usize, mount: &Mount| {
            self.is_hidden(index)
                && ancestors(bytes(&mount.mount_point)).any(|point| server_points.contains(point))
        };
        self.mounts
            .iter()
            .zip(below)
            .enumerate()
            .map(|(index, (mount, below))| below || misled(index, mount))
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

/// For each mount, whether `holds` for it or for any of those it lies on. A chain of parents is climbed once; a circle, which no kernel writes, ends where it closes.
fn climb(parents: &[Option<usize>], holds: impl Fn(usize, Option<usize>) -> bool) -> Vec<bool> {
    let parent = |index: usize| parents.get(index).copied().flatten();
    let mut known: Vec<Option<bool>> = vec![None; parents.len()];
    for start in 0..parents.len() {
        let mut chain = Vec::new();
        let mut next = Some(start);
        while let Some(index) = next.filter(|index| known.get(*index) == Some(&None)) {
            if let Some(state) = known.get_mut(index) {
                *state = Some(false);
            }
            chain.push(index);
            next = parent(index);
        }
        let mut held = next.is_some_and(|index| known.get(index) == Some(&Some(true)));
        for index in chain.into_iter().rev() {
            held = held || holds(index, parent(index));
            if let Some(state) = known.get_mut(index) {
                *state = Some(held);
            }
        }
    }
    known.into_iter().map(|held| held == Some(true)).collect()
}

fn is_set(flags: &[bool], index: usize) -> bool {
    flags.get(index).copied().unwrap_or(false)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// `/a/b`, `/a`, `/`.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
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
#[path = "tree_tests.rs"]
mod tests;
