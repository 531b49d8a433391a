use super::*;
use crate::filesystems::mountinfo::parse;

const NONE: [u64; 0] = [];

fn table(mounts: &[(u64, u64, &str)]) -> MountTable {
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
    let tree = MountTree::new(&mounts, |_| false);
    (0..mounts.len())
        .filter(|index| tree.is_hidden(*index))
        .map(|index| mounts.get(index).unwrap().id)
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
fn a_root_that_is_its_own_parent_hides_nothing() {
    assert_eq!(hidden(&[(1, 1, "/"), (2, 1, "/a"), (3, 2, "/a/b")]), NONE);
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
    let tree = MountTree::new(&mounts, |_| false);
    let holders = |path: &str| -> Vec<u64> {
        tree.holders(Path::new(path))
            .into_iter()
            .map(|index| mounts.get(index).unwrap().id)
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

/// The mounts that are reached through a server, in a table where those of the ids in `servers` are one.
fn through(mounts: &[(u64, u64, &str)], servers: &[u64]) -> Vec<u64> {
    let mounts = table(mounts);
    let tree = MountTree::new(&mounts, |index| {
        servers.contains(&mounts.get(index).unwrap().id)
    });
    (0..mounts.len())
        .filter(|index| tree.is_through_server(*index))
        .map(|index| mounts.get(index).unwrap().id)
        .collect()
}

#[test]
fn whatever_lies_on_a_server_is_reached_through_it() {
    let mounts = [
        (1, 0, "/"),
        (2, 1, "/nfs"),
        (3, 2, "/nfs/a"),
        (4, 3, "/nfs/a/b"),
        (5, 1, "/nfs2"),
    ];
    assert_eq!(through(&mounts, &[2]), [3, 4]);
    assert_eq!(through(&mounts, &[1]), [2, 3, 4, 5]);
    assert_eq!(through(&mounts, &[]), NONE);
}

#[test]
fn the_path_of_a_mount_under_a_server_leads_to_the_server() {
    assert_eq!(
        through(&[(1, 0, "/"), (2, 1, "/a"), (3, 2, "/a")], &[3]),
        [2]
    );
    assert_eq!(
        through(&[(1, 0, "/"), (2, 1, "/a/b"), (3, 1, "/a")], &[3]),
        [2]
    );
    // An automount that was triggered: the disk lies on the autofs.
    assert_eq!(
        through(&[(1, 0, "/"), (2, 1, "/a"), (3, 2, "/a")], &[2]),
        [2, 3]
    );
}

/// The rules said once more, each mount against all others.
mod plain {
    use super::*;

    fn starts(point: &[u8], above: &[u8]) -> bool {
        ancestors(point).any(|ancestor| ancestor == above)
    }

    /// Whether something lies right on this mount's root.
    fn is_covered(table: &MountTable, index: usize) -> bool {
        let mount = table.get(index).unwrap();
        table.iter().any(|other| {
            other.parent == mount.id
                && other.id != mount.id
                && other.mount_point == mount.mount_point
        })
    }

    /// Whether a look-up leaves the parent on another of its children.
    fn passed_by(table: &MountTable, index: usize) -> bool {
        let mount = table.get(index).unwrap();
        let mut others = table.iter().enumerate();
        let point = bytes(mount.mount_point);
        let parent = (table.iter().enumerate()).rfind(|(_, other)| other.id == mount.parent);
        let top = parent
            .filter(|(place, _)| *place != index)
            .map_or(1, |(_, parent)| bytes(parent.mount_point).len());
        others.any(|(place, other)| {
            let at = bytes(other.mount_point);
            let is_child = other.parent == mount.parent && other.parent != other.id;
            is_child
                && (at == point && place > index
                    || at != point && at.len() >= top && starts(point, at))
        })
    }

    /// Parents come first here, so that there is no circle.
    pub(super) fn hidden(table: &MountTable) -> Vec<bool> {
        let mut on_the_way: Vec<bool> = Vec::new();
        for (index, mount) in table.iter().enumerate() {
            let parent = (table.iter().take(index)).position(|other| other.id == mount.parent);
            on_the_way
                .push(passed_by(table, index) || parent.is_some_and(|parent| on_the_way[parent]));
        }
        (0..table.len())
            .map(|index| on_the_way[index] || is_covered(table, index))
            .collect()
    }
}

proptest::proptest! {
    #[test]
    fn the_index_hides_what_the_rules_hide(
        mounts in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), "/|/[ab]|/[ab]/[ab]|/[ab]/[ab]/[ab]"), 0..14),
    ) {
        let rows: Vec<(u64, u64, &str)> = mounts
            .iter()
            .enumerate()
            .map(|(index, (parent, point))| {
                let id = index as u64 + 1;
                (id, parent.index(index + 1) as u64, point.as_str())
            })
            .collect();
        let mounts = table(&rows);
        let tree = MountTree::new(&mounts, |_| false);
        let found: Vec<bool> = (0..mounts.len()).map(|index| tree.is_hidden(index)).collect();
        proptest::prop_assert_eq!(&found, &plain::hidden(&mounts), "{:?}", rows);
        // All mounts above a path, and the first of them that is not hidden before all others.
        for path in ["/", "/a", "/a/b/file", "/b/b/a/file"] {
            let holders = tree.holders(Path::new(path));
            let mut above: Vec<usize> = (0..mounts.len())
                .filter(|index| ancestors(path.as_bytes()).any(|at| at == bytes(mounts.get(*index).unwrap().mount_point)))
                .collect();
            above.sort_by_key(|index| {
                let length = bytes(mounts.get(*index).unwrap().mount_point).len();
                (std::cmp::Reverse(length), tree.is_hidden(*index), std::cmp::Reverse(*index))
            });
            if let Some(reached) = above.iter().position(|index| !tree.is_hidden(*index)) {
                let reached = above.remove(reached);
                above.insert(0, reached);
            }
            proptest::prop_assert_eq!(holders, above, "{} in {:?}", path, rows);
        }
    }
}
