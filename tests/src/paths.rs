//! Where the bed keeps things and finds the programs under test.

use std::path::PathBuf;

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Cargo's target directory.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The bed's directory: caches, images of running tests, results.
/// `HV_TESTBED_DIR`, or `testbed` in cargo's target directory.
#[must_use]
pub fn testbed() -> PathBuf {
    std::env::var_os("HV_TESTBED_DIR").map_or_else(|| target().join("testbed"), PathBuf::from)
}

/// Where scenario results are collected.
#[must_use]
pub fn results() -> PathBuf {
    testbed().join("results")
}

/// The `hv-vssd` binary under test: `HV_VSSD_BIN`, or cargo's release build.
#[must_use]
pub fn hv_vssd() -> PathBuf {
    std::env::var_os("HV_VSSD_BIN").map_or_else(|| target().join("release/hv-vssd"), PathBuf::from)
}

/// The build of `hv-vssd` that has fault points: `HV_VSSD_FAULTS_BIN`, or a release build in
/// a target directory of its own, so that it never takes the other's place.
#[must_use]
pub fn hv_vssd_faults() -> PathBuf {
    std::env::var_os("HV_VSSD_FAULTS_BIN")
        .map_or_else(|| target().join("faults/release/hv-vssd"), PathBuf::from)
}

/// The guest's init, built from this package: `HV_TESTGUEST_BIN`, or beside the
/// running test program.
#[must_use]
pub fn testguest() -> PathBuf {
    if let Some(path) = std::env::var_os("HV_TESTGUEST_BIN") {
        return path.into();
    }
    let mut dir = std::env::current_exe().unwrap_or_default();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir.join("hv-testguest")
}
