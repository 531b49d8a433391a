//! Which file systems a guest has, which of them a freeze must hold, in which order, and why the others are left out.

pub mod blockdev;
pub mod device;
pub(crate) mod kinds;
pub mod mountinfo;
pub mod scan;
pub mod served;
pub mod text;

pub use blockdev::BlockDevice;
pub use device::DeviceNumber;
pub use mountinfo::Mount;
pub use scan::{DeviceNodes, Roots, Scan, ScanError, scan};
pub use served::ServedBy;
