//! The control socket of a running agent: what is said on it, and how a command asks.
//!
//! A Unix stream socket for root alone; one JSON object a line in both directions. The agent's end is in
//! [`crate::agent`].

pub mod client;
pub mod lines;
pub mod message;

pub use client::{Client, ClientError};
pub use message::{FreezeAnswer, Refusal, Reply, Request, Thawed};

/// Where a running agent listens.
pub const DEFAULT_PATH: &str = "/run/hv-vssd/control";
