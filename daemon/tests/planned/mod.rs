//! What holds of every plan.

use std::collections::BTreeSet;

use hv_vssd::filesystems::{DeviceNumber, Plan, Scan};

/// Every superblock of the tables, and every live one that they do not show, is in the plan once; `what` names it in a failure.
pub(crate) fn assert_each_once(scan: &Scan, plan: &Plan, what: &str) {
    let mut table: BTreeSet<DeviceNumber> = scan.all_mounts().map(|mount| mount.dev).collect();
    for live in &scan.live {
        let members = table.iter().filter_map(|dev| scan.members.get(dev));
        let is_shown = members.flatten().any(|dev| live.devices.contains(dev));
        // One without a device may be that of a disk that was pulled.
        let is_pulled =
            live.devices.is_empty() && scan.all_mounts().any(|mount| mount.source == live.source);
        if !is_shown && !is_pulled {
            table.insert(live.dev().unwrap_or_default());
        }
    }
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
