//! Whose a namespace is (`fs/nsfs.c`; man 2 ioctl_ns).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::stat::fstat;

/// The ioctl numbers of `include/uapi/linux/nsfs.h`, all `_IO(0xb7, N)`.
mod ioctl {
    nix::ioctl_none!(user_namespace, 0xb7, 1);
    nix::ioctl_none!(parent, 0xb7, 2);
    nix::ioctl_read_bad!(owner, nix::request_code_none!(0xb7, 4), libc::uid_t);
}

/// The user who made the outermost user namespace, below ours, that `namespace` belongs to: an ordinary user, as a rule, who may
/// mount in it what he likes. `None` when it belongs to `ours`, this process's user namespace, or to one above that.
///
/// # Errors
/// `ENOTTY` before Linux 4.11, or when `namespace` is no namespace.
pub fn owner(namespace: impl AsFd, ours: impl AsFd) -> io::Result<Option<u32>> {
    let ours = identity(ours)?;
    // Of a namespace above ours nothing is told.
    let Some(mut user) = or_hidden(user_namespace(namespace))? else {
        return Ok(None);
    };
    if identity(&user)? == ours {
        return Ok(None);
    }
    while let Some(parent) = or_hidden(parent(&user))? {
        if identity(&parent)? == ours {
            break;
        }
        user = parent;
    }
    let mut owner: libc::uid_t = 0;
    // SAFETY: the descriptor is borrowed for the call, which writes one uid_t.
    unsafe { ioctl::owner(user.as_raw_fd(), &raw mut owner) }?;
    Ok(Some(owner))
}

/// What tells one namespace from another.
fn identity(namespace: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = fstat(namespace)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn or_hidden(found: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match found {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
        found => found.map(Some),
    }
}

fn user_namespace(of: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is borrowed for the call, which takes no argument.
    let fd = unsafe { ioctl::user_namespace(of.as_fd().as_raw_fd()) }?;
    // SAFETY: the kernel has just made this descriptor, with O_CLOEXEC, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn parent(of: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is borrowed for the call, which takes no argument.
    let fd = unsafe { ioctl::parent(of.as_fd().as_raw_fd()) }?;
    // SAFETY: the kernel has just made this descriptor, with O_CLOEXEC, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn our_own_belongs_to_nobody_else() {
        let mounts = File::open("/proc/self/ns/mnt").unwrap();
        let users = File::open("/proc/self/ns/user").unwrap();
        assert_eq!(owner(&mounts, &users).unwrap(), None);
    }

    #[test]
    fn what_is_no_namespace_is_an_error() {
        let users = File::open("/proc/self/ns/user").unwrap();
        assert!(owner(File::open("/dev/null").unwrap(), &users).is_err());
    }

    /// As an ordinary user with two user namespaces, one within the other.
    #[test]
    fn that_of_a_user_belongs_to_him_however_deep_it_is() {
        use std::os::unix::fs::MetadataExt;
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};
        // Whoever is no ordinary user becomes one.
        let uid = match std::fs::metadata("/proc/self").unwrap().uid() {
            0 => 65_534,
            own => own,
        };
        let inner = "exec unshare --user --map-root-user --mount cat";
        let mut child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", inner])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .uid(uid)
            .spawn()
            .unwrap();
        let mounts = format!("/proc/{}/ns/mnt", child.id());
        let ours = File::open("/proc/self/ns/user").unwrap();
        let is_cat =
            || std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() == "cat\n";
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !is_cat() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let found = owner(File::open(mounts).unwrap(), &ours);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.unwrap(), Some(uid));
    }
}
