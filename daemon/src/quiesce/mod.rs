//! Quiescing: from a plan to a hold, and back.

pub mod at_work;
pub mod backend;
pub mod engine;
pub mod error;
pub mod expedite;
pub mod faults;
mod flush;
pub mod guardian;
pub mod handle;
mod held_up;
mod hold;
pub mod hung_task;
pub mod kernel;
pub mod ledger;
pub mod passes;
pub mod pool;
mod prepare;
pub mod protocol;
pub mod recovery;
pub mod report;
mod resting;
pub mod rounds;
pub mod signal;
pub mod slot;
pub mod target;
pub mod writeback;
pub mod writers;

pub use backend::Backend;
pub use engine::{Checkpoint, Engine, Limits};
pub use error::FreezeError;
pub use hold::Kept;
pub use kernel::Kernel;
pub use report::{AskedBy, Report};
pub use resting::Until;
pub use signal::Signal;
