//! Steps that many scenarios share.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{BedError, BedResult, Failure, Step};
use crate::guest::{Disk, FsKind, Guest, poll_until};
use crate::host::{Answer, Operation};
use crate::images;
use crate::proto::JobState;
use crate::scenario::Bed;

/// A sign of life from a writer or a thawed file system comes within this time.
pub const LIFE_LIMIT: Duration = Duration::from_secs(10);

/// Mounts the disks in their order, each at `/mnt/TYPE`, and returns the mount points.
///
/// # Errors
/// A mount fails.
pub fn mount_all(guest: &Guest, kinds: &[FsKind]) -> BedResult<Vec<String>> {
    let mut points = Vec::new();
    for (kind, letter) in kinds.iter().zip('a'..='z') {
        let (name, point) = (kind.name(), format!("/mnt/{}", kind.name()));
        guest.sh(&format!(
            "mkdir -p {point}; mount -t {name} /dev/vd{letter} {point}"
        ))?;
        points.push(point);
    }
    Ok(points)
}

/// A guest with a disk of each kind, mounted as by [`mount_all`], and a writer on every one.
///
/// # Errors
/// It does not come up, or a writer does not start.
pub fn with_writers(bed: &mut Bed, kinds: &[FsKind]) -> Step<(Guest, Vec<String>)> {
    let disks: Vec<Disk> = kinds.iter().copied().map(Disk::new).collect();
    let guest = bed.boot(&disks)?;
    let points = mount_all(&guest, kinds)?;
    for point in &points {
        guest.start_writer(point)?;
    }
    Ok((guest, points))
}

/// What became of a background process, which ends within `limit`.
///
/// # Errors
/// It does not.
pub fn ended(guest: &Guest, job: &str, limit: Duration) -> Step<JobState> {
    let state = poll_until(limit, || {
        let state = guest.job(job)?;
        Ok::<_, Failure>((!state.running).then_some(state))
    })?;
    state.ok_or_else(|| Failure::Promise(format!("{job} does not end in {limit:?}")))
}

/// A request that the host must see succeed.
///
/// # Errors
/// It fails, or is not answered.
pub fn succeeds(guest: &mut Guest, operation: Operation) -> Step<Answer> {
    let answer = guest.host()?.request(operation)?;
    if answer.ok() {
        return Ok(answer);
    }
    Err(Failure::Promise(format!(
        "{} was answered {:#x}",
        operation.name(),
        answer.status
    )))
}

/// HOT_BACKUP, FREEZE, THAW, all with success.
///
/// # Errors
/// One of them fails.
pub fn checkpoint(guest: &mut Guest) -> Step<()> {
    for operation in [Operation::HOT_BACKUP, Operation::FREEZE, Operation::THAW] {
        succeeds(guest, operation)?;
    }
    Ok(())
}

/// Every writer sleeps in a write.
///
/// # Errors
/// One goes on.
pub fn writers_sleep(guest: &Guest, points: &[String]) -> Step<()> {
    for point in points {
        let asleep = poll_until(LIFE_LIMIT, || {
            Ok::<_, Failure>(guest.writer_sleeps(point)?.then_some(()))
        })?;
        asleep.ok_or_else(|| {
            Failure::Promise(format!("writes to {point} went on during the hold"))
        })?;
    }
    Ok(())
}

/// Every writer syncs at least one record more.
///
/// # Errors
/// One stays asleep.
pub fn writers_go_on(guest: &Guest, points: &[String]) -> Step<()> {
    for point in points {
        let before = guest.writer(point)?.synced;
        let woken = poll_until(LIFE_LIMIT, || {
            Ok::<_, Failure>((guest.writer(point)?.synced > before).then_some(()))
        })?;
        woken.ok_or_else(|| {
            Failure::Promise(format!("writes to {point} still slept after the thaw"))
        })?;
    }
    Ok(())
}

/// Every directory can be written to.
///
/// # Errors
/// A write sleeps.
pub fn writable(guest: &Guest, directories: &[&str]) -> Step<()> {
    for directory in directories {
        if guest.write_sleeps(directory)? {
            return Err(Failure::Promise(format!("{directory} is frozen")));
        }
    }
    Ok(())
}

/// A write to every directory sleeps.
///
/// # Errors
/// One goes through.
pub fn frozen(guest: &Guest, directories: &[&str]) -> Step<()> {
    for directory in directories {
        if !guest.write_sleeps(directory)? {
            return Err(Failure::Promise(format!(
                "{directory} was written to during the hold"
            )));
        }
    }
    Ok(())
}

/// A disk's image copied during a hold, and what must be in it.
#[derive(Debug)]
pub struct Copy {
    /// Type of its file system.
    pub kind: FsKind,
    /// The copy.
    pub image: PathBuf,
    /// Records that were fsynced before the copy began.
    pub synced: u64,
}

/// Copies the images of the first disks, which hold these kinds and have writers.
///
/// # Errors
/// A copy fails.
pub fn copy_images(guest: &Guest, kinds: &[FsKind], points: &[String]) -> BedResult<Vec<Copy>> {
    let mut copies = Vec::new();
    for (number, (kind, point)) in kinds.iter().zip(points).enumerate() {
        let image = guest.dir().join(format!("copy{number}.img"));
        let synced = guest.writer(point)?.synced;
        images::copy(guest.image(number)?, &image)?;
        copies.push(Copy {
            kind: *kind,
            image,
            synced,
        });
    }
    Ok(copies)
}

/// Why a copy is not a consistent image of all that was fsynced; `None` if it is.
///
/// # Errors
/// The copy cannot be examined.
pub fn flaw(copy: &Copy) -> BedResult<Option<String>> {
    if let Some(unclean) = images::unclean(copy.kind, &copy.image)? {
        return Ok(Some(unclean));
    }
    let records = images::records(copy.kind, &copy.image)?;
    Ok((records < copy.synced).then(|| {
        format!(
            "{}: {records} records in the image, {} were fsynced",
            copy.kind.name(),
            copy.synced
        )
    }))
}

/// Starts a writer on a disk that only its own mount namespace has.
///
/// # Errors
/// It does not start to write.
pub fn start_container(guest: &Guest, disk: &str, point: &str) -> Step<()> {
    let state = format!("/run/writer{}", point.replace('/', "-"));
    let script =
        format!("mount -t ext4 {disk} {point} && exec /sbin/hv-testguest writer {point} {state}");
    guest.sh(&format!("mkdir -p {point}"))?;
    guest.spawn(
        &format!("writer {point}"),
        &["/bin/unshare", "-m", "/bin/sh", "-c", &script],
    )?;
    let started = poll_until(LIFE_LIMIT, || {
        Ok::<_, Failure>((guest.writer(point)?.synced > 0).then_some(()))
    })?;
    started.ok_or_else(|| {
        BedError::Setup(format!(
            "no writer in the container: {:?}",
            guest.job(&format!("writer {point}"))
        ))
        .into()
    })
}
