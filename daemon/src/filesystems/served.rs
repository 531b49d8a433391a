//! Devices whose blocks come from a process or over a network, recognised by their names and their places in sysfs.

use std::fmt;

use serde::Serialize;

/// Who serves a file system's blocks. Such a server may itself write to a local file system of this guest: freezing that one first would block the server, and
/// then the freeze of what it serves never returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServedBy {
    /// Network block device (drivers/block/nbd.c).
    Nbd,
    /// Ceph block device (drivers/block/rbd.c).
    Rbd,
    /// Replicated device (drivers/block/drbd).
    Drbd,
    /// Block device of a process (drivers/block/ublk_drv.c).
    Ublk,
    /// iSCSI session, Longhorn's among them (drivers/scsi/scsi_transport_iscsi.c).
    Iscsi,
    /// NVMe over a network, or over the guest's own loop target (drivers/nvme/host/fabrics.c).
    NvmeFabrics,
    /// Another driver whose blocks come from elsewhere: ATA over Ethernet, RDMA, USB over IP, a SCSI or virtio target in the guest, Portworx, ScaleIO.
    Other,
    /// A loop device whose file lies on a FUSE file system.
    FuseFile,
    /// A loop device whose file lies on a network file system.
    RemoteFile,
}

impl ServedBy {
    /// The names of drivers in drivers/block, followed by the device's number.
    const NAMES: [(&str, Self); 7] = [
        ("nbd", Self::Nbd),
        ("rbd", Self::Rbd),
        ("drbd", Self::Drbd),
        ("ublkb", Self::Ublk),
        ("rnbd", Self::Other),
        ("pxd", Self::Other),
        ("etherd", Self::Other),
    ];

    /// Directories of sysfs that only such devices lie below.
    const PLACES: [(&str, Self); 7] = [
        ("session", Self::Iscsi),
        ("nvme-fabrics", Self::NvmeFabrics),
        ("vhci_hcd", Self::Other),
        ("tcm_loop", Self::Other),
        ("vduse", Self::Other),
        ("rnbd", Self::Other),
        ("scini", Self::Other),
    ];

    /// By the kernel's name for the whole disk (`nbd0`) and its path below `/sys/devices`.
    pub(crate) fn recognise(disk: &str, path: &str) -> Option<Self> {
        let by_name = Self::NAMES.iter().find(|(driver, _)| {
            disk.strip_prefix(driver)
                // sysfs writes the slash of a device's name as `!`.
                .is_some_and(|rest| {
                    rest.starts_with(|c: char| c.is_ascii_digit() || c == '!' || c == '_')
                })
        });
        let by_place = || {
            Self::PLACES
                .iter()
                .find(|(place, _)| path.split('/').any(|part| is_instance(part, place)))
        };
        by_name
            .or_else(by_place)
            .map(|(_, served)| *served)
            .or_else(|| is_scini(disk).then_some(Self::Other))
    }
}

/// `session3`, `vhci_hcd.0`, `tcm_loop_adapter_0` are instances of `session`, `vhci_hcd`, `tcm_loop`.
fn is_instance(part: &str, place: &str) -> bool {
    part.strip_prefix(place)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// ScaleIO names its disks `scinia`, `scinib`, ….
fn is_scini(disk: &str) -> bool {
    disk.strip_prefix("scini")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase()))
}

impl fmt::Display for ServedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nbd => "served by nbd",
            Self::Rbd => "served by Ceph",
            Self::Drbd => "replicated by DRBD",
            Self::Ublk => "served by a process (ublk)",
            Self::Iscsi => "served over iSCSI",
            Self::NvmeFabrics => "served over NVMe fabrics",
            Self::Other => "served from elsewhere",
            Self::FuseFile => "its image lies on FUSE",
            Self::RemoteFile => "its image lies on a network share",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_processes_and_networks_are_recognised() {
        for (disk, path, served) in [
            ("nbd0", "devices/virtual/block/nbd0", ServedBy::Nbd),
            ("rbd12", "devices/rbd/12/block/rbd12", ServedBy::Rbd),
            ("drbd1", "devices/virtual/block/drbd1", ServedBy::Drbd),
            ("drbd_r0", "devices/virtual/block/drbd_r0", ServedBy::Drbd),
            ("ublkb0", "devices/virtual/block/ublkb0", ServedBy::Ublk),
            (
                "etherd!e1.1",
                "devices/virtual/block/etherd!e1.1",
                ServedBy::Other,
            ),
            ("scinia", "devices/virtual/block/scinia", ServedBy::Other),
            (
                "sdb",
                "devices/platform/host3/session1/target3:0:0/3:0:0:0/block/sdb",
                ServedBy::Iscsi,
            ),
            (
                "nvme1n1",
                "devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1",
                ServedBy::NvmeFabrics,
            ),
            (
                "sdc",
                "devices/platform/vhci_hcd.0/usb3/3-1/host4/block/sdc",
                ServedBy::Other,
            ),
            (
                "sdd",
                "devices/tcm_loop_0/tcm_loop_adapter_0/host3/block/sdd",
                ServedBy::Other,
            ),
        ] {
            assert_eq!(ServedBy::recognise(disk, path), Some(served), "{disk}");
        }
    }

    #[test]
    fn local_devices_are_not() {
        for (disk, path) in [
            (
                "sda",
                "devices/LNXSYSTM:00/VMBUS:01/host0/target0:0:0/0:0:0:0/block/sda",
            ),
            (
                "nvme0n1",
                "devices/pci0000:00/0000:00:02.0/nvme/nvme0/nvme0n1",
            ),
            ("loop0", "devices/virtual/block/loop0"),
            ("dm-0", "devices/virtual/block/dm-0"),
            ("sda", "devices/sessions/block/sda"),
        ] {
            assert_eq!(ServedBy::recognise(disk, path), None, "{disk}");
        }
    }
}
