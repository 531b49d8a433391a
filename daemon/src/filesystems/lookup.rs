//! Which superblocks paths lie on: as a look-up of the path finds them, or by the mount table alone, where nothing may be waited for.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hvutil_sys::mount;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::device::DeviceNumber;
use super::error::ScanError;
use super::identity::Identities;
use super::mount_table::MountTable;
use super::mountinfo::{self, Mount};
use super::plan::Plan;
use super::policy::Policy;
use super::reason::Reason;
use super::roots::DeviceNodes;
use super::scan::{Scan, scan};
use super::text::printable;
use super::tree::MountTree;

/// Why a path leads to no file system that can be frozen.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The mount table or what lies beneath it cannot be read.
    #[error("the file systems of this machine cannot be listed")]
    Scan(#[from] ScanError),
    /// It does not exist, or cannot be reached.
    #[error("{path} cannot be used", path = printable(.0))]
    Path(PathBuf, #[source] io::Error),
    /// It lies on a mount that the mount table does not have.
    #[error("{path} is on no file system of the mount table: see 'hv-vssd plan --all'", path = printable(.0))]
    Unknown(PathBuf),
    /// No mount point leads there.
    #[error(
        "{path} is on no file system of the mount table: name a mount point as 'hv-vssd plan' shows it", path = printable(.0)
    )]
    NotMounted(PathBuf),
    /// It is a device, and so is none of what is mounted.
    #[error(
        "{path} is a block device, and no file system of it is mounted here: see 'hv-vssd plan --all'", path = printable(.0)
    )]
    DeviceNotMounted(PathBuf),
    /// Its look-up waits, and the mount table alone does not tell.
    #[error(
        "the look-up of {path} does not return: name a mount point as 'hv-vssd plan --all' shows it", path = printable(.0)
    )]
    Waits(PathBuf),
    /// Its file system is left out of every checkpoint.
    #[error(
        "{path} is on a file system that is not frozen ({fstype} on {dev}): {reason}",
        path = printable(.path)
    )]
    LeftOut {
        /// The path as it was given.
        path: PathBuf,
        /// The type of its file system.
        fstype: String,
        /// Which that is.
        dev: DeviceNumber,
        /// Why it is left out.
        reason: Reason,
    },
}

/// The superblocks that `paths` lie on, each once, as a checkpoint under `policy` would freeze them. Paths are looked up: to be called
/// before anything is frozen.
///
/// # Errors
/// [`LookupError`], for the first path that stands for nothing that can be frozen.
pub fn planned_at(paths: &[PathBuf], policy: &Policy) -> Result<Vec<DeviceNumber>, LookupError> {
    // Looking a path up may mount something: so before the table is read.
    let mut ids = Vec::with_capacity(paths.len());
    for path in paths {
        let id = mount_of(path).map_err(|error| LookupError::Path(path.clone(), error))?;
        ids.push((path, id));
    }
    let scan = scan()?;
    let plan = Plan::new(&scan, policy);
    each_once(ids.into_iter(), |(path, id)| {
        planned(path, id, &scan, &plan)
    })
}

/// The superblocks that `paths` lie on, each once, in our own mount namespace: by the mount table alone, so symbolic links are not followed.
///
/// # Errors
/// [`LookupError`], for the first path that no mount point leads to.
pub fn devices_at(paths: &[PathBuf]) -> Result<Vec<DeviceNumber>, LookupError> {
    devices_in(&own_table()?, paths)
}

/// A mount of our own mount namespace, and how a path led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its id.
    pub id: u64,
    /// Its superblock.
    pub dev: DeviceNumber,
    /// The type of that.
    pub fstype: String,
    /// The source of that.
    pub source: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The look-up did not return in time: by the mount table the path lies there, should no symbolic link lead elsewhere.
    pub is_guess: bool,
}

impl Located {
    fn of(mount: Mount<'_>) -> Self {
        Self {
            id: mount.id,
            dev: mount.dev,
            fstype: mount.fstype.to_owned(),
            source: PathBuf::from(mount.source),
            mount_point: mount.mount_point.to_owned(),
            is_guess: false,
        }
    }
}

/// The mount that each of `paths` lies on, whatever leads there: relative paths, symbolic links, files; and of a block device what is mounted of it.
///
/// A mount point is found by the mount table alone, also one that another mount hides. Anything else is looked up, which may wait for a dead
/// server: in a thread, and `limit` altogether. After that the mount table alone has to tell.
///
/// # Errors
/// [`ScanError`] where the mount table cannot be read; a path that leads nowhere is an error of its own, and keeps no other.
pub fn locate(
    paths: &[PathBuf],
    limit: Duration,
) -> Result<Vec<Result<Located, LookupError>>, ScanError> {
    let table = own_table()?;
    let directory = std::env::current_dir().unwrap_or_default();
    let (sender, receiver) = mpsc::channel();
    let mut located: Vec<Option<Result<Located, LookupError>>> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let mount = mount_point(&table, &directory.join(path));
        located.push(mount.map(|mount| Ok(Located::of(mount))));
        if mount.is_none() {
            let (sender, path) = (sender.clone(), path.clone());
            let thread = thread::Builder::new().name("look up".to_owned());
            // One that cannot be started has not returned.
            let _ = thread.spawn(move || drop(sender.send((index, look_up(&path)))));
        }
    }
    drop(sender);
    let deadline = Instant::now() + limit;
    while let Ok((index, found)) =
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        if let Some(place) = located.get_mut(index) {
            *place = Some(found);
        }
    }
    let guess = |(found, path): (Option<_>, &PathBuf)| {
        found.unwrap_or_else(|| guess(&table, &directory.join(path), path))
    };
    Ok(located.into_iter().zip(paths).map(guess).collect())
}

fn own_table() -> Result<MountTable, ScanError> {
    let table = Path::new("/proc/self/mountinfo");
    let bytes = std::fs::read(table).map_err(|source| ScanError::Read {
        path: table.to_owned(),
        source,
    })?;
    let mut mounts = mountinfo::parse_owned(bytes).map_err(|source| ScanError::Mountinfo {
        path: table.to_owned(),
        source,
    })?;
    let mut identities = Identities::default();
    identities.note(&mounts);
    identities.apply(&mut mounts);
    Ok(mounts)
}

/// The mount at exactly this path: the one that a look-up reaches, or else the last that is hidden there. With `..` in it only a look-up tells, since
/// what is before may be a symbolic link.
fn mount_point<'a>(table: &'a MountTable, path: &Path) -> Option<Mount<'a>> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let tree = MountTree::new(table, |_| false);
    let here = |index: &usize| {
        // Compared by components: a trailing slash, and `.`, do not count.
        table
            .get(*index)
            .is_some_and(|mount| mount.mount_point == path)
    };
    let mut all: Vec<usize> = (0..table.len()).filter(here).collect();
    all.sort_by_key(|index| (!tree.is_hidden(*index), *index));
    table.get(*all.last()?)
}

/// May wait for as long as it likes.
fn look_up(path: &Path) -> Result<Located, LookupError> {
    let failed = |error: io::Error| LookupError::Path(path.to_owned(), error);
    let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| failed(errno.into()))?;
    let status = fstat(&place).map_err(|errno| failed(errno.into()))?;
    let id = mount::mount_id(&place).map_err(failed)?;
    // Looking it up may have mounted something.
    let table = own_table()?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFBLK {
        let device = DeviceNumber::from_raw(status.st_rdev);
        let mount = mount_of_device(&table, device);
        return mount
            .map(Located::of)
            .ok_or_else(|| LookupError::DeviceNotMounted(path.to_owned()));
    }
    let mount = table.iter().find(|mount| mount.id == id);
    mount
        .map(Located::of)
        .ok_or_else(|| LookupError::Unknown(path.to_owned()))
}

/// A mount of the file system on a block device: by its number, or, where the superblock has one of its own (btrfs), by the sources.
fn mount_of_device(table: &MountTable, device: DeviceNumber) -> Option<Mount<'_>> {
    let by_number = table.iter().find(|mount| mount.dev == device);
    by_number.or_else(|| {
        let members = super::btrfs_members(device).unwrap_or_else(|| vec![device]);
        table.iter().find(|mount| {
            let source = DeviceNodes::System.resolve(Path::new(mount.source));
            mount.dev.is_anonymous() && source.is_some_and(|source| members.contains(&source))
        })
    })
}

/// By the mount table alone.
fn guess(table: &MountTable, absolute: &Path, path: &Path) -> Result<Located, LookupError> {
    let waits = || LookupError::Waits(path.to_owned());
    let normal = normal(absolute).ok_or_else(waits)?;
    let tree = MountTree::new(table, |_| false);
    let holder = tree.holders(&normal).first().copied();
    let mount = holder
        .and_then(|index| table.get(index))
        .ok_or_else(waits)?;
    Ok(Located {
        is_guess: true,
        ..Located::of(mount)
    })
}

/// Without `.` and `..`, as if nothing on the way were a symbolic link; `None` for a relative path.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal.is_absolute().then_some(normal)
}

fn mount_of(path: &Path) -> io::Result<u64> {
    let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    mount::mount_id(&place)
}

fn planned(path: &Path, id: u64, scan: &Scan, plan: &Plan) -> Result<DeviceNumber, LookupError> {
    let unknown = || LookupError::Unknown(path.to_owned());
    let mount = scan.mounts.iter().find(|mount| mount.id == id);
    let dev = mount.ok_or_else(unknown)?.dev;
    if plan.superblocks().any(|planned| planned.dev == dev) {
        return Ok(dev);
    }
    let left_out = plan.left_out.iter().find(|left| left.dev == dev);
    let left_out = left_out.ok_or_else(unknown)?;
    Err(LookupError::LeftOut {
        path: path.to_owned(),
        fstype: left_out.fstype.clone(),
        dev,
        reason: left_out.reason,
    })
}

fn devices_in(mounts: &MountTable, paths: &[PathBuf]) -> Result<Vec<DeviceNumber>, LookupError> {
    let tree = MountTree::new(mounts, |_| false);
    each_once(paths.iter(), |path| {
        let holder = tree.holders(path).first().copied();
        let mount = holder.and_then(|index| mounts.get(index));
        let mount = mount.ok_or_else(|| LookupError::NotMounted(path.clone()))?;
        Ok(mount.dev)
    })
}

fn each_once<T>(
    paths: impl Iterator<Item = T>,
    find: impl Fn(T) -> Result<DeviceNumber, LookupError>,
) -> Result<Vec<DeviceNumber>, LookupError> {
    let mut devices = Vec::with_capacity(paths.size_hint().0);
    for path in paths {
        let dev = find(path)?;
        if !devices.contains(&dev) {
            devices.push(dev);
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        22 21 8:2 / /srv rw - xfs /dev/sda2 rw\n\
        23 21 8:3 / /srv rw - ext4 /dev/sda3 rw\n\
        24 21 8:1 /home /home rw - ext4 /dev/sda1 rw\n\
        25 21 8:4 / /mnt/disk rw - ext4 /dev/sda4 rw\n\
        26 21 8:5 / /mnt rw - ext4 /dev/sda5 rw\n";

    fn devices(table: &[u8], paths: &[&str]) -> Result<Vec<String>, String> {
        let mounts = mountinfo::parse(table).unwrap();
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        devices_in(&mounts, &paths)
            .map(|devices| devices.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_lies_on_the_uppermost_mount_and_each_superblock_counts_once() {
        assert_eq!(devices(TABLE, &["/srv/"]).unwrap(), ["8:3"]);
        assert_eq!(devices(TABLE, &["/srv/www/index.html"]).unwrap(), ["8:3"]);
        assert_eq!(devices(TABLE, &["/srvs"]).unwrap(), ["8:1"]);
        assert_eq!(
            devices(TABLE, &["/home", "/", "/srv"]).unwrap(),
            ["8:1", "8:3"]
        );
    }

    #[test]
    fn a_mount_that_another_one_hides_holds_no_path() {
        assert_eq!(devices(TABLE, &["/mnt/disk/file"]).unwrap(), ["8:5"]);
    }

    #[test]
    fn a_path_that_no_mount_leads_to_is_refused() {
        let table = b"22 21 8:2 / /srv rw - xfs /dev/sda2 rw\n";
        let error = devices(table, &["/srv", "/var"]).unwrap_err();
        assert!(error.starts_with("/var is on no file system"), "{error}");
    }

    fn mount_id(path: &str) -> Option<u64> {
        let mounts = mountinfo::parse(TABLE).unwrap();
        mount_point(&mounts, Path::new(path)).map(|mount| mount.id)
    }

    #[test]
    fn a_mount_point_is_found_by_the_table_alone_also_a_hidden_one() {
        assert_eq!(mount_id("/srv"), Some(23), "the upper one");
        assert_eq!(mount_id("/srv/."), Some(23));
        assert_eq!(mount_id("//mnt//disk/"), Some(25), "it is hidden");
        for other in ["/srv/www", "/srv/../home", "home", "", "/none"] {
            assert_eq!(mount_id(other), None, "{other}");
        }
    }

    #[test]
    fn where_nothing_may_be_looked_up_a_path_is_guessed_to_lie_on_the_nearest_mount_above() {
        let mounts = mountinfo::parse(TABLE).unwrap();
        let guessed = |path: &str| guess(&mounts, Path::new(path), Path::new("given"));
        for (path, id) in [
            ("/srv/../srv/www", 23),
            ("/../home/./a", 24),
            ("/mnt/disk/x", 26),
        ] {
            let located = guessed(path).unwrap();
            assert_eq!((located.id, located.is_guess), (id, true), "{path}");
        }
        let error = guessed("relative").unwrap_err().to_string();
        assert!(
            error.starts_with("the look-up of given does not return"),
            "{error}"
        );
    }

    fn refusal(path: &str) -> (String, Option<String>) {
        let error = planned_at(&[path.into()], &Policy::default()).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        (error.to_string(), cause)
    }

    #[test]
    fn a_path_that_cannot_be_frozen_is_refused_with_the_reason() {
        let (text, cause) = refusal("/proc/self/status");
        assert!(
            text.starts_with(
                "/proc/self/status is on a file system that is not frozen (proc on 0:"
            )
        );
        assert!(text.ends_with("nothing of it is on a disk"), "{text}");
        assert_eq!(cause, None);
        let (text, cause) = refusal("/nonexistent\n/path");
        assert_eq!(text, "/nonexistent\\u{a}/path cannot be used");
        assert!(cause.is_some());
    }
}
