//! hv-vssd: quiesces a Linux guest of Hyper-V for production checkpoints and VSS backups.

pub mod filesystems;
