//! Loop devices that detach themselves when the last user lets go (`drivers/block/loop.c`; man 4 loop).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use zerocopy::{FromZeros, Immutable, IntoBytes};

/// `struct loop_info64` of `include/uapi/linux/loop.h`, as far as it is used here.
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct LoopInfo64 {
    file_system: u64,
    inode: u64,
    node: u64,
    before_flags: [u8; 28],
    flags: u32,
    after_flags: [u8; 176],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232);

/// `LO_FLAGS_AUTOCLEAR`: detach at the last close.
const AUTOCLEAR: u32 = 4;

mod ioctl {
    // include/uapi/linux/loop.h
    nix::ioctl_none_bad!(get_free, 0x4C82);
    nix::ioctl_write_int_bad!(set_fd, 0x4C00);
    nix::ioctl_write_ptr_bad!(set_status, 0x4C04, super::LoopInfo64);
    nix::ioctl_read_bad!(get_status, 0x4C05, super::LoopInfo64);
    nix::ioctl_none_bad!(clear_fd, 0x4C01);
}

/// What is behind a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// The block device of this number (major, minor).
    Device((u32, u32)),
    /// A file, and the number of its file system, as `stat` has it.
    File((u32, u32)),
}

/// What is behind the loop device `device`.
///
/// The kernel asks the file's file system (`loop_get_status` in drivers/block/loop.c), so this may wait for a server that does not answer.
///
/// # Errors
/// `ENXIO` when nothing is behind it, or what the file system says.
pub fn backing(device: impl AsFd) -> io::Result<Backing> {
    let mut info = LoopInfo64::new_zeroed();
    // SAFETY: `info` is a whole LoopInfo64 that lives through the call, which only writes it; any bytes are a value of it.
    unsafe { ioctl::get_status(device.as_fd().as_raw_fd(), &raw mut info) }?;
    let number = |raw| (libc::major(raw), libc::minor(raw));
    Ok(match info.node {
        0 => Backing::File(number(info.file_system)),
        node => Backing::Device(number(node)),
    })
}

/// A loop device over a file. Detached on drop, or by the kernel after the last unmount should the process die.
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches `backing` (open for reading and writing) to a free loop device.
    ///
    /// # Errors
    /// What the kernel says: no loop driver, no free device, no right to it.
    pub fn attach(backing: &File) -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        loop {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { ioctl::get_free(control.as_raw_fd()) }?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(true).open(&path)?;
            // SAFETY: LOOP_SET_FD takes a descriptor number, borrowed for the call.
            match unsafe { ioctl::set_fd(device.as_raw_fd(), backing.as_fd().as_raw_fd()) } {
                Ok(_) => {
                    let this = Self { device, path };
                    this.detach_when_unused()?;
                    return Ok(this);
                }
                // Another process took the device between the two calls.
                Err(nix::Error::EBUSY) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The device's node.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn detach_when_unused(&self) -> io::Result<()> {
        let mut info = LoopInfo64::new_zeroed();
        info.flags = AUTOCLEAR;
        // SAFETY: `info` is a whole LoopInfo64 that lives through the call, which only reads it.
        unsafe { ioctl::set_status(self.device.as_raw_fd(), &raw const info) }?;
        Ok(())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // SAFETY: LOOP_CLR_FD takes no argument. A failure leaves the kernel's own detaching to do the work.
        let _ = unsafe { ioctl::clear_fd(self.device.as_raw_fd()) };
    }
}
