//! The channel to the driver: the character device `/dev/vmbus/hv_vss` (`drivers/hv/hv_utils_transport.c`).
//!
//! `read` on the device ignores `O_NONBLOCK`, so every read here polls first; a caller never blocks.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerocopy::IntoBytes;

use crate::vss::{MESSAGE_SIZE, Operation, REGISTERED_SIZE, Reply, Request, Status};

/// Where the driver puts its device.
pub const DEFAULT_PATH: &str = "/dev/vmbus/hv_vss";

/// An open channel. While it lives no other process can open the device; dropping it fails an open transaction at once.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

/// What one read of the channel brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A well-formed request.
    Request(Request),
    /// Bytes that are no message: their number.
    Malformed(usize),
    /// Nothing is there to read.
    Nothing,
    /// The driver tears the channel down, which waits until the channel is dropped.
    Closed,
}

/// The device could not be opened.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

impl OpenError {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The device does not exist: no such service, or no driver.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.errno() {
            Some(libc::ENOENT) => write!(
                f,
                "{path} does not exist: this machine is no guest of Hyper-V (Windows Server 2012 R2 or newer), or the \
                 virtual machine's integration service \"Backup (volume checkpoint)\" is switched off, or the driver \
                 is not loaded (try: modprobe hv_utils)"
            ),
            Some(libc::EBUSY) => write!(
                f,
                "{path} is in use by another agent: stop it first (for the distribution's own: systemctl disable \
                 --now hv-vss-daemon.service, hypervvssd.service or hv_vss_daemon.service)"
            ),
            Some(libc::EACCES | libc::EPERM) => {
                write!(f, "{path} may be opened by root only: run this as root")
            }
            Some(libc::EBADF) => write!(
                f,
                "{path} is being torn down by the driver: try again in a moment"
            ),
            _ => write!(f, "{path} cannot be opened"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Where the text says what to do, the bare error number adds nothing.
        match self.errno() {
            Some(libc::ENOENT | libc::EBUSY | libc::EACCES | libc::EPERM | libc::EBADF) => None,
            _ => Some(&self.source),
        }
    }
}

impl Channel {
    /// Opens the device at `path`; registers nothing yet.
    ///
    /// # Errors
    /// [`OpenError`], whose text says what to do for a device that is absent, busy or forbidden.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .map(|file| Self { fd: file.into() })
            .map_err(|source| OpenError {
                path: path.to_owned(),
                source,
            })
    }

    /// A channel over a descriptor that keeps message boundaries, such as a `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Registers as the agent: the driver is ready only once its acknowledgement has been read.
    ///
    /// # Errors
    /// `TimedOut` when the driver does not acknowledge within `limit`, `InvalidData` when it answers something else,
    /// or what the kernel says.
    pub fn register(&self, limit: Duration) -> io::Result<()> {
        self.send(Request::new(Operation::REGISTER1).as_bytes())?;
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        if self.wait_readable(timeout)?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the driver did not acknowledge the registration",
            ));
        }
        let mut buffer = [0; MESSAGE_SIZE];
        let length = nix::unistd::read(&self.fd, &mut buffer)?;
        let expected = u32::from(Operation::REGISTER1.0).to_ne_bytes();
        if length == REGISTERED_SIZE && buffer.starts_with(&expected) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the driver acknowledged the registration with {length} unexpected bytes"),
        ))
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// What the kernel says to `poll` or `read`, other than an interruption.
    pub fn receive(&self) -> io::Result<Received> {
        let ready = self.wait_readable(PollTimeout::ZERO)?;
        if ready.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return Ok(Received::Closed);
        }
        if !ready.contains(PollFlags::POLLIN) {
            // A hang-up without data: a message that came before it is read first.
            return Ok(if ready.contains(PollFlags::POLLHUP) {
                Received::Closed
            } else {
                Received::Nothing
            });
        }
        // Larger than any message: the driver keeps a message that does not fit, for ever.
        let mut buffer = [0; 256];
        match nix::unistd::read(&self.fd, &mut buffer) {
            Ok(0) | Err(Errno::EBADF | Errno::ECONNRESET) => Ok(Received::Closed),
            Ok(length) => Ok(buffer
                .get(..length)
                .and_then(Request::decode)
                .map_or(Received::Malformed(length), Received::Request)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Received::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether something is there to read, or the channel is torn down. Messages have no numbers (`vss_on_msg` in drivers/hv/hv_snapshot.c): with a
    /// request unread, a reply to the one before would be taken for that one's.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.wait_readable(PollTimeout::ZERO)
            .is_ok_and(|ready| !ready.is_empty())
    }

    /// Answers the open request.
    ///
    /// # Errors
    /// `EINVAL` when no request is open any more: the driver gave up waiting, or faked a THAW for hibernation.
    /// After a FREEZE that means: the host was told failure, thaw now.
    pub fn reply(&self, status: Status) -> io::Result<()> {
        self.send(Reply::new(status).as_bytes())
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        loop {
            match nix::unistd::write(&self.fd, message) {
                Ok(length) if length == message.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn wait_readable(&self, timeout: PollTimeout) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(fds
            .first()
            .and_then(PollFd::revents)
            .unwrap_or(PollFlags::empty()))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;

    fn pair() -> (Channel, UnixDatagram) {
        let (agent, driver) = UnixDatagram::pair().unwrap();
        (Channel::from_fd(agent.into()), driver)
    }

    #[test]
    fn registration_needs_the_four_byte_acknowledgement() {
        let (channel, driver) = pair();
        driver.send(&129_u32.to_ne_bytes()).unwrap();
        channel.register(Duration::from_secs(5)).unwrap();
        let mut sent = [0; 64];
        assert_eq!(driver.recv(&mut sent).unwrap(), MESSAGE_SIZE);
        assert_eq!(sent[..12], [129, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_wrong_acknowledgement_is_refused() {
        let (channel, driver) = pair();
        driver.send(&128_u32.to_ne_bytes()).unwrap();
        let error = channel.register(Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_silent_driver_does_not_hold_the_agent() {
        let (channel, _driver) = pair();
        let error = channel.register(Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn requests_and_garbage_are_told_apart() {
        let (channel, driver) = pair();
        assert_eq!(channel.receive().unwrap(), Received::Nothing);
        driver
            .send(Request::new(Operation::FREEZE).as_bytes())
            .unwrap();
        driver.send(&[6; 40]).unwrap();
        assert_eq!(
            channel.receive().unwrap(),
            Received::Request(Request::new(Operation::FREEZE))
        );
        assert!(channel.has_unread());
        assert_eq!(channel.receive().unwrap(), Received::Malformed(40));
        assert!(!channel.has_unread());
    }

    #[test]
    fn an_absent_device_says_what_to_do() {
        let error = Channel::open(Path::new("/nonexistent/hv_vss")).unwrap_err();
        assert!(error.is_absent());
        assert!(error.to_string().contains("modprobe hv_utils"), "{error}");
    }

    #[test]
    fn busy_forbidden_and_other_errors_say_what_to_do() {
        let text = |errno| {
            OpenError {
                path: DEFAULT_PATH.into(),
                source: io::Error::from_raw_os_error(errno),
            }
            .to_string()
        };
        assert!(text(libc::EBUSY).contains("stop it first"));
        assert!(text(libc::EACCES).contains("run this as root"));
        assert!(text(libc::EBADF).contains("try again"));
        assert!(text(libc::EIO).contains("cannot be opened"));
    }

    #[test]
    fn a_file_that_is_no_channel_fails_to_register() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
        let channel = Channel::open(file.path()).unwrap();
        assert!(channel.register(Duration::from_millis(10)).is_err());
    }
}
