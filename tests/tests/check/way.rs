//! The way to the host, each part of it taken away.

use tests::error::Step;
use tests::guest::Guest;
use tests::scenario::Bed;

use super::check;

/// VMBus protocol 2.4, Windows 8's, and 5.0, Windows 10's.
const OLD_HOST: u32 = (2 << 16) | 4;
const NEW_HOST: u32 = 5 << 16;

/// The first thing that is missing on the way to the host, and nothing else of that way.
fn lacks(guest: &Guest, code: &str) -> Step<()> {
    let found = check(guest)?;
    found.gives("fallback")?.has(code, "error")?;
    let way = [
        "not-hyper-v",
        "no-vmbus",
        "service-off",
        "driver-not-loaded",
        "host-too-old",
        "no-device-node",
        "agent-not-running",
    ];
    for other in way.iter().filter(|other| **other != code) {
        found.has_not(other)?;
    }
    Ok(())
}

/// The driver again, on a host of this age.
fn reload(guest: &Guest, protocol: u32) -> Step<()> {
    guest.sh(&format!(
        "rmmod hv_utils; echo {protocol} >/sys/module/hv_vmbus/parameters/proto_version"
    ))?;
    Ok(guest.load("hv_utils", "")?)
}

pub(super) fn the_way_to_the_host(bed: &mut Bed) -> Step<String> {
    let guest = bed.boot(&[])?;
    lacks(&guest, "not-hyper-v")?;
    // Firmware that says so, as Hyper-V's does.
    guest.sh(
        "echo 'Microsoft Corporation' >/tmp/vendor; mount --bind /tmp/vendor /sys/class/dmi/id/sys_vendor
         echo 'Virtual Machine' >/tmp/product; mount --bind /tmp/product /sys/class/dmi/id/product_name",
    )?;
    lacks(&guest, "no-vmbus")?;
    guest.sh("umount /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name; insmod /lib/hv_vmbus.ko")?;
    lacks(&guest, "driver-not-loaded")?;
    guest.sh("echo remove >/dev/vmbus_control")?;
    lacks(&guest, "service-off")?;
    guest.sh("echo probe >/dev/vmbus_control")?;
    guest.load("hv_utils", "")?;
    lacks(&guest, "agent-not-running")?;
    guest.sh("mv /dev/vmbus/hv_vss /tmp/node")?;
    lacks(&guest, "no-device-node")?;
    guest.sh("mv /tmp/node /dev/vmbus/hv_vss")?;
    reload(&guest, OLD_HOST)?;
    lacks(&guest, "host-too-old")?;
    reload(&guest, NEW_HOST)?;
    lacks(&guest, "agent-not-running")?;
    Ok("each missing part is named alone: no Hyper-V, no bus, no service, no driver, an old host, no node, no agent".into())
}
