//! The shape of a mount table: the directories on the way to its mounts, which mounts stand where, and which of them another one hides. Pure.

use hashbrown::hash_table::{Entry, HashTable};
use hashbrown::{DefaultHashBuilder, HashMap};
use std::hash::BuildHasher;

use super::mount_table::{Line, MountTable, Span};

/// No mount, or no directory.
const NONE: u32 = u32::MAX;

/// Every mount point with all directories above it. Mounts are meant by their index in the table.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    nodes: Vec<Node>,
    /// The nodes by their paths.
    by_path: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// For each mount its node.
    node_of: Vec<u32>,
    /// For each mount the one before it in the table that has the same mount point.
    previous: Vec<u32>,
    /// For each mount the one it lies on.
    parents: Vec<u32>,
    hidden: Vec<bool>,
}

/// A mount point or a directory above one.
#[derive(Debug, Clone, Copy)]
struct Node {
    path: Span,
    /// The node above.
    above: u32,
    /// The last mount of the table that is mounted here.
    last: u32,
}

impl Shape {
    /// Linear in the number of mounts, times the depth of their paths.
    pub(super) fn of(table: &MountTable) -> Self {
        let mut shape = Self::default();
        shape.place_all(table);
        shape.find_parents(table.lines());
        shape.find_hidden(table.lines());
        shape
    }

    /// Whether another mount covers this one, so that its path leads elsewhere.
    pub(super) fn is_hidden(&self, index: usize) -> bool {
        self.hidden.get(index).copied().unwrap_or(false)
    }

    /// The mounts at exactly this path, the last of the table first.
    pub(super) fn mounts_at<'a>(
        &'a self,
        table: &MountTable,
        path: &[u8],
    ) -> impl Iterator<Item = usize> + 'a {
        let node = self
            .by_path
            .find(self.hasher.hash_one(path), |node| {
                self.path(table, *node) == path
            })
            .copied()
            .unwrap_or(NONE);
        let first = some(self.node(node).last);
        std::iter::successors(first, |index| self.previous_of(*index))
    }

    /// For each mount, whether `holds` for it or for any of those it lies on. A chain of parents is climbed once; a circle, which no kernel writes, ends where
    /// it closes.
    pub(super) fn climb(&self, holds: impl Fn(usize, Option<usize>) -> bool) -> Vec<bool> {
        let parent = |index: usize| self.parents.get(index).copied().and_then(some);
        let mut known: Vec<Option<bool>> = vec![None; self.parents.len()];
        let mut chain = Vec::new();
        for start in 0..self.parents.len() {
            let mut next = Some(start);
            while let Some(index) = next.filter(|index| known.get(*index) == Some(&None)) {
                if let Some(state) = known.get_mut(index) {
                    *state = Some(false);
                }
                chain.push(index);
                next = parent(index);
            }
            let mut held = next.is_some_and(|index| known.get(index) == Some(&Some(true)));
            for index in chain.drain(..).rev() {
                held = held || holds(index, parent(index));
                if let Some(state) = known.get_mut(index) {
                    *state = Some(held);
                }
            }
        }
        known.into_iter().map(|held| held == Some(true)).collect()
    }

    fn place_all(&mut self, table: &MountTable) {
        let count = table.len();
        let Self {
            hasher, by_path, ..
        } = self;
        let hasher = hasher.clone();
        by_path.reserve(count + count / 4, |_| 0);
        self.nodes.reserve(count + count / 4);
        // Neighbours in the table are mostly neighbours in the tree.
        let mut neighbour = (&b""[..], NONE);
        for (index, line) in table.lines().iter().enumerate() {
            let (node, mut new) = self.enter(table, &hasher, line.mount_point);
            self.node_of.push(node);
            let index = u32::try_from(index).unwrap_or(NONE);
            let before = self.nodes.get_mut(node as usize);
            let before = before.map(|node| std::mem::replace(&mut node.last, index));
            self.previous.push(before.unwrap_or(NONE));
            let mut lower = node;
            let mut path = line.mount_point;
            let mut first = true;
            while let Some(above) = directory(table, path).filter(|_| new) {
                let text = table.bytes(above);
                let upper;
                (upper, new) = match neighbour {
                    (known, node) if known == text => (node, false),
                    _ => self.enter(table, &hasher, above),
                };
                if let Some(node) = self.nodes.get_mut(lower as usize) {
                    node.above = upper;
                }
                if std::mem::take(&mut first) {
                    neighbour = (text, upper);
                }
                (lower, path) = (upper, above);
            }
        }
    }

    /// The node of a path, and whether it was made just now.
    fn enter(
        &mut self,
        table: &MountTable,
        hasher: &DefaultHashBuilder,
        path: Span,
    ) -> (u32, bool) {
        let text = table.bytes(path);
        let of = |nodes: &[Node], node: u32| {
            let node = nodes.get(node as usize);
            node.map_or(&b""[..], |node| table.bytes(node.path))
        };
        let Self { nodes, by_path, .. } = self;
        let entry = by_path.entry(
            hasher.hash_one(text),
            |node| of(nodes, *node) == text,
            |node| hasher.hash_one(of(nodes, *node)),
        );
        match entry {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(place) => {
                let node = u32::try_from(nodes.len()).unwrap_or(NONE);
                place.insert(node);
                nodes.push(Node {
                    path,
                    above: NONE,
                    last: NONE,
                });
                (node, true)
            }
        }
    }

    fn find_parents(&mut self, lines: &[Line]) {
        let mut by_id: HashMap<u64, u32> = HashMap::with_capacity(lines.len());
        by_id.extend((0..).zip(lines).map(|(index, line)| (line.id, index)));
        let mut last = (0, NONE);
        for (index, line) in (0..).zip(lines) {
            if last.1 == NONE || last.0 != line.parent {
                let parent = by_id.get(&line.parent).copied();
                last = (line.parent, parent.unwrap_or(NONE));
            }
            let parent = if last.1 == index { NONE } else { last.1 };
            self.parents.push(parent);
        }
    }

    fn find_hidden(&mut self, lines: &[Line]) {
        let children = Children::of(self, lines);
        let passed_by =
            self.climb(|index, parent| self.is_passed_by(lines, &children, index, parent));
        self.hidden = passed_by
            .into_iter()
            .zip(lines.iter().zip(&self.node_of))
            .map(|(passed_by, (line, node))| {
                passed_by || self.last_child(lines, &children, line.id, *node).is_some()
            })
            .collect();
    }

    /// Whether a look-up leaves the parent on another of its children before it comes to this one.
    fn is_passed_by(
        &self,
        lines: &[Line],
        children: &Children,
        index: usize,
        parent: Option<usize>,
    ) -> bool {
        let (Some(line), Some(own)) = (lines.get(index), self.node_of.get(index)) else {
            return false;
        };
        let top = parent
            .and_then(|parent| self.node_of.get(parent))
            .map_or(1, |node| self.node(*node).path.len());
        let child = |node| self.last_child(lines, children, line.parent, node);
        if child(*own).is_some_and(|last| last as usize > index) {
            return true;
        }
        let mut node = self.node(*own);
        while node.above != NONE {
            let above = node.above;
            node = self.node(above);
            if node.path.len() < top {
                return false;
            }
            if node.last != NONE && child(above).is_some() {
                return true;
            }
        }
        false
    }

    /// The last mount of the table that lies on the mount of this id, and at this node.
    fn last_child(&self, lines: &[Line], children: &Children, id: u64, node: u32) -> Option<u32> {
        let last = some(self.node(node).last)?;
        if self.previous_of(last).is_some() {
            return children.of_crowded.get(&(id, node)).copied();
        }
        let line = lines.get(last)?;
        (line.parent == id && line.id != id).then_some(self.node(node).last)
    }

    #[inline(always)]
    fn node(&self, node: u32) -> Node {
        self.nodes.get(node as usize).copied().unwrap_or(Node {
            path: Span::default(),
            above: NONE,
            last: NONE,
        })
    }

    fn path<'a>(&self, table: &'a MountTable, node: u32) -> &'a [u8] {
        table.bytes(self.node(node).path)
    }

    fn previous_of(&self, index: usize) -> Option<usize> {
        self.previous.get(index).copied().and_then(some)
    }
}

/// Where several mounts have the same mount point: the last one, by its parent's id and its node.
struct Children {
    of_crowded: HashMap<(u64, u32), u32>,
}

impl Children {
    fn of(shape: &Shape, lines: &[Line]) -> Self {
        let mut of_crowded = HashMap::new();
        if shape.previous.iter().any(|previous| *previous != NONE) {
            for (index, (line, node)) in (0..).zip(lines.iter().zip(&shape.node_of)) {
                let last = some(shape.node(*node).last);
                let is_crowded = last.and_then(|last| shape.previous_of(last)).is_some();
                // The first root of all, that of an initial RAM file system, is its own parent.
                if is_crowded && line.parent != line.id {
                    of_crowded.insert((line.parent, *node), index);
                }
            }
        }
        Self { of_crowded }
    }
}

fn some(index: u32) -> Option<usize> {
    (index != NONE).then_some(index as usize)
}

/// The directory that a path is in: `/a` of `/a/b`, `/` of `/a`, nothing of `/`.
fn directory(table: &MountTable, path: Span) -> Option<Span> {
    let above = super::tree::directory(table.bytes(path))?;
    let length = u32::try_from(above.len()).ok()?;
    Some(Span {
        start: path.start,
        end: path.start + length,
    })
}
