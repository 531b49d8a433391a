//! A system call that a thread sleeps in, as `/proc/PID/syscall` tells it (`man 5 proc`; `proc_pid_syscall` in fs/proc/base.c), and which of them hold write access
//! to a superblock while they sleep. Pure.

use hvutil_sys::freeze::{FIFREEZE, FITHAW};
use libc::c_long;

/// A system call with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    number: c_long,
    arguments: [u64; 6],
    /// Of a 32-bit program, which has other numbers.
    is_32_bit: bool,
}

/// What a system call that matters here does to the file, and how it names that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It holds write access to the superblock of this descriptor. A second look at it, from outside, tells nothing else.
    Writes {
        /// As its manual page names it.
        name: &'static str,
        /// The descriptor.
        fd: i32,
        /// It may be interrupted: the kernel starts it again, or it has done part of its work, which every program must reckon with.
        restarts: bool,
    },
    /// It holds write access to the superblock of a path that the kernel does not tell, if it waits for a lease to be given up.
    MayWrite {
        /// As its manual page names it.
        name: &'static str,
    },
    /// FIFREEZE of the superblock of this descriptor.
    Freezes(i32),
    /// FITHAW.
    Thaws(i32),
}

/// Where a call names its file.
#[derive(Clone, Copy)]
enum File {
    /// In this argument, a descriptor.
    Descriptor(usize),
    /// By a path; it writes if the flags in this argument say O_TRUNC, or always.
    Path(Option<usize>),
    /// It is an ioctl.
    Ioctl,
}

use File::{Descriptor, Ioctl, Path};

/// The numbers of this machine's own programs.
const NATIVE: &[(c_long, &str, File)] = &[
    (libc::SYS_write, "write", Descriptor(0)),
    (libc::SYS_pwrite64, "pwrite64", Descriptor(0)),
    (libc::SYS_writev, "writev", Descriptor(0)),
    (libc::SYS_pwritev, "pwritev", Descriptor(0)),
    (libc::SYS_pwritev2, "pwritev2", Descriptor(0)),
    (libc::SYS_sendfile, "sendfile", Descriptor(0)),
    (libc::SYS_splice, "splice", Descriptor(2)),
    (libc::SYS_copy_file_range, "copy_file_range", Descriptor(2)),
    (libc::SYS_fallocate, "fallocate", Descriptor(0)),
    (libc::SYS_ftruncate, "ftruncate", Descriptor(0)),
    (libc::SYS_truncate, "truncate", Path(None)),
    (libc::SYS_openat, "openat", Path(Some(2))),
    // Its flags are in the program's memory.
    (libc::SYS_openat2, "openat2", Path(None)),
    (libc::SYS_ioctl, "ioctl", Ioctl),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", Path(Some(1))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, "creat", Path(None)),
];

/// Those of 32-bit programs: i386 (arch/x86/entry/syscalls/syscall_32.tbl). x32, which no distribution has, is left out.
#[cfg(target_arch = "x86_64")]
const COMPAT: &[(c_long, &str, File)] = &[
    (4, "write", Descriptor(0)),
    (181, "pwrite64", Descriptor(0)),
    (146, "writev", Descriptor(0)),
    (334, "pwritev", Descriptor(0)),
    (379, "pwritev2", Descriptor(0)),
    (187, "sendfile", Descriptor(0)),
    (239, "sendfile64", Descriptor(0)),
    (313, "splice", Descriptor(2)),
    (377, "copy_file_range", Descriptor(2)),
    (324, "fallocate", Descriptor(0)),
    (93, "ftruncate", Descriptor(0)),
    (194, "ftruncate64", Descriptor(0)),
    (92, "truncate", Path(None)),
    (193, "truncate64", Path(None)),
    (5, "open", Path(Some(1))),
    (8, "creat", Path(None)),
    (295, "openat", Path(Some(2))),
    (437, "openat2", Path(None)),
    (54, "ioctl", Ioctl),
];

/// Those of 32-bit programs: arm (arch/arm/tools/syscall.tbl).
#[cfg(target_arch = "aarch64")]
const COMPAT: &[(c_long, &str, File)] = &[
    (4, "write", Descriptor(0)),
    (181, "pwrite64", Descriptor(0)),
    (146, "writev", Descriptor(0)),
    (362, "pwritev", Descriptor(0)),
    (393, "pwritev2", Descriptor(0)),
    (187, "sendfile", Descriptor(0)),
    (239, "sendfile64", Descriptor(0)),
    (340, "splice", Descriptor(2)),
    (391, "copy_file_range", Descriptor(2)),
    (352, "fallocate", Descriptor(0)),
    (93, "ftruncate", Descriptor(0)),
    (194, "ftruncate64", Descriptor(0)),
    (92, "truncate", Path(None)),
    (193, "truncate64", Path(None)),
    (5, "open", Path(Some(1))),
    (8, "creat", Path(None)),
    (322, "openat", Path(Some(2))),
    (437, "openat2", Path(None)),
    (54, "ioctl", Ioctl),
];

/// Elsewhere 32-bit programs are passed over.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const COMPAT: &[(c_long, &str, File)] = &[];

/// Ioctls that hold write access for as long as they last, by type and number (include/uapi/linux/fs.h and btrfs.h, fs/ext4/ext4.h): clone, balance, scrub, resize …
const WRITING_IOCTLS: &[(u64, u64)] = &[
    (0x94, 2),          // BTRFS_IOC_DEFRAG
    (0x94, 3),          // BTRFS_IOC_RESIZE
    (0x94, 9),          // FICLONE
    (0x94, 10),         // BTRFS_IOC_ADD_DEV
    (0x94, 11),         // BTRFS_IOC_RM_DEV
    (0x94, 12),         // BTRFS_IOC_BALANCE
    (0x94, 13),         // FICLONERANGE
    (0x94, 16),         // BTRFS_IOC_DEFRAG_RANGE
    (0x94, 27),         // BTRFS_IOC_SCRUB
    (0x94, 32),         // BTRFS_IOC_BALANCE_V2
    (0x94, 53),         // BTRFS_IOC_DEV_REPLACE
    (0x94, 54),         // FIDEDUPERANGE
    (0x94, 58),         // BTRFS_IOC_RM_DEV_V2
    (b'f' as u64, 15),  // EXT4_IOC_MOVE_EXT
    (b'f' as u64, 16),  // EXT4_IOC_RESIZE_FS
    (b'X' as u64, 109), // XFS_IOC_SWAPEXT
];

impl Call {
    /// `None` for a thread that runs, or sleeps in no system call.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut fields = text.split_ascii_whitespace();
        let number: c_long = fields.next()?.parse().ok()?;
        if number < 0 {
            return None;
        }
        let mut hexadecimal = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = hexadecimal()?;
        }
        // Nothing else tells it here; no 64-bit program has both its stack and its code so low unless it wants to.
        let (stack, code) = (hexadecimal()?, hexadecimal()?);
        Some(Self {
            number,
            arguments,
            is_32_bit: cfg!(target_pointer_width = "64") && (stack | code) >> 32 == 0,
        })
    }

    /// `None` for one that does not matter here.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        let table = match self.is_32_bit {
            true => COMPAT,
            false => NATIVE,
        };
        let (_, name, file) = table.iter().find(|(number, ..)| *number == self.number)?;
        match *file {
            Descriptor(place) => Some(Meaning::Writes {
                name,
                fd: self.int(place)?,
                restarts: true,
            }),
            Path(flags) => {
                let truncates = match flags {
                    Some(place) => self.int(place)? & libc::O_TRUNC != 0,
                    None => true,
                };
                truncates.then_some(Meaning::MayWrite { name })
            }
            Ioctl => self.ioctl(),
        }
    }

    fn ioctl(&self) -> Option<Meaning> {
        let fd = self.int(0)?;
        let command = self.arguments.get(1)? & u64::from(u32::MAX);
        let kind = ((command >> 8) & 0xff, command & 0xff);
        match command {
            FIFREEZE => Some(Meaning::Freezes(fd)),
            FITHAW => Some(Meaning::Thaws(fd)),
            // A balance that is interrupted is a balance that has been cancelled.
            _ if WRITING_IOCTLS.contains(&kind) => Some(Meaning::Writes {
                name: "ioctl",
                fd,
                restarts: false,
            }),
            _ => None,
        }
    }

    /// An `int`: the upper half of the register is anything.
    fn int(&self, place: usize) -> Option<i32> {
        let low = self.arguments.get(place)? & u64::from(u32::MAX);
        Some(i32::from_ne_bytes(u32::try_from(low).ok()?.to_ne_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: c_long, arguments: [u64; 3], stack: u64) -> String {
        let [a, b, c] = arguments;
        format!("{number} {a:#x} {b:#x} {c:#x} 0x0 0x0 0x0 {stack:#x} 0x401000\n")
    }

    fn meaning(number: c_long, arguments: [u64; 3], stack: u64) -> Option<Meaning> {
        Call::parse(line(number, arguments, stack).as_bytes())?.meaning()
    }

    const STACK: u64 = 0x7ffe_25a0_5648;

    fn writes(name: &'static str, fd: i32) -> Option<Meaning> {
        Some(Meaning::Writes {
            name,
            fd,
            restarts: true,
        })
    }

    #[test]
    fn the_file_that_is_written_to_is_told() {
        for (number, name) in [
            (libc::SYS_write, "write"),
            (libc::SYS_pwrite64, "pwrite64"),
            (libc::SYS_writev, "writev"),
            (libc::SYS_pwritev, "pwritev"),
            (libc::SYS_pwritev2, "pwritev2"),
            (libc::SYS_sendfile, "sendfile"),
            (libc::SYS_fallocate, "fallocate"),
            (libc::SYS_ftruncate, "ftruncate"),
        ] {
            assert_eq!(meaning(number, [3, 4, 5], STACK), writes(name, 3));
        }
        for (number, name) in [
            (libc::SYS_splice, "splice"),
            (libc::SYS_copy_file_range, "copy_file_range"),
        ] {
            assert_eq!(meaning(number, [3, 4, 5], STACK), writes(name, 5));
        }
        assert_eq!(meaning(libc::SYS_read, [3, 4, 5], STACK), None);
        // The upper half of the register is anything.
        let fd = 0xdead_beef_0000_0007;
        assert_eq!(
            meaning(libc::SYS_write, [fd, 0, 0], STACK),
            writes("write", 7)
        );
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn a_32_bit_program_has_other_numbers() {
        let splice = if cfg!(target_arch = "x86_64") {
            313
        } else {
            340
        };
        let stack = 0xffb0_1000;
        assert_eq!(meaning(splice, [3, 0, 5], stack), writes("splice", 5));
        assert_eq!(meaning(4, [3, 0, 5], stack), writes("write", 3));
        assert_eq!(meaning(libc::SYS_splice, [3, 0, 5], stack), None);
    }

    #[test]
    fn ioctls_are_told_apart() {
        let ioctl = |command| meaning(libc::SYS_ioctl, [3, command, 0], STACK);
        assert_eq!(ioctl(0xc004_5877), Some(Meaning::Freezes(3)));
        // A command is an int, and may come with its sign.
        assert_eq!(ioctl(0xffff_ffff_c004_5878), Some(Meaning::Thaws(3)));
        let scrub = Some(Meaning::Writes {
            name: "ioctl",
            fd: 3,
            restarts: false,
        });
        assert_eq!(ioctl(0xc400_941b), scrub);
        // TCGETS
        assert_eq!(ioctl(0x5401), None);
    }

    #[test]
    fn an_open_that_does_not_truncate_holds_nothing() {
        let truncating = (libc::O_WRONLY | libc::O_TRUNC) as u64;
        let open = |flags| meaning(libc::SYS_openat, [0, 0, flags], STACK);
        assert_eq!(open(truncating), Some(Meaning::MayWrite { name: "openat" }));
        assert_eq!(open(libc::O_WRONLY as u64), None);
    }

    #[test]
    fn a_thread_that_runs_or_is_in_no_call_is_in_none() {
        for text in [
            "running\n",
            "-1 0x7ffe00000000 0x401000\n",
            "",
            "1 0x3\n",
            "\u{ff}",
        ] {
            assert_eq!(Call::parse(text.as_bytes()), None, "{text}");
        }
    }
}
