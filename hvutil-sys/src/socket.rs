//! Passing descriptors to another process (man 7 unix, `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// The most descriptors one message takes (`SCM_MAX_FD` in `include/net/scm.h`).
pub const MOST_DESCRIPTORS: usize = 253;

/// Sends one message with descriptors, of which at most [`MOST_DESCRIPTORS`] fit. Does not raise SIGPIPE.
///
/// # Errors
/// `EINVAL` for too many, `EPIPE` when the other end is gone, or what the kernel says.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[_] = if raw.is_empty() { &[] } else { &rights };
    let parts = [IoSlice::new(message)];
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<()>(socket, &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one message into `buffer`; its length, and the descriptors that came with it, closed on exec.
///
/// # Errors
/// What the kernel says; `InvalidData` when descriptors were lost.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; MOST_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let socket = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel just installed these descriptors for us, and nothing else owns them.
            let owned = raw
                .into_iter()
                .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            descriptors.extend(owned);
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "descriptors were lost: the limit of open files is too low",
        ));
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn as_many_descriptors_as_a_message_takes_arrive() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        let many = vec![file.as_fd(); MOST_DESCRIPTORS];
        send(&here, b"take these", &many).unwrap();
        let mut buffer = [0; 64];
        let (length, descriptors) = receive(&there, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"take these");
        assert_eq!(descriptors.len(), MOST_DESCRIPTORS);
        let mut last = std::fs::File::from(descriptors.into_iter().next_back().unwrap());
        last.rewind().unwrap();
        let mut text = String::new();
        last.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_message_without_descriptors_is_one_too() {
        let (here, there) = UnixDatagram::pair().unwrap();
        send(&here, b"x", &[]).unwrap();
        let (length, descriptors) = receive(&there, &mut [0; 8]).unwrap();
        assert_eq!((length, descriptors.len()), (1, 0));
    }
}
