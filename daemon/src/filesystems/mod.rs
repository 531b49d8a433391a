//! Which file systems a guest has, which of them a freeze must hold, in which order, and why the others are left out.
//!
//! ```text
//! /proc/self/mountinfo ─ mountinfo::parse ┐
//! /proc/PID/{ns/mnt,mountinfo} ─ namespaces┤
//! /sys/fs ─ live ─────────────────────────┤
//! /sys/dev/block ─ blockdev ──────────────┼─ scan() → Scan ─ Plan::new(&Scan, &Policy) → Plan → engine, render_table, JSON
//! /dev, /proc/filesystems ────────────────┘
//! ```
//!
//! [`scan()`] does all the input and opens no mount point; [`TableWatch`] tells what was mounted since; [`mountinfo`] and [`plan`] are pure.

pub mod blockdev;
mod budget;
pub mod device;
pub mod error;
mod found;
pub mod identity;
mod kinds;
pub mod live;
pub mod lookup;
pub mod mount_table;
pub mod mountinfo;
pub mod namespaces;
mod nodes;
pub mod plan;
pub mod policy;
pub mod processes;
pub mod reason;
pub mod roots;
pub mod scan;
mod serialize;
pub mod served;
mod shape;
mod stacking;
mod stages;
pub mod superblock;
pub mod table;
pub mod text;
mod tree;
pub mod watch;

pub use blockdev::BlockDevice;
pub(crate) use blockdev::btrfs_members;
pub use device::DeviceNumber;
pub use identity::Identities;
pub(crate) use kinds::Kind;
pub use live::{LiveSuperblock, LiveWatch};
pub use lookup::{Located, LookupError, devices_at, locate, planned_at};
pub use mount_table::MountTable;
pub use mountinfo::Mount;
pub use namespaces::{Namespace, UnreadTables};
pub use plan::{Candidate, LeftOut, Plan, Superblock};
pub use policy::Policy;
pub use processes::Process;
pub use reason::Reason;
pub use roots::{DeviceNodes, Roots};
pub use scan::{Scan, ScanError, scan, scan_and_watch, scan_below, scan_own_namespace};
pub use served::ServedBy;
pub use table::render_table;
pub(crate) use tree::MountTree;
pub use watch::{Appeared, Baseline, OtherTables, TableWatch};
