//! The guardian's end of the wire, with messages that no agent of ours sends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scratch;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hv_vssd::quiesce::ledger::{Ledger, Mark, Place};
use hvutil_sys::{freeze, mount, socket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use scratch::{Disk, PATIENCE, in_namespace, until};

struct Wire {
    socket: OwnedFd,
    child: Child,
}

impl Wire {
    fn start() -> Self {
        let mut wire = Self::start_for(std::process::id());
        assert_eq!(wire.answer(), Some(b'R'));
        assert!(wire.child.try_wait().unwrap().is_none());
        wire
    }

    fn start_for(agent: u32) -> Self {
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
            .args(["guardian", "--agent", &agent.to_string()])
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        Self { socket, child }
    }

    /// One byte, or `None` when the other end has closed.
    fn answer(&self) -> Option<u8> {
        let timeout = PollTimeout::try_from(PATIENCE).unwrap();
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        assert_eq!(
            poll(&mut fds, timeout).unwrap(),
            1,
            "the guardian is silent"
        );
        let mut buffer = [0; 8];
        match socket::receive(&self.socket, &mut buffer) {
            Ok((1, _)) => Some(buffer[0]),
            Ok((0, _)) => None,
            // It left messages unread.
            Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => None,
            other => panic!("{other:?}"),
        }
    }

    fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) {
        socket::send(&self.socket, message, descriptors).unwrap();
    }

    fn arm(&self, handles: u32, limit: Duration, ledger: &Ledger) {
        let limit = u64::try_from(limit.as_millis()).unwrap();
        let message = [&b"A"[..], &handles.to_le_bytes(), &limit.to_le_bytes()].concat();
        self.send(&message, &[ledger.file().as_fd()]);
    }

    fn hand_over(&self, ledger: &Ledger, index: usize, fd: BorrowedFd<'_>) {
        let offset = u32::try_from(ledger.offset(index).unwrap()).unwrap();
        let message = [&b"H"[..], &0_u32.to_le_bytes(), &offset.to_le_bytes()].concat();
        // The other end is gone, as with an agent that asks for no call.
        let (_, socket) = std::os::unix::net::UnixStream::pair().unwrap();
        self.send(&message, &[fd, socket.as_fd()]);
    }

    fn ends(&mut self) {
        until("the guardian to end", || {
            self.child.try_wait().unwrap().is_some()
        });
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn garbage() -> Vec<Vec<u8>> {
    let mut long = vec![b'H'];
    long.extend([0; 4096]);
    vec![
        b"Z".to_vec(),
        b"A".to_vec(),
        b"A123".to_vec(),
        b"H1234567".to_vec(),
        b"Dx".to_vec(),
        b"L".to_vec(),
        // Orders that want descriptors, without any.
        [&b"A"[..], &[0; 12]].concat(),
        [&b"H"[..], &[0; 8]].concat(),
        long,
    ]
}

#[test]
fn garbage_ends_a_guardian_that_watches_over_nothing() {
    in_namespace(|_| {
        for message in garbage() {
            let mut wire = Wire::start();
            wire.send(&message, &[]);
            wire.ends();
            assert_eq!(wire.answer(), None, "{message:?}");
        }
    });
}

#[test]
fn garbage_from_the_agent_of_a_frozen_disk_is_taken_for_its_death() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        for message in garbage() {
            let ledger = Ledger::create(&Place::Memory, [disk.target(&[])].iter()).unwrap();
            let mut wire = Wire::start();
            let root = File::open(&disk.mount_point).unwrap();
            let root = mount::open_root(mount::clone_mount(&root).unwrap()).unwrap();
            wire.arm(1, PATIENCE * 10, &ledger);
            wire.hand_over(&ledger, 0, root.as_fd());
            assert_eq!(wire.answer(), Some(b'A'));
            freeze::freeze(&root).unwrap();
            ledger.set(0, Mark::Frozen);
            wire.send(&message, &[]);
            wire.ends();
            assert_eq!(ledger.get(0), Some(Mark::Thawed), "{message:?}");
            assert!(!disk.is_frozen());
        }
    });
}

#[test]
fn an_agent_that_is_not_the_parent_is_not_served() {
    in_namespace(|_| {
        let mut wire = Wire::start_for(1);
        wire.ends();
        assert_eq!(wire.answer(), None);
    });
}

#[test]
fn it_answers_only_when_every_handle_has_come() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let targets = [disk.target(&[]), disk.target(&[])];
        let ledger = Ledger::create(&Place::Memory, targets.iter()).unwrap();
        let root = File::open(&disk.mount_point).unwrap();
        let wire = Wire::start();
        // Without the second handle: the next arming, complete, is the one that is answered, and once.
        wire.arm(2, PATIENCE * 10, &ledger);
        wire.hand_over(&ledger, 0, root.as_fd());
        wire.arm(2, PATIENCE * 10, &ledger);
        wire.hand_over(&ledger, 0, root.as_fd());
        wire.hand_over(&ledger, 1, root.as_fd());
        assert_eq!(wire.answer(), Some(b'A'));
        wire.send(b"D", &[]);
        // Nothing at all to guard is complete at once.
        wire.arm(0, PATIENCE * 10, &ledger);
        assert_eq!(wire.answer(), Some(b'A'));
        let mut fds = [PollFd::new(wire.socket.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 0);
    });
}

#[test]
fn a_ledger_that_is_empty_or_cannot_be_mapped_is_no_arming() {
    in_namespace(|_| {
        let empty = tempfile::tempfile().unwrap();
        let null = File::open("/dev/null").unwrap();
        for file in [&empty, &null] {
            let mut wire = Wire::start();
            let message = [&b"A"[..], &1_u32.to_le_bytes(), &60_000_u64.to_le_bytes()].concat();
            wire.send(&message, &[file.as_fd()]);
            wire.ends();
            assert_eq!(wire.answer(), None);
        }
    });
}
