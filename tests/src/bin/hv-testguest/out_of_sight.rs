//! A writer on a disk that no mount table shows: in a namespace that cannot be looked into, or on a detached mount.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};

use crate::{Outcome, writer};

/// Writes to `disk`, an ext4, until it is killed: `how` is `chroot`, `thread` or `detached`.
pub(crate) fn run(how: &str, disk: &str, directory: &str, state: &str) -> Outcome {
    match how {
        // The only process of a namespace, with a root below which nothing of it is mounted.
        "chroot" => {
            let files = in_namespace(disk, directory, state)?;
            let empty = "/run/empty";
            std::fs::create_dir_all(empty)?;
            chroot(empty)?;
            chdir("/")?;
            writer::go_on(files)
        }
        // The only process of a namespace, whose first thread has ended.
        "thread" => {
            let files = in_namespace(disk, directory, state)?;
            let thread = std::thread::spawn(move || {
                if let Err(error) = writer::go_on(files) {
                    eprintln!("hv-testguest: {error}");
                }
            });
            end_this_thread();
            // Not reached.
            thread.join().map_err(|_| "the writer died")?;
            Ok(())
        }
        // A mount in no namespace, held by a descriptor.
        "detached" => {
            let tree = hvutil_sys::mount::mount_device("ext4", Path::new(disk))?;
            let at = format!("/proc/self/fd/{}", tree.as_raw_fd());
            writer::go_on(writer::files(&at, state)?)
        }
        other => Err(format!("no way to be out of sight: {other}").into()),
    }
}

fn in_namespace(
    disk: &str,
    directory: &str,
    state: &str,
) -> Result<[File; 2], Box<dyn std::error::Error>> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none)?;
    mount(Some(disk), directory, Some("ext4"), MsFlags::empty(), none)?;
    writer::files(directory, state)
}

#[expect(unsafe_code, reason = "no crate offers the end of a single thread")]
fn end_this_thread() {
    // SAFETY: exit(2) takes an integer and ends this thread alone; nothing of it is used by the other one, which owns its files.
    unsafe {
        libc::syscall(libc::SYS_exit, 0);
    }
}
