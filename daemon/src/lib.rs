//! hv-vssd: quiesces a Linux guest of Hyper-V for production checkpoints and VSS backups.
//!
//! The rooms and what flows between them are described in `ARCHITECTURE.md`.

pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod confine;
pub mod control;
pub mod demo;
pub mod filesystems;
pub mod hooks;
pub mod quiesce;
pub mod run_files;
pub mod status;
pub mod telemetry;
