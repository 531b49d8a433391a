//! What a frozen xfs looks like to its own tools.
//!
//! A freeze writes everything back, then puts the superblock alone into the log, so that a mount of the image looks
//! for unlinked inodes (`xfs_log_quiesce` in fs/xfs/xfs_log.c). Its free-space counts leave out what is reserved for
//! metadata; a mount of such an image counts anew.

use std::path::Path;

use super::DemoError;
use super::outside::Outside;

/// Whether the log of an image holds anything but the superblock.
pub(super) fn log_pending(outside: &Outside, image: &Path) -> Result<bool, DemoError> {
    let output = outside.run_on("xfs_logprint", &["-t"], image)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !text.contains("state: <") {
        return Err(DemoError::new(format!(
            "xfs_logprint cannot read the log of {}",
            image.display()
        )));
    }
    Ok(holds_more_than_the_superblock(&text))
}

fn holds_more_than_the_superblock(log: &str) -> bool {
    let items = log.lines().filter(|line| line.contains(": cnt:")).count();
    let superblocks = log
        .lines()
        .filter(|line| line.trim() == "SUPER Block Buffer:")
        .count();
    items != superblocks
}

/// Whether all that `xfs_repair -n` complains of are the counts in the superblock.
pub(super) fn only_counts(said: &str) -> bool {
    const PROGRESS: [&str; 9] = [
        "Phase ",
        "- ",
        "No modify flag set",
        "ALERT: The filesystem has valuable metadata changes in a log",
        "ignored because the -n option was used",
        "which may be resolved by first mounting",
        "Cannot get host filesystem geometry",
        "Repair may fail if there is a sector size mismatch",
        "the image and the host filesystem",
    ];
    const COUNTS: [&str; 3] = ["sb_fdblocks ", "sb_icount ", "sb_ifree "];
    let starts = |line: &str, with: &[&str]| with.iter().any(|start| line.starts_with(start));
    let mut complaints = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !starts(line, &PROGRESS))
        .peekable();
    complaints.peek().is_some() && complaints.all(|line| starts(line, &COUNTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_with_the_superblock_alone_needs_no_recovery() {
        let superblock = "TRANS: tid:0x9f3b9a45  #items:2\n\
                          BUF: cnt:2 total:2 a:0x1 len:24\n\
                          \tBUF:  #regs:2   start blkno:0x0   len:1\n\
                          \tSUPER Block Buffer:\n";
        assert!(!holds_more_than_the_superblock("state: <CLEAN>"));
        assert!(!holds_more_than_the_superblock(superblock));
        let inode = format!("{superblock}INO: cnt:2 total:2 a:0x1 len:56\n");
        assert!(holds_more_than_the_superblock(&inode));
    }

    #[test]
    fn counts_alone_are_no_damage() {
        let progress = "Phase 2 - using internal log\n        - zero log...\n";
        let counts = "sb_fdblocks 64894, counted 65353\n";
        assert!(only_counts(&format!("{progress}{counts}")));
        assert!(!only_counts(progress));
        assert!(!only_counts(&format!(
            "{progress}{counts}bad magic number\n"
        )));
    }
}
