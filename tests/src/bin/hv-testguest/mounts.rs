//! Mounts that no tool of the guest makes.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Bind-mounts `from` at `under/0` … `under/count-1`.
pub(crate) fn bind(from: &str, under: &Path, count: u32) -> io::Result<()> {
    for number in 0..count {
        let at = under.join(number.to_string());
        std::fs::create_dir_all(&at)?;
        mount(
            Some(from),
            &at,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
    }
    Ok(())
}

/// Mounts a fuse or autofs file system whose server never answers.
pub(crate) fn unserved(kind: &str, at: &str) -> io::Result<()> {
    std::fs::create_dir_all(at)?;
    // The module is loaded by whoever opens the device; autofs has none.
    std::process::Command::new("/sbin/modprobe")
        .arg(if kind == "fuse" { "fuse" } else { "autofs4" })
        .status()?;
    let (server, options): (OwnedFd, String) = if kind == "fuse" {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0");
        (device.into(), options)
    } else {
        let (reader, writer) = nix::unistd::pipe()?;
        let group = std::process::id();
        let options = format!(
            "fd={},pgrp={group},minproto=5,maxproto=5,direct",
            writer.as_raw_fd()
        );
        std::mem::forget(reader);
        (writer, options)
    };
    mount(
        Some("nobody"),
        at,
        Some(kind),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    // Kept open until the guest ends.
    std::mem::forget(server);
    Ok(())
}
