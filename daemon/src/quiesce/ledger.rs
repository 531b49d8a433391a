//! The ledger: what is being frozen, on record before the first freeze, for whoever has to thaw it.
//!
//! A text file with a line for each file system. Its first character tells how far the freeze of it is; the agent, its
//! guardian, the processes that make the calls and the file itself share that one byte, so that it is right whichever of
//! them dies. What each of them may do with it is in [`super::protocol`].
//!
//! The file is locked as long as any of them has it open or mapped: whoever gets the lock is alone with it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hvutil_sys::shared::{self, SharedBytes};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};

pub use super::protocol::Mark;
use super::protocol::MarkCell;
use super::target::Target;
use crate::filesystems::DeviceNumber;
use crate::filesystems::mountinfo::unescape;
use crate::run_files;

/// Where the service keeps its ledger: a directory that no reboot keeps.
pub const DEFAULT_PATH: &str = "/run/hv-vssd/ledger";

const TITLE: &str = "hv-vssd ledger 1\n";

/// Where a ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, for the next start to find.
    File(PathBuf),
    /// In memory: for a demo, whose disks vanish with it.
    Memory,
}

/// The ledger of one checkpoint.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    bytes: SharedBytes,
    offsets: Vec<usize>,
    place: Place,
}

impl Ledger {
    /// Writes a new ledger, in place of any older one.
    ///
    /// # Errors
    /// What the kernel says to the file.
    pub fn create<'a>(
        place: &Place,
        targets: impl Iterator<Item = &'a Target>,
    ) -> io::Result<Self> {
        let mut text = TITLE.to_owned();
        let mut offsets = Vec::new();
        for target in targets {
            offsets.push(text.len());
            let _ = writeln!(
                text,
                "{} {} {} {} {}",
                char::from(Mark::Planned.byte()),
                target.dev,
                escape(target.fstype.as_bytes()),
                escape(target.source.as_os_str().as_bytes()),
                escape(target.place.as_os_str().as_bytes()),
            );
        }
        let mut place = place.clone();
        let mut file = match &place {
            // A new file, so that an old guardian's view of the old one stays what it was.
            Place::File(path) => run_files::replace(path, &text)?,
            Place::Memory => write_memory(&text)?,
        };
        if !is_in_memory(&file)? {
            // Its own file system may be frozen: the next mark would then wait for the thaw that it announces.
            tracing::warn!(
                "the ledger's directory is not in memory: the record does not outlive agent and guardian"
            );
            if let Place::File(path) = &place {
                fs::remove_file(path)?;
            }
            place = Place::Memory;
            file = write_memory(&text)?;
        }
        // Nobody else can have it: it is new.
        let _ = shared::lock_for_all(&file)?;
        Ok(Self {
            bytes: SharedBytes::map(&file)?,
            file,
            offsets,
            place,
        })
    }

    /// Notes how far the freeze of the `index`th file system is.
    pub fn set(&self, index: usize, mark: Mark) {
        if let Some(offset) = self.offsets.get(index) {
            self.bytes.store(*offset, mark.byte());
        }
    }

    /// The mark of the `index`th file system.
    #[must_use]
    pub fn cell(&self, index: usize) -> Cell<'_> {
        Cell {
            bytes: &self.bytes,
            offset: self.offsets.get(index).copied().unwrap_or(usize::MAX),
        }
    }

    /// How far the freeze of the `index`th file system is.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Mark> {
        let offset = self.offsets.get(index)?;
        self.bytes.load(*offset).map(Mark::from_byte)
    }

    /// The open file, for the guardian.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where in the file the mark of the `index`th file system is.
    #[must_use]
    pub fn offset(&self, index: usize) -> Option<usize> {
        self.offsets.get(index).copied()
    }

    /// Nothing is left to thaw: the record goes.
    pub fn remove(&self) {
        if let Place::File(path) = &self.place {
            let _ = fs::remove_file(path);
        }
    }
}

/// A mark in the memory that all parties share.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// The whole ledger.
    pub bytes: &'a SharedBytes,
    /// Where in it the mark is.
    pub offset: usize,
}

impl MarkCell for Cell<'_> {
    fn load(&self) -> Mark {
        // Beyond the end nothing can be frozen.
        let byte = self.bytes.load(self.offset);
        byte.map_or(Mark::Thawed, Mark::from_byte)
    }

    fn swap(&self, from: Mark, to: Mark) -> Result<(), Mark> {
        loop {
            let Some(byte) = self.bytes.load(self.offset) else {
                return Err(Mark::Thawed);
            };
            // A byte that is no mark counts as one, and must not be waited for.
            let found = Mark::from_byte(byte);
            if found != from {
                return Err(found);
            }
            if self.bytes.swap_if(self.offset, byte, to.byte()) {
                return Ok(());
            }
        }
    }
}

/// Whether writing to a file waits for no device.
fn is_in_memory(file: &File) -> io::Result<bool> {
    /// `include/uapi/linux/magic.h`
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    let kind = fstatfs(file)?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

fn write_memory(text: &str) -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let mut file = File::from(memfd_create(c"hv-vssd-ledger", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How far its freeze was.
    pub mark: Mark,
    /// The superblock's identity.
    pub dev: DeviceNumber,
    /// Its type.
    pub fstype: String,
    /// Its source.
    pub source: OsString,
    /// Where it was mounted; empty when nowhere in sight.
    pub mount_point: PathBuf,
}

/// The ledger of an earlier agent, with marks that whoever lives of it shares.
#[derive(Debug)]
pub struct Record {
    /// Its lines, in freeze order.
    pub entries: Vec<Entry>,
    offsets: Vec<usize>,
    bytes: SharedBytes,
    file: File,
}

impl Record {
    /// What `path` has on record; `None` without such a file.
    ///
    /// # Errors
    /// What the kernel says, or `InvalidData` for a file that is no ledger.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let (file, writable) = match opened {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Nobody has it open for writing, then: the marks are as good in memory of our own.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                (File::open(path)?, false)
            }
            Err(error) => return Err(error),
        };
        let (entries, offsets) = lines_of(&file)?;
        let bytes = if writable {
            SharedBytes::map(&file)?
        } else {
            SharedBytes::map(&write_memory(&fs::read_to_string(path)?)?)?
        };
        Ok(Some(Self {
            entries,
            offsets,
            bytes,
            file,
        }))
    }

    /// The mark of the `index`th entry.
    #[must_use]
    pub fn cell(&self, index: usize) -> Cell<'_> {
        Cell {
            bytes: &self.bytes,
            offset: self.offsets.get(index).copied().unwrap_or(usize::MAX),
        }
    }

    /// Whether nobody else has the ledger any more: neither its agent, nor the guardian, nor a process that is in a call
    /// for them. From then on nobody else gets it, as long as this lives.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        // A file that cannot be locked is nobody's to wait for.
        shared::lock_for_all(&self.file).unwrap_or(true)
    }
}

/// What `path` has on record; `None` without such a file.
///
/// # Errors
/// As [`Record::open`].
pub fn read(path: &Path) -> io::Result<Option<Vec<Entry>>> {
    match File::open(path) {
        Ok(file) => read_from(&file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an open ledger has on record.
///
/// # Errors
/// As [`read`].
pub fn read_from(file: &File) -> io::Result<Vec<Entry>> {
    lines_of(file).map(|(entries, _)| entries)
}

/// The entries, and where each of their lines begins.
fn lines_of(mut file: &File) -> io::Result<(Vec<Entry>, Vec<usize>)> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "this is no ledger of hv-vssd");
    let lines = text.strip_prefix(TITLE).ok_or_else(invalid)?;
    let mut offset = TITLE.len();
    let (mut entries, mut offsets) = (Vec::new(), Vec::new());
    for line in lines.lines() {
        entries.push(parse(line).ok_or_else(invalid)?);
        offsets.push(offset);
        offset += line.len() + 1;
    }
    Ok((entries, offsets))
}

fn parse(line: &str) -> Option<Entry> {
    let mut fields = line.split(' ');
    let mut field = || fields.next().map(|field| unescape(field.as_bytes()));
    let mark = Mark::from_byte(*field()?.as_bytes().first()?);
    let dev = field()?.to_str()?.parse().ok()?;
    let fstype = field()?.into_string().ok()?;
    let source = field()?;
    let mount_point = PathBuf::from(field()?);
    Some(Entry {
        mark,
        dev,
        fstype,
        source,
        mount_point,
    })
}

/// Octal, as the kernel writes paths in mountinfo.
fn escape(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        if byte.is_ascii_graphic() && *byte != b'\\' {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "\\{byte:03o}");
        }
    }
    out
}

impl From<Entry> for Target {
    fn from(entry: Entry) -> Self {
        Self {
            dev: entry.dev,
            fstype: entry.fstype,
            source: PathBuf::from(entry.source),
            place: entry.mount_point,
            mounts: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::By;
    use super::*;

    fn target(dev: u32, mount_point: &str) -> Target {
        Target {
            dev: DeviceNumber::new(8, dev),
            fstype: "ext4".to_owned(),
            source: PathBuf::from("/dev/sd a\\"),
            place: mount_point.into(),
            mounts: vec![],
        }
    }

    #[test]
    fn the_record_tells_what_was_frozen_and_outlives_its_maker() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("run/ledger");
        let targets = [target(1, "/"), target(2, "/sp ace\n")];
        let ledger = Ledger::create(&Place::File(path.clone()), targets.iter()).unwrap();
        ledger.set(1, Mark::Frozen);
        assert_eq!(ledger.get(1), Some(Mark::Frozen));
        assert_eq!(ledger.get(2), None);
        drop(ledger);
        let entries = read(&path).unwrap().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].mark, Mark::Planned);
        assert_eq!(entries[1].mark, Mark::Frozen);
        assert_eq!(entries[1].mount_point, Path::new("/sp ace\n"));
        assert_eq!(entries[1].source, "/dev/sd a\\");
    }

    #[test]
    fn a_removed_record_is_gone_and_garbage_is_refused() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("ledger");
        let ledger = Ledger::create(&Place::File(path.clone()), [].iter()).unwrap();
        ledger.remove();
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, "F 8:1\n").unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_ledger_in_memory_can_be_read_through_its_descriptor() {
        let ledger = Ledger::create(&Place::Memory, [target(3, "/x")].iter()).unwrap();
        ledger.set(0, Mark::Freezing);
        let entries = read_from(ledger.file()).unwrap();
        assert_eq!(entries[0].mark, Mark::Freezing);
    }

    #[test]
    fn a_record_is_shared_with_those_who_have_it_and_locked_until_the_last_of_them_has_gone() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("ledger");
        let place = Place::File(path.clone());
        let ledger = Ledger::create(&place, [target(1, "/a"), target(2, "/b")].iter()).unwrap();
        let record = Record::open(&path).unwrap().unwrap();
        assert!(!record.is_alone(), "its maker lives");
        ledger.set(1, Mark::Freezing);
        assert_eq!(
            record.cell(1).swap(Mark::Frozen, Mark::Thawing(By::Agent)),
            Err(Mark::Freezing)
        );
        assert_eq!(record.cell(1).swap(Mark::Freezing, Mark::GivenUp), Ok(()));
        assert_eq!(ledger.get(1), Some(Mark::GivenUp));
        assert_eq!(ledger.cell(7).load(), Mark::Thawed, "there is none");
        // As a process that is in a call has it: mapped, and through the agent's own descriptor.
        let mapped = SharedBytes::map(ledger.file()).unwrap();
        drop(ledger);
        assert!(!record.is_alone(), "a process in a call lives");
        drop(mapped);
        assert!(record.is_alone());
    }

    #[test]
    fn a_byte_that_is_no_mark_is_taken_for_a_freeze_at_work_and_can_be_settled() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("ledger");
        fs::write(&path, format!("{TITLE}z 8:1 ext4 /dev/sda1 /a\n")).unwrap();
        let record = Record::open(&path).unwrap().unwrap();
        assert_eq!(record.cell(0).load(), Mark::Freezing);
        assert_eq!(record.cell(0).swap(Mark::Freezing, Mark::GivenUp), Ok(()));
        assert_eq!(fs::read(&path).unwrap()[TITLE.len()], b'x');
    }
}
