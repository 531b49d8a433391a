//! The mount table as a tree: which mounts a path look-up reaches, and on which one a path lies (`Documentation/filesystems/path-lookup.rst`). Pure.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hashbrown::HashSet;

use super::mount_table::MountTable;
use super::mountinfo::Mount;
use super::shape::Shape;

/// Where mounts cover each other, and which are reached through a server. Mounts are meant by their index in the table.
pub(crate) struct MountTree<'a> {
    table: &'a MountTable,
    shape: &'a Shape,
    /// Empty if there is no server.
    through_server: Vec<bool>,
}

impl<'a> MountTree<'a> {
    /// Linear in the number of mounts, times the depth of their paths. `may_block` tells the mounts on which a look-up could wait for ever.
    pub(crate) fn new(table: &'a MountTable, may_block: impl Fn(usize) -> bool) -> Self {
        let mut tree = Self {
            table,
            shape: table.shape(),
            through_server: Vec::new(),
        };
        tree.through_server = tree.find_through_server(may_block);
        tree
    }

    /// Whether another mount covers this one, so that its path leads elsewhere.
    pub(crate) fn is_hidden(&self, index: usize) -> bool {
        self.shape.is_hidden(index)
    }

    /// Whether looking up this mount's path could wait for a server, a process or an automount.
    pub(crate) fn is_through_server(&self, index: usize) -> bool {
        self.through_server.get(index).copied().unwrap_or(false)
    }

    /// Whether this mount can be opened by its path, and without waiting for anybody.
    pub(crate) fn is_open(&self, index: usize) -> bool {
        !self.is_hidden(index) && !self.is_through_server(index)
    }

    /// The mounts on which a file of this path may lie: first the one that a look-up reaches, then, as a mount may have come over the file since it was
    /// opened, all others above it, nearest first.
    pub(crate) fn holders(&self, path: &Path) -> Vec<usize> {
        let mut above = Vec::new();
        for point in ancestors(bytes(path)) {
            let at = || self.shape.mounts_at(self.table, point);
            above.extend(at().filter(|index| !self.is_hidden(*index)));
            above.extend(at().filter(|index| self.is_hidden(*index)));
        }
        let reached = above.iter().position(|index| !self.is_hidden(*index));
        if let Some(head) = reached.and_then(|reached| above.get_mut(..=reached)) {
            head.rotate_right(1);
        }
        above
    }

    /// Whether the look-up of each mount's path comes over a mount that may block, be it on its way or at its end.
    fn find_through_server(&self, may_block: impl Fn(usize) -> bool) -> Vec<bool> {
        let blocks: Vec<bool> = (0..self.table.len()).map(may_block).collect();
        if !blocks.contains(&true) {
            return Vec::new();
        }
        let server_points: HashSet<&[u8]> = self
            .table
            .iter()
            .zip(&blocks)
            .filter(|(_, blocks)| **blocks)
            .map(|(mount, _)| bytes(mount.mount_point))
            .collect();
        let below = self.shape.climb(|_, parent| {
            parent.is_some_and(|parent| blocks.get(parent).copied().unwrap_or(false))
        });
        // The path of a hidden mount leads over those that hide it.
        let misled = |index: usize, mount: Mount<'_>| {
            self.is_hidden(index)
                && ancestors(bytes(mount.mount_point)).any(|point| server_points.contains(point))
        };
        self.table
            .iter()
            .zip(below)
            .enumerate()
            .map(|(index, (mount, below))| below || misled(index, mount))
            .collect()
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// `/a/b`, `/a`, `/`.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |path| directory(path))
}

/// `/a` of `/a/b`, `/` of `/a`, nothing of `/`.
pub(super) fn directory(path: &[u8]) -> Option<&[u8]> {
    if path.len() <= 1 {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/')? {
        0 => path.get(..1),
        end => path.get(..end),
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
