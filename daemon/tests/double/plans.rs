//! What a plan of numbers is made of, and the errors that only the real thing gives.

use std::path::PathBuf;

use hv_vssd::filesystems::{
    Candidate, DeviceNumber, LeftOut, Reason, Roots, ScanError, Superblock, scan_below,
};
use hv_vssd::quiesce::backend::Target;
use hv_vssd::quiesce::handle::{Handle, HandleError};

use super::Fs;

/// The error that no way leads to a file system, which only a real attempt makes.
pub(super) fn unreachable_target(target: &Target) -> HandleError {
    let nowhere = Target {
        mounts: vec![],
        source: "nowhere".into(),
        ..target.clone()
    };
    Handle::open(&nowhere).unwrap_err()
}

/// The error of a mount table that cannot be understood, made by reading one.
pub(super) fn broken_mount_table() -> ScanError {
    let proc = tempfile::tempdir().unwrap();
    std::fs::create_dir(proc.path().join("self")).unwrap();
    let lines = "27 1 254:0 / / rw - ext4 /dev/vda rw\nno mount at all\n";
    std::fs::write(proc.path().join("self/mountinfo"), lines).unwrap();
    let roots = Roots {
        proc: proc.path().to_owned(),
        ..Roots::default()
    };
    scan_below(&roots).unwrap_err()
}

fn mount(fs: Fs) -> Candidate {
    Candidate {
        id: fs.into(),
        mount_point: PathBuf::from(format!("/fs{fs}")),
        root: "/".into(),
        hidden: false,
        through_server: false,
        via: None,
    }
}

pub(super) fn superblock(fs: Fs) -> Superblock {
    Superblock {
        dev: DeviceNumber::new(259, fs),
        fstype: "ext4".to_owned(),
        source: format!("/dev/disk{fs}").into(),
        mounts: vec![mount(fs)],
        served_by: None,
        stacked_on: vec![],
        beneath_unknown: false,
    }
}

pub(super) fn left_out(fs: Fs) -> LeftOut {
    LeftOut {
        dev: DeviceNumber::new(259, fs),
        fstype: "vfat".to_owned(),
        source: format!("/dev/disk{fs}").into(),
        mounts: vec![mount(fs)],
        reason: Reason::CannotFreeze,
        flush: true,
    }
}
