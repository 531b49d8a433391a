//! Safe bindings to the kernel interfaces a Hyper-V quiescing agent needs.
//!
//! | module | kernel interface |
//! |---|---|
//! | [`vss`] | the messages of `/dev/vmbus/hv_vss` (`include/uapi/linux/hyperv.h`) |
//! | [`device`] | the channel itself: open, register, read a request, write a reply |
//! | [`freeze`] | `FIFREEZE`, `FITHAW`, `syncfs` (`fs/ioctl.c`, `fs/super.c`) |
//! | [`mount`] | `open_tree`, `fsopen`/`fsmount`, the mount id of a file descriptor |
//! | [`namespace`] | whose a namespace is (`fs/nsfs.c`) |
//! | [`loopdev`] | loop devices that detach themselves (`drivers/block/loop.c`) |
//! | [`shared`] | a file mapped shared (`mmap`) |
//! | [`socket`] | passing descriptors (`SCM_RIGHTS`) |
//! | [`child`] | a thaw in a process of its own (`fork`) |
//! | [`btrfs`] | what a btrfs is busy with (`BTRFS_IOC_SCRUB_PROGRESS`) |
//! | [`exec`] | executing a descriptor (`execveat`) |
//! | [`hypervisor`] | the hypervisor's name (CPUID) |
//! | [`ptrace`] | interrupting another process's system call (`kernel/ptrace.c`) |
//! | [`memory`] | `mlockall`, `PR_SET_IO_FLUSHER` |
//!
//! This is the only crate of the project with `unsafe` code; every block says why it is sound.

#![expect(
    unsafe_code,
    reason = "system calls and ioctls that no safe library offers; nowhere else in the project"
)]

pub mod btrfs;
pub mod child;
pub mod device;
pub mod exec;
pub mod freeze;
pub mod hypervisor;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod ptrace;
pub mod shared;
pub mod socket;
pub mod vss;
