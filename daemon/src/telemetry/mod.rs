//! What operators see: the log, held back while anything is frozen.

pub mod gate;
pub mod journal;
pub mod log;
pub mod service;
pub mod textfile;

pub use gate::Gate;
