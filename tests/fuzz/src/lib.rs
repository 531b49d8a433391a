//! The fuzz targets, each a function of bytes that panics when a promise is broken.
//!
//! `cargo fuzz` calls them with what it finds (`fuzz_targets/`); `daemon/tests/fuzz.rs` calls the same functions with
//! a fixed pseudo-random sequence on any toolchain.

#[path = "session.rs"]
mod session_target;

use std::collections::BTreeSet;
use std::path::Path;

use hv_vssd::config::{Config, Loaded};
use hv_vssd::filesystems::{Baseline, MountTable, Plan, Policy, Scan, mountinfo};
use hvutil_sys::vss::{MESSAGE_SIZE, Operation, Reply, Request};

pub use session_target::session;

/// Messages of the channel: decoded exactly when they have the right length, and an unknown operation is a value.
pub fn vss(input: &[u8]) {
    let request = Request::decode(input);
    assert_eq!(request.is_some(), input.len() == MESSAGE_SIZE);
    if let Some(request) = request {
        assert_eq!(
            Some(request.operation),
            input.first().copied().map(Operation)
        );
        assert!(!request.operation.to_string().is_empty());
    }
    let reply = Reply::decode(input);
    assert_eq!(reply.is_some(), input.len() == MESSAGE_SIZE);
    if let Some(reply) = reply {
        assert!(input.starts_with(&reply.code().to_le_bytes()));
    }
}

/// The mount table: every line becomes a mount or an error, none is skipped; and each mount can be asked about.
pub fn mountinfo(input: &[u8]) {
    let lines = input.iter().filter(|byte| **byte == b'\n').count();
    match mountinfo::parse(input) {
        Ok(mounts) => {
            assert_eq!(mounts.len(), lines);
            assert!(input.is_empty() || input.ends_with(b"\n"));
            for mount in mounts.iter() {
                let _ = mount.superblock_is_read_only();
                let _ = mount.super_option("lowerdir");
            }
            plan(mounts, lines);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
}

/// Whatever the table says, each of its superblocks is in the plan once, and what is in the table appears in no later look at it.
fn plan(mounts: MountTable, lines: usize) {
    let scan = Scan {
        mounts,
        ..Scan::default()
    };
    let scan = scan.identified();
    let plan = Plan::new(&scan, &Policy::default());
    let known: BTreeSet<_> = scan.all_mounts().map(|mount| mount.dev).collect();
    let left_out = plan.left_out.iter().map(|left_out| left_out.dev);
    let planned: Vec<_> = plan
        .superblocks()
        .map(|fs| fs.dev)
        .chain(left_out)
        .collect();
    assert_eq!(planned.len(), known.len());
    assert_eq!(planned.into_iter().collect::<BTreeSet<_>>(), known);
    assert!(known.len() <= lines);
    let again = Baseline::of(&scan).appeared_in(&scan.mounts, &Policy::default());
    assert!(again.is_empty(), "{again:?}");
}

/// The configuration file: taken within its bounds, and shown so that it can be read again; or refused with lines that name the file.
pub fn config(input: &[u8]) {
    let path = Path::new("/etc/hv-vssd/config.toml");
    let text = String::from_utf8_lossy(input);
    match Loaded::parse(&text, path) {
        Ok(loaded) => {
            let config = &loaded.config;
            let limits = config.limits;
            assert!((1..=600).contains(&limits.flush));
            assert!((1..=180).contains(&limits.freeze));
            assert!((1..=600).contains(&limits.hold));
            assert!((1..=600).contains(&config.hooks.limit));
            assert!((1..=600).contains(&config.hooks.total));
            // The driver's 15 minutes.
            assert!(config.freeze_request() < 900);
            for name in config.hooks.by_name.keys() {
                assert!(!name.is_empty() && !name.contains('/'), "{name:?}");
                assert!((1..=600).contains(&config.hooks.limit_of(name)));
            }
            let lists = &config.filesystems;
            let points = lists
                .exclude_mount_points
                .iter()
                .chain(&lists.include_mount_points)
                .chain(&config.metrics.textfile);
            for point in points {
                assert!(point.is_absolute(), "{point:?}");
            }
            // Nothing but what was written can have been excluded.
            let names = lists.exclude_types.iter().chain(&lists.exclude_devices);
            for name in names
                .chain(&lists.include_types)
                .chain(&lists.include_devices)
            {
                assert!(!name.is_empty());
            }
            let lines = input.iter().filter(|byte| **byte == b'\n').count() + 1;
            for origin in loaded.origins.values() {
                assert!((1..=lines).contains(&origin.line), "{origin:?}");
            }
            let shown = loaded.to_toml();
            assert_eq!(Config::parse(&shown, path).as_ref(), Ok(config), "{shown}");
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                let message = problem.to_string();
                assert!(message.starts_with("/etc/hv-vssd/config.toml"), "{message}");
                assert!(!message.contains(char::is_control), "{message:?}");
            }
        }
    }
}
