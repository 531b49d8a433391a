//! Whether a file system in an image is consistent as it lies there.

use std::path::Path;
use std::process::Command;

use crate::command::{find, output, said};
use crate::error::{BedError, BedResult};
use crate::guest::FsKind;

/// What is wrong with the file system in an image: a journal that needs recovery, or what
/// its checker complains of. `None`: nothing is.
///
/// # Errors
/// A checker is missing.
pub fn unclean(kind: FsKind, image: &Path) -> BedResult<Option<String>> {
    Ok(match kind {
        FsKind::Ext4 => {
            let (_, superblock) = check("dumpe2fs", &["-h"], image)?;
            if superblock.contains("needs_recovery") {
                Some("ext4: the journal needs recovery".into())
            } else {
                complaint("e2fsck", &["-f", "-n"], image)?
            }
        }
        FsKind::Xfs => {
            let (_, log) = check("xfs_logprint", &["-t"], image)?;
            if log_is_quiesced(&log) {
                let (_, repair) = check("xfs_repair", &["-n", "-f"], image)?;
                let line = repair.lines().find(|line| is_xfs_complaint(line));
                line.map(|line| format!("xfs_repair: {line}"))
            } else {
                Some("xfs: the log holds changes that may not be in place".into())
            }
        }
        FsKind::Btrfs => {
            let (_, superblock) = check("btrfs", &["inspect-internal", "dump-super"], image)?;
            if log_root(&superblock) != Some("0") {
                Some("btrfs: a log tree waits for replay".into())
            } else {
                complaint("btrfs", &["check", "--readonly"], image)?
            }
        }
        FsKind::Vfat => {
            // The dirty mark of a mounted FAT is there by design; all else counts.
            let (_, fsck) = check("fsck.vfat", &["-n", "-v"], image)?;
            let wrong = [
                "orphan",
                "Reclaim",
                "differs",
                "Wrong checksum",
                "truncat",
                "cross",
            ];
            let line = fsck
                .lines()
                .find(|line| wrong.iter().any(|w| line.contains(w)));
            line.map(|line| format!("fsck.vfat: {line}"))
        }
        FsKind::Blank | FsKind::Exfat | FsKind::Squashfs | FsKind::Iso => None,
    })
}

fn check(program: &str, arguments: &[&str], image: &Path) -> BedResult<(bool, String)> {
    let path = find(program).ok_or_else(|| {
        BedError::Setup(format!(
            "this machine lacks {program}: tests/run as root installs it"
        ))
    })?;
    let result = output(Command::new(path).args(arguments).arg(image))?;
    Ok((result.status.success(), said(&result)))
}

fn complaint(program: &str, arguments: &[&str], image: &Path) -> BedResult<Option<String>> {
    let (ok, text) = check(program, arguments, image)?;
    Ok((!ok).then(|| format!("{program}: {}", brief(&text))))
}

/// Whether a line of xfs_repair speaks of damage. Progress does not, nor that there is a log to
/// look at, nor the superblock's counters: those are summed up afresh at every mount.
fn is_xfs_complaint(line: &str) -> bool {
    const HARMLESS: [&str; 12] = [
        "Phase ",
        "        - ",
        "No modify flag set",
        "Cannot get host filesystem geometry",
        "Repair may fail if there is a sector size mismatch",
        "the image and the host filesystem",
        "ALERT: The filesystem has valuable metadata changes in a log",
        "ignored because the -n option was used",
        "which may be resolved by first mounting",
        "sb_fdblocks ",
        "sb_ifree ",
        "sb_icount ",
    ];
    !line.is_empty() && !HARMLESS.iter().any(|start| line.starts_with(start))
}

/// Whether an XFS log ends as a freeze leaves it. When all changes are in place, and only then,
/// the kernel logs the superblock alone, so that the next mount looks at the log
/// (`fs/xfs/xfs_log.c`, `xfs_log_cover`). Anything else at the end is a change on its way.
fn log_is_quiesced(log: &str) -> bool {
    let Some((_, last)) = log.rsplit_once("TRANS:") else {
        return log.contains("<CLEAN>");
    };
    // A transaction counts itself among its items.
    last.contains("#items:2 ") && last.contains("SUPER Block Buffer")
}

fn log_root(superblock: &str) -> Option<&str> {
    let line = superblock
        .lines()
        .find(|line| line.starts_with("log_root\t"))?;
    line.split_whitespace().nth(1)
}

/// Enough of a checker's output for one sentence.
fn brief(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut brief = lines.join("; ");
    if let Some((end, _)) = brief.char_indices().nth(160) {
        brief.truncate(end);
    }
    brief
}
