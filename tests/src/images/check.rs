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
            match unwritten_changes(&log) {
                Some(changes) => Some(format!("xfs: the log holds {changes} unwritten changes")),
                None => {
                    let (_, repair) = check("xfs_repair", &["-n", "-f"], image)?;
                    let line = repair.lines().find(|line| is_xfs_complaint(line));
                    line.map(|line| format!("xfs_repair: {line}"))
                }
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

/// How many changes an XFS log holds that are not in place yet; `None` for none. A frozen XFS
/// ends its log with the superblock alone, on purpose, so that the next mount looks at it
/// (`fs/xfs/xfs_super.c`, `xfs_fs_freeze`): that counts for nothing.
fn unwritten_changes(log: &str) -> Option<usize> {
    // Each transaction counts itself among its items.
    let items: usize = log
        .lines()
        .filter(|line| line.starts_with("TRANS:"))
        .filter_map(|line| line.split_once("#items:")?.1.split_whitespace().next())
        .filter_map(|number| number.parse::<usize>().ok())
        .map(|items| items.saturating_sub(1))
        .sum();
    let superblocks = log.matches("SUPER Block Buffer").count();
    items
        .checked_sub(superblocks)
        .filter(|changes| *changes > 0)
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
