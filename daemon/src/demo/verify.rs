//! What a copied image is worth: does it need recovery, is it sound, and is all in it that was synced?

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hvutil_sys::loopdev::LoopDevice;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::DemoError;
use super::images::Copy;
use super::outside::Outside;
use super::scene::Scene;
use super::writer::{FILE, MOST_RECORDS, RECORD, record};
use super::xfs;

/// One thing found out about a copy.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) what: &'static str,
    good: bool,
    /// What was seen, in a few words.
    pub(super) seen: String,
}

impl Finding {
    /// As a consistent image has it.
    pub(super) fn is_good(&self) -> bool {
        self.good
    }
}

/// Looks at a copy without changing it: `acknowledged` records must be in it, without recovery.
pub(super) fn verify(
    outside: &Outside,
    scene: &Scene,
    fstype: &'static str,
    copy: &Copy,
    acknowledged: u64,
) -> Result<Vec<Finding>, DemoError> {
    let pending = match fstype {
        "xfs" => xfs::log_pending(outside, &copy.path)?,
        _ => recovery_pending(fstype, &copy.file)?,
    };
    let recovery = Finding {
        what: "journal",
        good: !pending,
        seen: if pending {
            "must be replayed"
        } else {
            "nothing to replay"
        }
        .to_owned(),
    };
    Ok(vec![
        recovery,
        fsck(outside, fstype, &copy.path)?,
        records(scene, fstype, copy, acknowledged)?,
    ])
}

/// Whether the superblock says that a journal or log is to be replayed.
fn recovery_pending(fstype: &str, image: &File) -> Result<bool, DemoError> {
    // ext4: INCOMPAT_RECOVER in s_feature_incompat (fs/ext4/ext4.h); btrfs: log_root of the superblock
    // (include/uapi/linux/btrfs_tree.h).
    let (offset, mask) = match fstype {
        "ext4" => (1024 + 0x60, 0x4),
        _ => (0x1_0000 + 0x60, u64::MAX),
    };
    let mut bytes = [0; 8];
    image.read_exact_at(&mut bytes, offset).map_err(|error| {
        DemoError::because(format!("the copy of {fstype} cannot be read"), error)
    })?;
    Ok(u64::from_le_bytes(bytes) & mask != 0)
}

fn fsck(outside: &Outside, fstype: &str, image: &Path) -> Result<Finding, DemoError> {
    let (program, arguments): (_, &[&str]) = match fstype {
        "ext4" => ("e2fsck", &["-f", "-n"]),
        "xfs" => ("xfs_repair", &["-n", "-f"]),
        _ => ("btrfs", &["check", "--readonly"]),
    };
    let output = outside.run_on(program, arguments, image)?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let sound = output.status.success();
    let counts = !sound && fstype == "xfs" && xfs::only_counts(&said);
    if !sound {
        tracing::debug!("{program}: {said}");
    }
    Ok(Finding {
        what: "fsck",
        good: sound || counts,
        seen: if sound {
            "clean".to_owned()
        } else if counts {
            "clean (counts a mount renews)".to_owned()
        } else {
            "errors".to_owned()
        },
    })
}

/// Mounts the copy without recovery and looks for every record that the writer was told is safe.
fn records(
    scene: &Scene,
    fstype: &str,
    copy: &Copy,
    acknowledged: u64,
) -> Result<Finding, DemoError> {
    let no_recovery = match fstype {
        "ext4" => "noload",
        "xfs" => "norecovery",
        _ => "rescue=nologreplay",
    };
    let device = LoopDevice::attach(&copy.file)
        .map_err(|error| DemoError::because("no loop device can be had", error))?;
    let place = scene.directory("copy")?;
    let mounted = mount(
        Some(device.path()),
        &place,
        Some(fstype),
        MsFlags::MS_RDONLY,
        Some(no_recovery),
    );
    if let Err(error) = mounted {
        return Ok(Finding {
            what: "synced records",
            good: false,
            seen: format!("not mountable as it is ({})", error.desc()),
        });
    }
    let missing = count_missing(&place.join(FILE), acknowledged);
    let _ = umount2(&place, MntFlags::MNT_DETACH);
    Ok(Finding {
        what: "synced records",
        good: missing == 0,
        seen: match missing {
            0 => format!("all {acknowledged}"),
            _ => format!("{missing} of {acknowledged} missing"),
        },
    })
}

/// Of the records that were written before `acknowledged` and not overwritten since, how many are not there.
fn count_missing(path: &Path, acknowledged: u64) -> u64 {
    let Ok(file) = File::open(path) else {
        return acknowledged;
    };
    let first = acknowledged.saturating_sub(MOST_RECORDS);
    let missing = |number: &u64| {
        let mut found = [0; RECORD];
        let offset = (number % MOST_RECORDS) * RECORD as u64;
        if file.read_exact_at(&mut found, offset).is_err() {
            return true;
        }
        let written = found
            .first_chunk()
            .map_or(0, |head| u64::from_le_bytes(*head));
        // A later round may have overwritten it already.
        written < *number
            || written % MOST_RECORDS != number % MOST_RECORDS
            || found != record(written)
    };
    (first..acknowledged).filter(missing).count() as u64
}
