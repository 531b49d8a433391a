//! The JSON of a [`Plan`]; its shape is documented there.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::device::DeviceNumber;
use super::plan::{Candidate, LeftOut, Plan, Superblock};
use super::reason::Reason;
use super::served::ServedBy;

#[derive(Serialize)]
struct StagedView<'a> {
    stage: usize,
    dev: DeviceNumber,
    fstype: &'a str,
    source: String,
    served_by: Option<ServedBy>,
    stacked_on: &'a [DeviceNumber],
    beneath_unknown: bool,
    mounts: &'a [Candidate],
}

#[derive(Serialize)]
struct LeftOutView<'a> {
    dev: DeviceNumber,
    fstype: &'a str,
    source: String,
    reason: Reason,
    explanation: String,
    flush: bool,
    mounts: &'a [Candidate],
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let superblocks: Vec<_> = self
            .stages
            .iter()
            .enumerate()
            .flat_map(|(index, stage)| {
                stage
                    .iter()
                    .map(move |superblock| staged(index + 1, superblock))
            })
            .collect();
        let left_out: Vec<_> = self.left_out.iter().map(left_out).collect();
        let cut = !self.unread_tables.is_empty();
        let mut plan = serializer.serialize_struct("Plan", 3 + usize::from(cut))?;
        plan.serialize_field("superblocks", &superblocks)?;
        plan.serialize_field("left_out", &left_out)?;
        plan.serialize_field("unread_processes", &self.unread_processes)?;
        if cut {
            plan.serialize_field("unread_tables", &self.unread_tables)?;
        }
        plan.end()
    }
}

impl Serialize for Candidate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut mount = serializer.serialize_struct("Candidate", 6)?;
        mount.serialize_field("id", &self.id)?;
        mount.serialize_field("mount_point", &self.mount_point.to_string_lossy())?;
        mount.serialize_field("root", &self.root.to_string_lossy())?;
        mount.serialize_field("hidden", &self.hidden)?;
        mount.serialize_field("through_server", &self.through_server)?;
        mount.serialize_field("namespace_of", &self.via)?;
        mount.end()
    }
}

fn staged(stage: usize, superblock: &Superblock) -> StagedView<'_> {
    StagedView {
        stage,
        dev: superblock.dev,
        fstype: &superblock.fstype,
        source: superblock.source.to_string_lossy().into_owned(),
        served_by: superblock.served_by,
        stacked_on: &superblock.stacked_on,
        beneath_unknown: superblock.beneath_unknown,
        mounts: &superblock.mounts,
    }
}

fn left_out(left_out: &LeftOut) -> LeftOutView<'_> {
    LeftOutView {
        dev: left_out.dev,
        fstype: &left_out.fstype,
        source: left_out.source.to_string_lossy().into_owned(),
        reason: left_out.reason,
        explanation: left_out.reason.to_string(),
        flush: left_out.flush,
        mounts: &left_out.mounts,
    }
}
