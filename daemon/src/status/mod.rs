//! How the service is, and what it has done since its start: as data, as a table, for Prometheus, for the journal.

pub mod cause;
pub mod history;
pub mod journal;
pub mod prometheus;
pub mod table;

use serde::{Deserialize, Serialize};

pub use self::cause::Cause;
pub use self::history::{Counters, History};
pub use self::prometheus::render_prometheus;
pub use self::table::render_status;
use crate::quiesce::Report;
use crate::quiesce::report::AskedBy;

/// How a running agent is. This is the JSON of `hv-vssd status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its start in UTC (RFC 3339): what the counters count from.
    pub started: String,
    /// The same in seconds since 1970.
    pub started_unix: f64,
    /// The way to the host.
    pub service: Service,
    /// The second process.
    pub guardian: Guardian,
    /// What is being done now.
    pub work: Work,
    /// The checkpoint that is being held now.
    pub hold: Option<HoldNow>,
    /// What was done since the start.
    pub counters: Counters,
    /// The last checkpoints, the newest last.
    pub checkpoints: Vec<Report>,
}

/// The way to the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The driver has taken the registration, and would hand on a request.
    pub registered: bool,
    /// Since when that is so, in UTC (RFC 3339).
    pub since: String,
    /// The same in seconds since 1970.
    pub since_unix: f64,
    /// The version of the kernel module `hv_utils`, where it tells one.
    pub driver_version: Option<String>,
    /// What the driver and the agent agreed on: the operation that registers (`VSS_OP_REGISTER1`, 129).
    pub protocol: Option<u8>,
}

/// The second process, which thaws should the agent die.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guardian {
    /// Its process id; `None` where there is none.
    pub pid: Option<u32>,
    /// It has not ended. One that has is replaced at the next request.
    pub alive: bool,
}

/// What an agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Nothing.
    Idle,
    /// It looks into whether a checkpoint is possible.
    Checking,
    /// It freezes for the host.
    Freezing,
    /// It holds for the host.
    Held,
    /// It thaws what it held for the host.
    Thawing,
    /// It freezes for a person.
    ManualFreezing,
    /// It holds for a person.
    ManualHeld,
    /// It thaws what it held for a person.
    ManualThawing,
    /// It ends.
    Stopping,
}

/// A hold that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldNow {
    /// Who wants it.
    pub asked_by: AskedBy,
    /// How long it has lasted, in seconds.
    pub seconds: f64,
    /// In how many seconds it is ended, if nobody ends it before.
    pub ends_in_seconds: f64,
}
