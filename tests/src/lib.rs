//! The test bed of hv-vssd: the distribution's own `hv_utils` driver in a small
//! guest, the Hyper-V host played from outside, and the C daemon and hv-vssd put
//! through the same scenarios.
//!
//! Reading order: [`mod@scenario`] (what a test is), [`guest`] (the machine), [`booted`] (a
//! whole Debian in it),
//! [`host`] (what Hyper-V says to it), [`agent`] (who answers), [`images`]
//! (what the checkpoint holds), [`report`] (what was seen).

pub mod agent;
pub mod assets;
pub mod booted;
pub mod command;
pub mod debian;
pub mod dice;
pub mod error;
pub mod faults;
pub mod footprint;
pub mod guest;
pub mod held;
pub mod host;
pub mod images;
mod kept;
pub mod package;
pub mod paths;
pub mod proto;
pub mod report;
pub mod scenario;
pub mod sleepers;
pub mod steps;
pub mod strace;
pub mod writer;
