//! What holds of every plan.

use std::collections::BTreeSet;

use hv_vssd::filesystems::{DeviceNumber, Plan, Scan};

/// Every superblock of the tables is in the plan once; `what` names it in a failure.
pub(crate) fn assert_each_once(scan: &Scan, plan: &Plan, what: &str) {
    let table: BTreeSet<DeviceNumber> = scan.all_mounts().map(|mount| mount.dev).collect();
    let left_out = plan.left_out.iter().map(|left_out| left_out.dev);
    let mut planned: Vec<DeviceNumber> = plan
        .superblocks()
        .map(|superblock| superblock.dev)
        .chain(left_out)
        .collect();
    planned.sort();
    assert_eq!(planned, table.into_iter().collect::<Vec<_>>(), "{what}");
    assert!(
        plan.stages.iter().all(|stage| !stage.is_empty()),
        "{what}: an empty stage"
    );
}
