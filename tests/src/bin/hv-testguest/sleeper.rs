//! A program that sleeps in a system call while it holds write access to a file system, as
//! `pv`, `cat` and backup tools do behind a silent pipe or a dead server.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;

use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::sendfile::sendfile64;
use nix::unistd::{Gid, Uid, setgid, setuid};

use crate::Outcome;

/// As much as one call moves.
const CHUNK: usize = 65536;

/// How it writes.
#[derive(Clone, Copy)]
enum How {
    /// splice(2) from a pipe.
    Splice,
    /// What Rust's library makes of a copy from a pipe: splice(2), too.
    Copy,
    /// sendfile(2) from a file.
    Sendfile,
    /// write(2) of memory that is mapped from a file.
    Map,
}

/// Writes what comes out of `source` to `file`, as user `uid`, in the last of so many threads; the others do nothing.
pub(crate) fn run(how: &str, file: &str, source: &str, uid: &str, threads: &str) -> Outcome {
    let how = match how {
        "splice" => How::Splice,
        "copy" => How::Copy,
        "sendfile" => How::Sendfile,
        "map" => How::Map,
        other => return Err(format!("no way to sleep: {other}").into()),
    };
    let target = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(file)?;
    let source = match how {
        How::Splice | How::Copy => {
            // Its own end for writing: the pipe never ends.
            let mut pipe = File::options().read(true).write(true).open(source)?;
            pipe.write_all(b"x")?;
            pipe
        }
        How::Sendfile | How::Map => File::open(source)?,
    };
    let uid = uid.parse()?;
    if uid != 0 {
        setgid(Gid::from_raw(uid))?;
        setuid(Uid::from_raw(uid))?;
    }
    let threads: u32 = threads.parse()?;
    for _ in 2..threads {
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
    }
    if threads < 2 {
        return Ok(write(how, source, target)?);
    }
    let last = thread::spawn(move || write(how, source, target));
    let outcome = last.join().map_err(|_| "the thread has panicked")?;
    Ok(outcome?)
}

fn write(how: How, mut source: File, mut target: File) -> io::Result<()> {
    match how {
        How::Splice => loop {
            let none = SpliceFFlags::empty();
            if splice(source.as_fd(), None, target.as_fd(), None, CHUNK, none)? == 0 {
                return Ok(());
            }
        },
        How::Copy => io::copy(&mut source, &mut target).map(|_| ()),
        How::Sendfile => Ok(sendfile64(target.as_fd(), source.as_fd(), None, CHUNK).map(|_| ())?),
        How::Map => write_mapped(&source, &mut target),
    }
}

/// Writes a page that is mapped from a file: the kernel reads it while it holds write access.
#[expect(
    unsafe_code,
    reason = "memory is mapped from a file, and lent to write(2)"
)]
fn write_mapped(source: &File, target: &mut File) -> io::Result<()> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap};
    const PAGE: usize = 4096;
    let len = std::num::NonZeroUsize::new(PAGE).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a mapping of its own, at an address that the kernel chooses; never unmapped.
    let page = unsafe {
        mmap(
            None,
            len,
            ProtFlags::PROT_READ,
            MapFlags::MAP_PRIVATE,
            source,
            0,
        )
    }?;
    // SAFETY: PAGE bytes are mapped there for reading until the process ends. Only the kernel looks at
    // them, and it answers a page that cannot be had with EFAULT.
    let bytes = unsafe { std::slice::from_raw_parts(page.as_ptr().cast::<u8>(), PAGE) };
    target.write(bytes).map(|_| ())
}
