//! Properties of the mount table's parser and of the plan, for any input.

// A helper of a test fails by panicking, like the test itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod planned;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use hv_vssd::filesystems::mountinfo::parse;
use hv_vssd::filesystems::{
    Baseline, BlockDevice, DeviceNumber, Mount, Plan, Policy, Scan, ServedBy, render_table,
};
use planned::assert_each_once;
use proptest::prelude::*;

/// A [`Mount`] with fields of its own.
#[derive(Debug, Clone)]
struct Owned {
    id: u64,
    parent: u64,
    dev: DeviceNumber,
    root: PathBuf,
    mount_point: PathBuf,
    options: OsString,
    fstype: String,
    source: OsString,
    super_options: OsString,
}

impl Owned {
    fn view(&self) -> Mount<'_> {
        Mount {
            id: self.id,
            parent: self.parent,
            dev: self.dev,
            root: &self.root,
            mount_point: &self.mount_point,
            options: &self.options,
            fstype: &self.fstype,
            source: &self.source,
            super_options: &self.super_options,
        }
    }
}

/// As `mangle()` in fs/proc_namespace.c.
fn mangle(text: &[u8]) -> Vec<u8> {
    let escaped = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![*byte],
    };
    text.iter().flat_map(escaped).collect()
}

/// As `show_mountinfo()` in fs/proc_namespace.c.
fn format(mount: &Owned, optional: &[String]) -> Vec<u8> {
    let mut line = format!("{} {} {} ", mount.id, mount.parent, mount.dev).into_bytes();
    line.extend(mangle(mount.root.as_os_str().as_bytes()));
    line.push(b' ');
    line.extend(mangle(mount.mount_point.as_os_str().as_bytes()));
    line.push(b' ');
    line.extend(mount.options.as_bytes());
    for field in optional {
        line.extend(format!(" {field}").into_bytes());
    }
    line.extend(b" - ");
    line.extend(mangle(mount.fstype.as_bytes()));
    line.push(b' ');
    line.extend(mangle(mount.source.as_bytes()));
    line.push(b' ');
    line.extend(mount.super_options.as_bytes());
    line.push(b'\n');
    line
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // Spaces, backslashes, digits and dashes are what a parser stumbles over.
    let odd = prop_oneof![
        Just(b' '),
        Just(b'\n'),
        Just(b'\\'),
        Just(b'#'),
        Just(b'-'),
        Just(b'0'),
        Just(b'4'),
        any::<u8>()
    ];
    prop::collection::vec(
        odd.prop_filter("paths end at a zero byte", |byte| *byte != 0),
        0..40,
    )
}

fn path() -> impl Strategy<Value = PathBuf> {
    bytes().prop_map(|rest| OsString::from_vec([b"/".to_vec(), rest].concat()).into())
}

fn options() -> impl Strategy<Value = OsString> {
    ("r[ow]", "[a-z=,/:\\\\0-9]{0,30}").prop_map(|(access, rest)| format!("{access},{rest}").into())
}

prop_compose! {
    fn mount()(
        id in any::<u32>(), parent in any::<u32>(), major in any::<u32>(), minor in any::<u32>(),
        root in path(), mount_point in path(), options in options(), super_options in options(),
        fstype in "[a-z0-9. _#-]{1,12}", source in bytes(),
    ) -> Owned {
        Owned {
            id: id.into(), parent: parent.into(), dev: DeviceNumber::new(major, minor),
            root, mount_point, options, fstype, source: OsString::from_vec(source), super_options,
        }
    }
}

/// How one file system of a generated guest is made; `holder` and `parent` are taken modulo the number of those before it.
#[derive(Debug, Clone)]
struct Recipe {
    holder: Option<usize>,
    parent: usize,
    layers: u32,
    served: bool,
    vfat: bool,
    unknown: bool,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let on_image = prop::option::weighted(0.6, any::<usize>());
    (
        on_image,
        any::<usize>(),
        0..3_u32,
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.15),
    )
        .prop_map(|(holder, parent, layers, served, vfat, unknown)| Recipe {
            holder,
            parent,
            layers,
            served,
            vfat,
            unknown,
        })
}

/// A guest whose file systems lie on disks or on images in each other, with layers of device mapper between; the first is `/`.
struct Guest {
    scan: Scan,
    /// The one that holds each one's image, which always comes before it.
    holders: Vec<Option<usize>>,
    served: Vec<bool>,
    unknown: Vec<bool>,
}

fn dev(index: usize) -> DeviceNumber {
    DeviceNumber::new(253, u32::try_from(index).unwrap())
}

fn guest(recipes: &[Recipe], order: &[usize]) -> Guest {
    let mut points: Vec<String> = Vec::new();
    let mut mounts: Vec<Owned> = Vec::new();
    let mut guest = Guest {
        scan: Scan::default(),
        holders: Vec::new(),
        served: Vec::new(),
        unknown: Vec::new(),
    };
    for (index, recipe) in recipes.iter().enumerate() {
        let holder = recipe
            .holder
            .filter(|_| index > 0)
            .map(|holder| holder % index);
        let parent = if index == 0 {
            0
        } else {
            recipe.parent % index + 1
        };
        let point = match parent {
            0 => String::new(),
            parent => format!("{}/m{index}", points[parent - 1]),
        };
        // From the file system's own device down to the disk or the loop device.
        let minor = u32::try_from(index).unwrap();
        let stack: Vec<DeviceNumber> = std::iter::once(dev(index))
            .chain((0..recipe.layers).map(|layer| DeviceNumber::new(9 + layer, minor)))
            .collect();
        for pair in stack.windows(2) {
            guest.scan.devices.insert(
                pair[0],
                BlockDevice {
                    below: vec![pair[1]],
                    ..BlockDevice::default()
                },
            );
        }
        let bottom = BlockDevice {
            backing_file: holder.map(|holder| format!("{}/image{index}", points[holder]).into()),
            served: (recipe.served && holder.is_none()).then_some(ServedBy::Nbd),
            incomplete: recipe.unknown,
            ..BlockDevice::default()
        };
        let from_below = holder.is_some_and(|holder| guest.served[holder]);
        guest.served.push(from_below || bottom.served.is_some());
        let unknown_below = holder.is_some_and(|holder| guest.unknown[holder]);
        guest.unknown.push(unknown_below || recipe.unknown);
        guest.scan.devices.insert(stack[stack.len() - 1], bottom);
        guest.scan.members.insert(dev(index), vec![dev(index)]);
        mounts.push(Owned {
            id: index as u64 + 1,
            parent: parent as u64,
            dev: dev(index),
            root: "/".into(),
            mount_point: if point.is_empty() {
                "/".into()
            } else {
                point.clone().into()
            },
            options: "rw".into(),
            fstype: if recipe.vfat { "vfat" } else { "ext4" }.into(),
            source: format!("/dev/dm-{index}").into(),
            super_options: "rw".into(),
        });
        points.push(point);
        guest.holders.push(holder);
    }
    // The table may be in any order.
    for (index, with) in order.iter().enumerate().take(recipes.len()) {
        mounts.swap(index, with % recipes.len());
    }
    guest.scan.mounts = mounts.iter().map(Owned::view).collect();
    guest
}

fn stage_of(plan: &Plan) -> HashMap<DeviceNumber, usize> {
    let numbered = plan.stages.iter().enumerate();
    numbered
        .flat_map(|(stage, superblocks)| {
            superblocks
                .iter()
                .map(move |superblock| (superblock.dev, stage))
        })
        .collect()
}

/// A btrfs for each source, with a number for each of its subvolumes: (source, subvolume) of each mount.
fn with_a_number_for_each_subvolume(mounts: &[(usize, usize)], order: &[usize]) -> String {
    let mut numbers: Vec<(usize, usize)> = mounts.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    // Which number a subvolume has depends on what was mounted first.
    for (index, with) in order.iter().enumerate().take(numbers.len()) {
        let with = with % numbers.len();
        numbers.swap(index, with);
    }
    let line = |(id, mount): (usize, &(usize, usize))| {
        let (source, subvolume) = mount;
        let number = 40 + numbers.iter().position(|known| known == mount).unwrap();
        format!(
            "{} 1 0:{number} /@{subvolume} /m{id} rw - btrfs /dev/sd{source} rw,subvolid={subvolume},subvol=/@{subvolume}\n",
            id + 2
        )
    };
    mounts.iter().enumerate().map(line).collect()
}

proptest! {
    #[test]
    fn a_btrfs_is_one_superblock_however_its_subvolumes_are_numbered_and_whatever_is_mounted_later(
        mounts in prop::collection::vec((0..3_usize, 0..6_usize), 1..20), order in prop::collection::vec(any::<usize>(), 20),
        early in 1..20_usize,
    ) {
        let scan_of = |count: usize| {
            let table = with_a_number_for_each_subvolume(&mounts, &order);
            let lines: String = table.lines().take(count).map(|line| format!("{line}\n")).collect();
            Scan { mounts: parse(lines.as_bytes()).unwrap(), ..Scan::default() }
        };
        let scan = scan_of(mounts.len()).identified();
        let plan = Plan::new(&scan, &Policy::default());
        let sources: BTreeSet<usize> = mounts.iter().map(|(source, _)| *source).collect();
        prop_assert_eq!(plan.superblocks().count(), sources.len());
        // A later look finds those of new sources alone.
        let early = early.min(mounts.len());
        let before: BTreeSet<usize> = mounts[..early].iter().map(|(source, _)| *source).collect();
        let appeared = Baseline::of(&scan_of(early).identified())
            .appeared_in(&scan_of(mounts.len()).mounts, &Policy::default());
        let new = |point: &PathBuf| {
            let index: usize = point.to_str().unwrap()[2..].parse().unwrap();
            mounts[index].0
        };
        let appeared: BTreeSet<usize> = appeared.to_freeze.iter().map(new).collect();
        prop_assert_eq!(appeared, sources.difference(&before).copied().collect::<BTreeSet<usize>>());
    }

    #[test]
    fn a_data_set_with_any_blanks_in_its_name_is_read_back(
        names in prop::collection::vec("[a-z0-9_.:-]{1,12}(/[a-z0-9_.: -]{0,30}[a-z0-9_.:-]){0,3}", 1..6),
    ) {
        let line = |(id, name): (usize, &String)| format!("{id} 1 0:{id} / /t{id} rw,relatime - zfs {name} rw,xattr,posixacl\n");
        let table: String = names.iter().enumerate().map(line).collect();
        let read = parse(table.as_bytes()).unwrap();
        let sources: Vec<_> = read.iter().map(|mount| mount.source.to_str().unwrap().to_owned()).collect();
        prop_assert_eq!(sources, names);
        prop_assert!(read.iter().all(|mount| mount.super_options == "rw,xattr,posixacl"));
    }

    #[test]
    fn the_parser_takes_any_bytes(table in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&table);
    }

    #[test]
    fn the_parser_takes_any_damage(mounts in prop::collection::vec(mount(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut table: Vec<u8> = mounts.iter().flat_map(|mount| format(mount, &[])).collect();
        let at = at.index(table.len());
        table[at] = byte;
        if let Err(error) = parse(&table) {
            prop_assert!(error.to_string().len() < 2_000);
        }
    }

    #[test]
    fn what_the_kernel_writes_is_read_back(
        mounts in prop::collection::vec((mount(), prop::collection::vec("[a-z_]{1,9}:[0-9]{1,3}", 0..4)), 0..8),
    ) {
        let table: Vec<u8> = mounts.iter().flat_map(|(mount, optional)| format(mount, optional)).collect();
        let expected: Vec<Mount<'_>> = mounts.iter().map(|(mount, _)| mount.view()).collect();
        let read = parse(&table).unwrap();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_file_system_is_frozen_before_what_holds_it(
        recipes in prop::collection::vec(recipe(), 1..14), order in prop::collection::vec(any::<usize>(), 14),
    ) {
        let guest = guest(&recipes, &order);
        let plan = Plan::new(&guest.scan, &Policy::default());
        assert_each_once(&guest.scan, &plan, "");
        let stages = stage_of(&plan);
        for index in 0..recipes.len() {
            let mut holder = guest.holders[index];
            while let Some(below) = holder {
                if let (Some(mine), Some(its)) = (stages.get(&dev(index)), stages.get(&dev(below))) {
                    prop_assert!(mine < its, "{} is held by {} but frozen at {} and {}", index, below, mine, its);
                }
                holder = guest.holders[below];
            }
        }
        // Served ones before all local ones, and the root last and alone; nothing lies beneath it here.
        let served_by_any = &guest.served;
        let of = |served: bool| {
            let indices = (1..recipes.len()).filter(move |index| served_by_any[*index] == served);
            indices.filter_map(|index| stages.get(&dev(index)))
        };
        let unknown = &guest.unknown;
        let known_local = (1..recipes.len()).filter(|index| !served_by_any[*index] && !unknown[*index]);
        let known_local = known_local.filter_map(|index| stages.get(&dev(index)));
        if let (Some(served), Some(local)) = (of(true).max(), known_local.min()) {
            prop_assert!(served < local);
        }
        // Whatever a served one may stand on goes after it, and all that is unknown before what is local.
        let first = (1..recipes.len()).filter(|index| unknown[*index] && !served_by_any[*index]);
        let first = first.filter_map(|index| stages.get(&dev(index)));
        let known_local = (1..recipes.len()).filter(|index| !served_by_any[*index] && !unknown[*index]);
        let known_local = known_local.filter_map(|index| stages.get(&dev(index)));
        if let (Some(unknown), Some(local)) = (first.max(), known_local.min()) {
            prop_assert!(unknown < local);
        }
        if let Some(root) = stages.get(&dev(0)) {
            prop_assert_eq!(*root, plan.stages.len() - 1);
            prop_assert_eq!(plan.stages[*root].len(), 1);
        }
    }

    #[test]
    fn a_plan_is_made_of_any_scan(
        mounts in prop::collection::vec((0..6_u64, 0..6_u64, 0..6_u32, "/[ab]{0,1}(/[ab]){0,2}", 0..5_usize), 0..12),
        devices in prop::collection::btree_map(0..6_u32, (prop::collection::vec(0..8_u32, 0..3), prop::option::of("/[ab](/[ab]){0,3}")), 0..6),
    ) {
        let dev = |minor: u32| DeviceNumber::new(7, minor);
        let mounts: Vec<Owned> = mounts
            .into_iter()
            .map(|(id, parent, minor, point, fstype)| Owned {
                id, parent, dev: dev(minor), root: "/".into(), mount_point: point.into(), options: "rw".into(),
                fstype: ["ext4", "ext4", "vfat", "overlay", "fuse"][fstype].into(), source: "/a".into(),
                super_options: "rw,upperdir=/a/b".into(),
            })
            .collect();
        let scan = Scan {
            members: mounts.iter().map(|mount| (mount.dev, vec![mount.dev])).collect(),
            mounts: mounts.iter().map(Owned::view).collect(),
            devices: devices
                .into_iter()
                .map(|(minor, (below, file))| {
                    let below = below.into_iter().map(dev).collect();
                    (dev(minor), BlockDevice { below, backing_file: file.map(PathBuf::from), ..BlockDevice::default() })
                })
                .collect::<BTreeMap<_, _>>(),
            ..Scan::default()
        };
        let plan = Plan::new(&scan, &Policy::default());
        assert_each_once(&scan, &plan, "");
        let stages = stage_of(&plan);
        for superblock in plan.superblocks() {
            for holder in superblock.stacked_on.iter().filter_map(|holder| stages.get(holder)) {
                prop_assert!(stages[&superblock.dev] < *holder);
            }
        }
        let _ = render_table(&plan, true);
        for most in 1..4 {
            let mut fewer = plan.clone();
            for superblock in fewer.stages.iter_mut().flatten() {
                superblock.mounts.truncate(most);
            }
            for left_out in &mut fewer.left_out {
                left_out.mounts.truncate(most);
            }
            prop_assert_eq!(&fewer, &Plan::with_mounts(&scan, &Policy::default(), most));
        }
    }
}
