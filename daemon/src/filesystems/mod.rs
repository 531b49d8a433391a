//! Which file systems a guest has, which of them a freeze must hold, in which order, and why the others are left out.

pub mod device;
pub mod mountinfo;
pub mod text;

pub use device::DeviceNumber;
pub use mountinfo::Mount;
