//! Device nodes below `/dev`, found without following what others than root can write.
//!
//! A look-up of a name may lead anywhere: through a link in /dev/shm to a FUSE server that never answers. Here it goes one component at a time, never leaves the
//! file system of `/dev`, takes links of root's in directories of root's alone, and opens nothing on its way.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hvutil_sys::loopdev::{Backing, backing};
use hvutil_sys::mount::{Status, status};
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

use super::device::DeviceNumber;

/// The kernel gives up at 40 links on the way; the longest of udev's has two.
const MAX_LINKS: usize = 8;

/// How long the kernel may take to tell what is behind a loop device: it asks the file system of the file, which may be a dead server's.
const LOOP_TIMEOUT: Duration = Duration::from_millis(300);

/// How long all loop devices of a scan together may: what is not told by then stays unknown.
pub(super) const LOOPS_TIMEOUT: Duration = Duration::from_secs(1);

/// The block device that `path` names.
pub(super) fn resolve(path: &Path) -> Option<DeviceNumber> {
    walk(path).map(|(_, number)| number)
}

/// What is behind a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// A block device, whatever its node is called and wherever it lies.
    Device(DeviceNumber),
    /// A file; on the superblock of this number, if it is told. A btrfs subvolume has a number of its own.
    File(Option<DeviceNumber>),
    /// Nobody tells.
    Unknown,
}

/// What the kernel has behind the loop device `dev`, by number. Waits for [`LOOP_TIMEOUT`], and until `deadline`, at most.
pub(super) fn behind_loop(name: &str, dev: DeviceNumber, deadline: Instant) -> Behind {
    let path = Path::new("/dev").join(name);
    let Some((node, _)) = walk(&path).filter(|(_, number)| *number == dev) else {
        return Behind::Unknown;
    };
    let (sender, receiver) = mpsc::channel();
    let ask = move || {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let link = PathBuf::from(format!("/proc/self/fd/{}", node.as_raw_fd()));
        let device = open(&link, flags, Mode::empty()).map(File::from).ok();
        let number = device.and_then(|device| backing(&device).ok());
        // Whoever asked may have gone.
        let _ = sender.send(number);
    };
    let thread = thread::Builder::new().name("loop device".to_owned());
    let timeout = LOOP_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
    let told = match thread.spawn(ask) {
        Ok(_) => receiver.recv_timeout(timeout).ok().flatten(),
        Err(_) => None,
    };
    match told {
        Some(Backing::Device((major, minor))) => Behind::Device(DeviceNumber::new(major, minor)),
        Some(Backing::File((major, minor))) => Behind::File(Some(DeviceNumber::new(major, minor))),
        None => Behind::Unknown,
    }
}

/// The node of a block device, opened as a path alone.
fn walk(path: &Path) -> Option<(OwnedFd, DeviceNumber)> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let top = open("/dev", flags | OFlag::O_DIRECTORY, Mode::empty()).ok()?;
    let dev = trusted(&top)?.device;
    let mut above = vec![top];
    let mut rest = components(path.strip_prefix("/dev").ok()?)?;
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            above.pop();
            // It would leave /dev.
            above.last()?;
            continue;
        }
        let here = openat(above.last()?, part.as_os_str(), flags, Mode::empty()).ok()?;
        let found = status(&here).ok().filter(|found| found.device == dev)?;
        match found.kind {
            libc::S_IFDIR => {
                trusted(&here)?;
                above.push(here);
            }
            libc::S_IFLNK if found.owner == 0 && links < MAX_LINKS => {
                links += 1;
                let target = PathBuf::from(readlinkat(&here, "").ok()?);
                let target = match target.is_absolute() {
                    true => {
                        above.truncate(1);
                        target.strip_prefix("/dev").ok()?
                    }
                    false => target.as_path(),
                };
                rest.extend(components(target)?);
            }
            libc::S_IFBLK if rest.is_empty() => {
                let (major, minor) = found.node;
                return Some((here, DeviceNumber::new(major, minor)));
            }
            _ => return None,
        }
    }
    None
}

/// A directory in which root alone makes names.
fn trusted(directory: &OwnedFd) -> Option<Status> {
    let found = status(directory).ok()?;
    (found.owner == 0 && found.mode & 0o022 == 0).then_some(found)
}

/// The last first.
fn components(path: &Path) -> Option<Vec<OsString>> {
    let mut parts = Vec::new();
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => parts.push(name.to_owned()),
            Component::ParentDir => parts.push("..".into()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

    use super::*;

    /// A block device that this machine has a node of.
    fn any_node() -> Option<(PathBuf, DeviceNumber)> {
        let nodes = std::fs::read_dir("/dev").ok()?.flatten();
        let mut nodes = nodes.filter_map(|entry| {
            let found = std::fs::symlink_metadata(entry.path()).ok()?;
            let number = DeviceNumber::from_raw(found.rdev());
            let is_block = found.file_type().is_block_device();
            is_block.then_some((entry.path(), number))
        });
        nodes.next()
    }

    fn needs_root() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test needs root: it makes links in /dev"
        );
    }

    /// Removed on drop.
    struct Link(PathBuf);

    impl Link {
        fn new(at: String, target: &Path) -> Self {
            let _ = std::fs::remove_file(&at);
            symlink(target, &at).unwrap();
            Self(at.into())
        }
    }

    impl Drop for Link {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_node_and_a_link_of_roots_to_it_lead_to_the_device() {
        needs_root();
        let (node, number) = any_node().unwrap();
        assert_eq!(resolve(&node), Some(number));
        let id = std::process::id();
        let link = Link::new(format!("/dev/hv-vssd-link-{id}"), &node);
        assert_eq!(resolve(&link.0), Some(number), "absolute");
        let name = Path::new(node.file_name().unwrap());
        let link = Link::new(format!("/dev/hv-vssd-relative-{id}"), name);
        assert_eq!(resolve(&link.0), Some(number), "relative");
    }

    #[test]
    fn a_link_where_others_can_write_or_out_of_dev_leads_nowhere() {
        needs_root();
        let (node, _) = any_node().unwrap();
        let id = std::process::id();
        let shared = Link::new(format!("/dev/shm/hv-vssd-link-{id}"), &node);
        assert_eq!(resolve(&shared.0), None, "in /dev/shm");
        let to_shared = Link::new(format!("/dev/hv-vssd-to-shared-{id}"), &shared.0);
        assert_eq!(resolve(&to_shared.0), None, "to /dev/shm");
        let out = Link::new(
            format!("/dev/hv-vssd-out-{id}"),
            Path::new("../proc/self/exe"),
        );
        assert_eq!(resolve(&out.0), None, "out of /dev");
        let out = Link::new(
            format!("/dev/hv-vssd-away-{id}"),
            Path::new("/proc/self/exe"),
        );
        assert_eq!(resolve(&out.0), None, "to /proc");
        let itself = format!("/dev/hv-vssd-circle-{id}");
        let circle = Link::new(itself.clone(), Path::new(&itself));
        assert_eq!(resolve(&circle.0), None, "a circle");
        for path in [
            "/dev",
            "/dev/",
            "/dev/..",
            "/dev/null",
            "/dev/none",
            "/etc/passwd",
            "sda",
        ] {
            assert_eq!(resolve(Path::new(path)), None, "{path}");
        }
    }
}
