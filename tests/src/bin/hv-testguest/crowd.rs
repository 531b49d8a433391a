//! An ordinary user who does with mounts what the kernel lets him do in namespaces of his own: a table of any length, as many
//! namespaces as he likes, and changes all the time.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{Gid, Uid, chdir, setgid, setuid};

use crate::Outcome;

/// A name as long as names may be, and how many of them a path has: the kernel takes 4,096 bytes at once.
const NAME: usize = 250;
const DEPTH: usize = 15;

/// Where he mounts.
const PLACE: &str = "/mnt";

/// Makes so many binds and namespaces as user `uid`, says `ready`, and goes on mounting and unmounting.
pub(crate) fn run(uid: &str, binds: &str, namespaces: &str) -> Outcome {
    let uid: u32 = uid.parse()?;
    setgid(Gid::from_raw(uid))?;
    setuid(Uid::from_raw(uid))?;
    // Or its files in /proc would be root's.
    set_dumpable(true)?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {uid} 1"))?;
    let _members: Vec<Child> = (0..namespaces.parse()?)
        .map(|_| {
            let mut member = Command::new("/proc/self/exe");
            member.arg("crowd-member").stdin(Stdio::piped()).spawn()
        })
        .collect::<Result<_, _>>()?;
    mount(
        Some("crowd"),
        PLACE,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    chdir(PLACE)?;
    for _ in 0..DEPTH {
        let name = "n".repeat(NAME);
        fs::create_dir(&name)?;
        chdir(name.as_str())?;
    }
    fs::create_dir("source")?;
    for bind in 0..binds.parse()? {
        let name: String = format!("{bind}");
        fs::create_dir(&name)?;
        bind_here("source", &name)?;
    }
    println!("ready");
    std::io::stdout().flush()?;
    loop {
        bind_here("source", "source")?;
        umount2("source", MntFlags::MNT_DETACH)?;
    }
}

fn bind_here(source: &str, at: &str) -> nix::Result<()> {
    mount(
        Some(source),
        at,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
}

/// A process with a mount namespace of its own, until its parent is gone.
pub(crate) fn member() -> Outcome {
    unshare(CloneFlags::CLONE_NEWNS)?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
