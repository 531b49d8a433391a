//! A mount namespace with nothing in it but what the demo made: the machine's own file systems are out of reach.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::DemoError;

/// The namespace the process is in from now on, to its end.
pub(super) struct Scene(());

impl Scene {
    /// Leaves the machine's mounts. The main thread does it, because `/proc/self/mountinfo` shows that thread's table.
    pub(super) fn enter() -> Result<Self, DemoError> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|error| {
            DemoError::because(
                "no mount namespace of its own can be had: run this as root",
                error,
            )
        })?;
        build().map_err(|error| {
            DemoError::because("the demo's mount namespace cannot be built", error)
        })?;
        Ok(Self(()))
    }

    /// An empty directory to mount on.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, DemoError> {
        let path = Path::new("/demo").join(name);
        fs::create_dir_all(&path).map_err(|error| {
            DemoError::because(format!("{} cannot be made", path.display()), error)
        })?;
        Ok(path)
    }
}

fn build() -> nix::Result<()> {
    const NONE: Option<&str> = None;
    // Nothing mounted here shows in the namespace it came from.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    // Any directory does: it is only a place for the new root.
    let place = "/proc/self/task";
    let place = if Path::new("/mnt").is_dir() {
        "/mnt"
    } else {
        place
    };
    mount(
        Some("demo"),
        place,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=1m"),
    )?;
    for name in ["proc", "sys", "dev", "old", "demo"] {
        let path = Path::new(place).join(name);
        nix::unistd::mkdir(&path, nix::sys::stat::Mode::S_IRWXU)?;
        if matches!(name, "proc" | "sys" | "dev") {
            let from = Path::new("/").join(name);
            mount(Some(&from), &path, NONE, MsFlags::MS_BIND, NONE)?;
        }
    }
    let old = Path::new(place).join("old");
    nix::unistd::pivot_root(Path::new(place), &old)?;
    nix::unistd::chdir("/")?;
    umount2("/old", MntFlags::MNT_DETACH)
}
