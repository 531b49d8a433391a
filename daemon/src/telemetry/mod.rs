//! What operators see: the log, held back while anything is frozen.

pub mod gate;
pub mod log;
pub mod service;

pub use gate::Gate;
