//! Quiescing: from a plan to a hold, and back.

pub mod backend;
pub mod engine;
pub mod error;
pub mod faults;
pub mod guardian;
pub mod handle;
mod hold;
pub mod ledger;
pub mod pool;
pub mod recovery;
pub mod report;
pub mod signal;
pub mod slot;

pub use backend::{Backend, Kernel};
pub use engine::{Engine, Limits};
pub use error::FreezeError;
pub use report::Report;
pub use signal::Signal;
