//! Any plan, any faults: at the end nothing of ours is frozen, and nothing of others was thawed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod double;

use std::time::Duration;

use double::{Double, Entry, Fault, Fs, Op};
use proptest::prelude::*;

const SLOW: Duration = Duration::from_millis(3);

/// Stages by their sizes; the file systems are numbered through.
fn stages(sizes: &[usize]) -> Vec<Vec<Fs>> {
    let mut next = 1;
    sizes
        .iter()
        .map(|size| {
            let stage = (next..).take(*size).collect();
            next += Fs::try_from(*size).unwrap();
            stage
        })
        .collect()
}

fn fault() -> impl Strategy<Value = (Op, Fs, Fault)> {
    let errno = prop_oneof![
        Just(libc::EIO),
        Just(libc::EPERM),
        Just(libc::EBUSY),
        Just(libc::EOPNOTSUPP),
        Just(libc::EINVAL),
    ];
    let kind = prop_oneof![
        4 => errno.prop_map(Fault::Errno),
        1 => Just(Fault::Slow(SLOW)),
    ];
    let op = prop_oneof![
        1 => Just(Op::Open),
        1 => Just(Op::Sync),
        3 => Just(Op::Freeze),
        2 => Just(Op::Thaw),
    ];
    (op, 1..12_u32, kind)
}

/// Seldom any: each is waited for.
fn foreign() -> impl Strategy<Value = Vec<Fs>> {
    prop_oneof![40 => Just(vec![]), 1 => prop::collection::vec(1..8_u32, 1..3)]
}

/// A made-up EINVAL says that it was not frozen; a kernel says so only when that is true.
fn is_true_to_the_kernel((op, _, fault): &(Op, Fs, Fault)) -> bool {
    !(*op == Op::Thaw && *fault == Fault::Errno(libc::EINVAL))
}

/// By stage, freezes come in order and thaws in reverse.
fn assert_order(double: &Double, stages: &[Vec<Fs>]) {
    let stage_of = |fs: &Fs| stages.iter().position(|stage| stage.contains(fs)).unwrap();
    let of = |op: Op| -> Vec<usize> {
        let entries = double.entries();
        let begun = entries.iter().filter_map(|entry| match entry {
            Entry::Begun(found, fs) if *found == op => Some(stage_of(fs)),
            _ => None,
        });
        begun.collect()
    };
    assert!(of(Op::Freeze).is_sorted());
    // A thaw that failed is tried once more at the end; the first round is in order.
    let thaws = double.done(Op::Thaw);
    let frozen = double.done(Op::Freeze);
    let entries = double.entries();
    let failed = entries
        .iter()
        .any(|entry| matches!(entry, Entry::Done(Op::Thaw, _, errno) if *errno != 0));
    if !failed {
        assert!(thaws.iter().map(stage_of).rev().is_sorted(), "{thaws:?}");
        assert_eq!(thaws.len(), frozen.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_ours_stays_frozen_and_nothing_of_others_is_thawed(
        sizes in prop::collection::vec(1..4_usize, 1..4),
        faults in prop::collection::vec(fault().prop_filter("a kernel's", is_true_to_the_kernel), 0..6),
        foreign in foreign(),
        thaw in any::<bool>(),
    ) {
        let stages = stages(&sizes);
        let slices: Vec<&[Fs]> = stages.iter().map(Vec::as_slice).collect();
        let double = Double::new(&slices);
        let mut thaw_faults = std::collections::BTreeSet::new();
        for (op, fs, fault) in &faults {
            // One a file system: a thaw that fails for good cannot be helped.
            if *op != Op::Thaw || thaw_faults.insert(*fs) {
                double.fault(*op, *fs, *fault);
            }
        }
        for fs in &foreign {
            double.freeze_by_someone_else(*fs);
        }
        let mut engine = double.engine();
        if engine.freeze().is_ok() {
            let held = double.frozen();
            let unable = double
                .entries()
                .iter()
                .filter(|entry| matches!(entry, Entry::Done(Op::Freeze, _, libc::EOPNOTSUPP)))
                .count();
            prop_assert_eq!(held.len() + unable, stages.iter().flatten().count());
            if thaw {
                let report = engine.thaw().unwrap();
                prop_assert_eq!(report.file_systems.len(), stages.iter().flatten().count());
                let told = report.failures.len();
                let failed = double
                    .entries()
                    .iter()
                    .filter(|entry| matches!(entry, Entry::Done(Op::Thaw, _, errno) if *errno != 0))
                    .count();
                prop_assert_eq!(told, failed, "{:?}", report.failures);
            }
        }
        drop(engine);
        prop_assert_eq!(double.frozen(), Vec::<Fs>::new(), "{:?}", double.entries());
        prop_assert!(!double.thawed_for_someone_else());
        assert_order(&double, &stages);
    }
}
