//! A mount table in memory: one text, and for each mount where its fields stand in it. Ten thousand mounts are two allocations.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use hashbrown::HashMap;

use super::device::DeviceNumber;
use super::mountinfo::Mount;
use super::shape::Shape;

/// All mounts of a mount namespace, in the order of its table. Mounts are meant by their index.
#[derive(Clone, Default)]
pub struct MountTable {
    text: Vec<u8>,
    lines: Vec<Line>,
    types: Types,
    shape: OnceLock<Shape>,
}

/// A part of a table's text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) const fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }
}

/// Where the fields of one mount stand, escapes undone where [`Mount`] has them undone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) id: u64,
    pub(super) parent: u64,
    pub(super) dev: DeviceNumber,
    pub(super) fstype: u32,
    pub(super) root: Span,
    pub(super) mount_point: Span,
    pub(super) options: Span,
    pub(super) source: Span,
    pub(super) super_options: Span,
}

impl MountTable {
    pub(super) fn new(text: Vec<u8>, lines: Vec<Line>, types: Types) -> Self {
        Self {
            text,
            lines,
            types,
            shape: OnceLock::new(),
        }
    }

    /// How many mounts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The mount at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Mount<'_>> {
        self.lines.get(index).map(|line| self.mount(line))
    }

    /// All mounts, in the order of the table.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Mount<'_>> + ExactSizeIterator {
        self.lines.iter().map(|line| self.mount(line))
    }

    /// The types that occur, each once; [`MountTable::type_of`] names one of them by its place.
    pub(super) fn types(&self) -> impl Iterator<Item = &str> {
        self.types.names.iter().map(String::as_str)
    }

    #[inline(always)]
    pub(super) fn type_of(&self, index: usize) -> usize {
        self.lines
            .get(index)
            .map_or(usize::MAX, |line| line.fstype as usize)
    }

    /// Gives each mount the number that `number` has for it.
    pub(super) fn renumber(&mut self, number: impl Fn(&Mount<'_>) -> DeviceNumber) {
        let numbers: Vec<_> = self.iter().map(|mount| number(&mount)).collect();
        for (line, number) in self.lines.iter_mut().zip(numbers) {
            line.dev = number;
        }
    }

    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    #[inline(always)]
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        self.text
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }

    /// Which mounts hide which; found out once.
    pub(super) fn shape(&self) -> &Shape {
        self.shape.get_or_init(|| Shape::of(self))
    }

    // So that only what is asked of a mount is made.
    #[inline(always)]
    fn mount(&self, line: &Line) -> Mount<'_> {
        let text = |span| OsStr::from_bytes(self.bytes(span));
        Mount {
            id: line.id,
            parent: line.parent,
            dev: line.dev,
            root: Path::new(text(line.root)),
            mount_point: Path::new(text(line.mount_point)),
            options: text(line.options),
            fstype: self.types.name(line.fstype),
            source: text(line.source),
            super_options: text(line.super_options),
        }
    }
}

/// Few types for many mounts: each stands in memory once.
#[derive(Debug, Clone, Default)]
pub(super) struct Types {
    names: Vec<String>,
    /// By the bytes of the table.
    places: HashMap<Vec<u8>, u32>,
    last: u32,
}

impl Types {
    /// The place of a type; `name` makes a name of it if it is new.
    pub(super) fn place(&mut self, bytes: &[u8], name: impl Fn(&[u8]) -> String) -> u32 {
        let is_last = |last: &String| last.as_bytes() == bytes;
        if self.names.get(self.last as usize).is_some_and(is_last) {
            return self.last;
        }
        self.last = match self.places.get(bytes) {
            Some(place) => *place,
            None => {
                let place = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.names.push(name(bytes));
                self.places.insert(bytes.to_owned(), place);
                place
            }
        };
        self.last
    }

    fn name(&self, place: u32) -> &str {
        self.names.get(place as usize).map_or("", String::as_str)
    }
}

impl<'a> FromIterator<Mount<'a>> for MountTable {
    fn from_iter<I: IntoIterator<Item = Mount<'a>>>(mounts: I) -> Self {
        let mut table = Self::default();
        for mount in mounts {
            let mut add = |bytes: &[u8]| {
                let at = |text: &Vec<u8>| u32::try_from(text.len()).unwrap_or(u32::MAX);
                let start = at(&table.text);
                table.text.extend_from_slice(bytes);
                let end = at(&table.text);
                Span { start, end }
            };
            let line = Line {
                id: mount.id,
                parent: mount.parent,
                dev: mount.dev,
                root: add(mount.root.as_os_str().as_bytes()),
                mount_point: add(mount.mount_point.as_os_str().as_bytes()),
                options: add(mount.options.as_bytes()),
                source: add(mount.source.as_bytes()),
                super_options: add(mount.super_options.as_bytes()),
                fstype: table
                    .types
                    .place(mount.fstype.as_bytes(), |_| mount.fstype.to_owned()),
            };
            table.lines.push(line);
        }
        table
    }
}

impl fmt::Debug for MountTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for MountTable {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for MountTable {}
