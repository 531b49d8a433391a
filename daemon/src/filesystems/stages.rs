//! In which order superblocks are frozen: what a file system stands on comes after it. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::stacking::Stacking;

/// Groups that follow each other whatever stacking says; within one, stacking decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// Nothing is frozen yet that it could wait for: should its freeze not return, it holds up no other.
    Unknown,
    Served,
    /// Unknown as well, but a served one stands on it.
    UnknownBelowServed,
    Local,
    Root,
    BelowRoot,
}

impl Stacking<'_> {
    /// The stages, in the order of freezing, as few as the rules allow. Within a stage in the order of the nodes.
    pub(crate) fn stages(&self, root: Option<usize>) -> Vec<Vec<usize>> {
        let groups = self.groups(root);
        let mut heights = vec![0_usize; self.nodes.len()];
        let mut stages: BTreeMap<(Group, Reverse<usize>), Vec<usize>> = BTreeMap::new();
        for index in &self.upwards {
            let (Some(facts), Some(node), Some(group)) = (
                self.facts.get(*index),
                self.nodes.get(*index),
                groups.get(*index),
            ) else {
                continue;
            };
            // As late as possible: a writer waits from its own stage on.
            let below = facts
                .on
                .iter()
                .chain(&facts.maybe_on)
                .filter(|below| groups.get(**below) == Some(group))
                .filter_map(|below| heights.get(*below).copied())
                .max()
                .unwrap_or(0);
            let height = below + usize::from(node.staged);
            if let Some(own) = heights.get_mut(*index) {
                *own = height;
            }
            if node.staged {
                stages
                    .entry((*group, Reverse(height)))
                    .or_default()
                    .push(*index);
            }
        }
        stages
            .into_values()
            .map(|mut stage| {
                stage.sort_unstable();
                stage
            })
            .collect()
    }

    /// What holds the files of a served one is frozen after it.
    fn move_behind_served(&self, groups: &mut [Group]) {
        let mut beneath = vec![false; groups.len()];
        // From above to below.
        for index in self.upwards.iter().rev() {
            let is_beneath = beneath.get(*index).copied().unwrap_or(false);
            let Some(group) = groups.get_mut(*index) else {
                continue;
            };
            if is_beneath && *group == Group::Unknown {
                *group = Group::UnknownBelowServed;
            }
            if !is_beneath && *group != Group::Served {
                continue;
            }
            if let Some(facts) = self.facts.get(*index) {
                for below in facts.on.iter().chain(&facts.maybe_on) {
                    if let Some(beneath) = beneath.get_mut(*below) {
                        *beneath = true;
                    }
                }
            }
        }
    }

    fn groups(&self, root: Option<usize>) -> Vec<Group> {
        let mut groups: Vec<Group> = self
            .facts
            .iter()
            .map(
                |facts| match (facts.served, facts.unknown || facts.maybe_served) {
                    (Some(_), _) => Group::Served,
                    (None, true) => Group::Unknown,
                    (None, false) => Group::Local,
                },
            )
            .collect();
        self.move_behind_served(&mut groups);
        let Some(root) = root.filter(|root| self.nodes.get(*root).is_some_and(|node| node.staged))
        else {
            return groups;
        };
        let below_root: Vec<usize> = self
            .below(root)
            .into_iter()
            .filter(|index| *index != root)
            .collect();
        let holds_root = below_root
            .iter()
            .any(|index| self.nodes.get(*index).is_some_and(|node| node.staged));
        // A served root whose image is on another file system here goes with the served ones, and what holds it with it.
        if holds_root && groups.get(root) == Some(&Group::Served) {
            return groups;
        }
        for index in below_root {
            if let Some(group) = groups.get_mut(index) {
                *group = Group::BelowRoot;
            }
        }
        if let Some(group) = groups.get_mut(root) {
            *group = Group::Root;
        }
        groups
    }
}
