//! What each superblock stands on, through block devices, images and layers, however deep. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::device::DeviceNumber;
use super::kinds::Kind;
use super::scan::Scan;
use super::served::ServedBy;
use super::tree::MountTree;

/// A superblock as the ordering sees it. Superblocks are meant by their index.
pub(crate) struct Node<'a> {
    pub(crate) dev: DeviceNumber,
    pub(crate) kind: Kind,
    /// Whether it is to be frozen; the others only pass the order on.
    pub(crate) staged: bool,
    /// The directory whose file system its files are on, for a layered one: `None` where it is not told.
    pub(crate) layer: Option<&'a Path>,
    /// No mount table shows it: no path tells which files are on it.
    pub(crate) out_of_sight: bool,
}

/// What was found out about a superblock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The superblocks that hold its files, directly.
    pub(crate) on: Vec<usize>,
    /// The server its blocks come from, at whatever depth.
    pub(crate) served: Option<ServedBy>,
    /// Something beneath it, at whatever depth, could not be found out.
    pub(crate) unknown: bool,
    /// Superblocks that may hold its files, should a mount have come over them since.
    pub(super) maybe_on: Vec<usize>,
    /// Superblocks that may hold its files, should these be meant as another mount namespace sees them.
    elsewhere: Vec<usize>,
    /// What its files may be on in another namespace is served, at whatever depth.
    pub(super) maybe_served: bool,
}

/// What every superblock stands on, without circles.
pub(crate) struct Stacking<'a> {
    pub(super) nodes: &'a [Node<'a>],
    pub(super) facts: Vec<Facts>,
    /// All superblocks, each after those it stands on.
    pub(super) upwards: Vec<usize>,
}

impl<'a> Stacking<'a> {
    pub(crate) fn new(scan: &'a Scan, nodes: &'a [Node<'a>], tree: &MountTree<'_>) -> Self {
        let index: BTreeMap<DeviceNumber, usize> = nodes
            .iter()
            .enumerate()
            .map(|(i, node)| (node.dev, i))
            .collect();
        let mut stacking = Self {
            nodes,
            facts: vec![Facts::default(); nodes.len()],
            upwards: Vec::new(),
        };
        let mut possible = Vec::new();
        let mut guessed: Vec<(usize, Vec<usize>)> = Vec::new();
        for (from, node) in nodes.iter().enumerate() {
            let (files, facts) = beneath(scan, node);
            if let Some(own) = stacking.facts.get_mut(from) {
                *own = facts;
            }
            for (file, on) in files {
                // By number, where the kernel tells; a path may mean another file by now, or here.
                if let Some(holder) = on.and_then(|dev| index.get(&dev).copied()) {
                    possible.push((from, vec![holder]));
                    continue;
                }
                // The file may lie in a namespace that could not be looked into.
                if let Some(own) = stacking.facts.get_mut(from) {
                    own.unknown |= scan.has_unseen() && !is_layered(node);
                }
                let mut holders: Vec<usize> = tree
                    .holders(file)
                    .into_iter()
                    .filter_map(|mount| index.get(&scan.mounts.get(mount)?.dev).copied())
                    .collect();
                let mut seen = BTreeSet::new();
                holders.retain(|holder| seen.insert(*holder));
                possible.push((from, holders));
                let others = elsewhere(scan, file).filter_map(|dev| index.get(dev).copied());
                // An image on a mount that was taken away lazily has a path that leads elsewhere now.
                let unseen = nodes.iter().enumerate();
                let unseen = unseen.filter(|(other, node)| node.out_of_sight && *other != from);
                let others = others.chain(unseen.map(|(other, _)| other));
                guessed.push((from, others.filter(|other| seen.insert(*other)).collect()));
            }
        }
        for (from, holders) in &possible {
            stacking.place(*from, holders);
        }
        // What certainly holds a file goes before what only may: a circle is then closed by a guess.
        for (from, holders) in &possible {
            stacking.place_maybe(*from, holders);
        }
        for (from, holders) in guessed {
            stacking.place_maybe(from, &holders);
            if let Some(facts) = stacking.facts.get_mut(from) {
                facts.elsewhere.extend(holders);
            }
        }
        stacking.upwards = stacking.sort();
        stacking.pass_upwards();
        stacking
    }

    /// A file lies on the first of its possible holders that does not close a circle.
    fn place(&mut self, from: usize, holders: &[usize]) {
        let holder = holders
            .iter()
            .copied()
            .find(|holder| !self.below(*holder).contains(&from));
        let Some(facts) = self.facts.get_mut(from) else {
            return;
        };
        match holder {
            Some(holder) if facts.on.contains(&holder) => {}
            Some(holder) => facts.on.push(holder),
            None => facts.unknown = true,
        }
    }

    fn place_maybe(&mut self, from: usize, holders: &[usize]) {
        for holder in holders {
            let known = self
                .facts
                .get(from)
                .is_none_or(|facts| facts.on.contains(holder) || facts.maybe_on.contains(holder));
            if !known && !self.below(*holder).contains(&from) {
                if let Some(facts) = self.facts.get_mut(from) {
                    facts.maybe_on.push(*holder);
                }
            }
        }
    }

    /// `start` and everything it stands on, or may stand on.
    pub(super) fn below(&self, start: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::from([start]);
        let mut todo = vec![start];
        while let Some(facts) = todo.pop().and_then(|index| self.facts.get(index)) {
            todo.extend(
                facts
                    .on
                    .iter()
                    .chain(&facts.maybe_on)
                    .copied()
                    .filter(|next| seen.insert(*next)),
            );
        }
        seen
    }

    /// Depth first, without recursion: a chain may be as long as the mount table.
    fn sort(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.facts.len());
        let mut entered = vec![false; self.facts.len()];
        for start in 0..self.facts.len() {
            let mut todo = vec![(start, false)];
            while let Some((index, done)) = todo.pop() {
                if done {
                    order.push(index);
                    continue;
                }
                let (Some(facts), Some(entered)) = (self.facts.get(index), entered.get_mut(index))
                else {
                    continue;
                };
                if std::mem::replace(entered, true) {
                    continue;
                }
                todo.push((index, true));
                todo.extend(
                    facts
                        .on
                        .iter()
                        .chain(&facts.maybe_on)
                        .map(|below| (*below, false)),
                );
            }
        }
        order
    }

    /// Whether a file on this superblock comes from a server, or may do so.
    fn is_served(&self, index: usize) -> bool {
        let serves = |node: &Node<'_>| matches!(node.kind, Kind::Fuse | Kind::Remote);
        self.nodes.get(index).is_some_and(serves)
            || self
                .facts
                .get(index)
                .is_some_and(|facts| facts.served.is_some() || facts.maybe_served)
    }

    /// Whoever stands on something served, or unknown, is so too.
    fn pass_upwards(&mut self) {
        for index in &self.upwards {
            let Some(own) = self.facts.get(*index) else {
                continue;
            };
            let (mut served, mut unknown) = (own.served, own.unknown);
            let mut maybe_served = own.elsewhere.iter().any(|below| self.is_served(*below));
            for below in &own.on {
                let (Some(facts), Some(node)) = (self.facts.get(*below), self.nodes.get(*below))
                else {
                    continue;
                };
                served = served.or(match node.kind {
                    Kind::Fuse => Some(ServedBy::FuseFile),
                    Kind::Remote => Some(ServedBy::RemoteFile),
                    _ => facts.served,
                });
                unknown |= facts.unknown;
                maybe_served |= facts.maybe_served;
            }
            if let Some(own) = self.facts.get_mut(*index) {
                (own.served, own.unknown, own.maybe_served) = (served, unknown, maybe_served);
            }
        }
    }
}

/// The superblocks that other namespaces, and not ours, have mounted above `file`.
fn elsewhere<'a>(scan: &'a Scan, file: &'a Path) -> impl Iterator<Item = &'a DeviceNumber> {
    file.ancestors()
        .filter_map(|point| scan.elsewhere.get(point))
        .flatten()
}

fn is_layered(node: &Node<'_>) -> bool {
    matches!(node.kind, Kind::Layered(_))
}

/// A file, and the number of its file system where it is told.
type Held<'a> = (&'a Path, Option<DeviceNumber>);

/// The files that a superblock stands on, through all of its block devices, and what these tell about it.
fn beneath<'a>(scan: &'a Scan, node: &Node<'a>) -> (Vec<Held<'a>>, Facts) {
    let mut facts = Facts::default();
    match node.kind {
        Kind::Layered(_) => {
            let layer = node.layer.filter(|layer| layer.is_absolute());
            facts.unknown = layer.is_none();
            return (
                layer.into_iter().map(|layer| (layer, None)).collect(),
                facts,
            );
        }
        Kind::Remote | Kind::Fuse | Kind::Pseudo => return (Vec::new(), facts),
        Kind::CannotFreeze | Kind::Freezable => {}
    }
    let members = scan.members.get(&node.dev).map_or(&[][..], Vec::as_slice);
    facts.unknown = members.is_empty();
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo: Vec<DeviceNumber> = members.to_vec();
    while let Some(dev) = todo.pop() {
        if !seen.insert(dev) {
            continue;
        }
        let Some(device) = scan.devices.get(&dev) else {
            facts.unknown = true;
            continue;
        };
        facts.served = facts.served.or(device.served);
        facts.unknown |= device.incomplete;
        let file = device.backing_file.as_deref();
        files.extend(file.map(|file| (file, device.backing_on)));
        todo.extend(&device.below);
    }
    (files, facts)
}
