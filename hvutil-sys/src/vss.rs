//! The messages of `/dev/vmbus/hv_vss`: 12 bytes each way, packed.
//!
//! Layout and numbers are those of `struct hv_vss_msg` in the kernel's `include/uapi/linux/hyperv.h`.
//! Eight bytes hold either the operation (towards the agent) or the status (towards the driver), four hold flags.

use std::fmt;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Bytes of every message on the channel but the acknowledgement of the registration.
pub const MESSAGE_SIZE: usize = 12;

/// Bytes of the driver's acknowledgement of a registration: one `u32`, equal to the operation that registered.
pub const REGISTERED_SIZE: usize = 4;

/// What the host or the driver asks: an open set, so that an unknown number is a value and not an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Operation(pub u8);

impl Operation {
    /// `VSS_OP_CREATE`: answered by the driver.
    pub const CREATE: Self = Self(0);
    /// `VSS_OP_DELETE`: answered by the driver.
    pub const DELETE: Self = Self(1);
    /// `VSS_OP_HOT_BACKUP`: the host asks whether a production checkpoint is possible.
    pub const HOT_BACKUP: Self = Self(2);
    /// `VSS_OP_GET_DM_INFO`: answered by the driver.
    pub const GET_DM_INFO: Self = Self(3);
    /// `VSS_OP_BU_COMPLETE`: answered by the driver.
    pub const BU_COMPLETE: Self = Self(4);
    /// `VSS_OP_FREEZE`: hold every file system still.
    pub const FREEZE: Self = Self(5);
    /// `VSS_OP_THAW`: the image is taken, let go.
    pub const THAW: Self = Self(6);
    /// `VSS_OP_AUTO_RECOVER`: answered by the driver.
    pub const AUTO_RECOVER: Self = Self(7);
    /// `VSS_OP_REGISTER`: the registration of agents older than Linux 4.2; never becomes ready on newer kernels.
    pub const REGISTER: Self = Self(128);
    /// `VSS_OP_REGISTER1`: the registration in use.
    pub const REGISTER1: Self = Self(129);

    /// The kernel's name of the operation, if it has one.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::CREATE => "CREATE",
            Self::DELETE => "DELETE",
            Self::HOT_BACKUP => "HOT_BACKUP",
            Self::GET_DM_INFO => "GET_DM_INFO",
            Self::BU_COMPLETE => "BU_COMPLETE",
            Self::FREEZE => "FREEZE",
            Self::THAW => "THAW",
            Self::AUTO_RECOVER => "AUTO_RECOVER",
            Self::REGISTER => "REGISTER",
            Self::REGISTER1 => "REGISTER1",
            _ => return None,
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "operation {}", self.0),
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the host hears. The driver accepts these two values and misreads most others as operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// `HV_S_OK`: done.
    Ok,
    /// `HV_E_FAIL`, 0x80004005: not done; the host falls back or fails its backup.
    Fail,
}

impl Status {
    /// The status as the `error` field carries it.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::Fail => 0x8000_4005,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("success"),
            Self::Fail => f.write_str("failure (0x80004005)"),
        }
    }
}

/// A message towards the agent: which operation, and flags that no operation for an agent uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Request {
    /// What is asked.
    pub operation: Operation,
    reserved: [u8; 7],
    flags: [u8; 4],
}

impl Request {
    /// A message that carries nothing but `operation`; the registration is one of these too.
    #[must_use]
    pub fn new(operation: Operation) -> Self {
        Self {
            operation,
            ..Self::new_zeroed()
        }
    }

    /// Decodes a message; `None` unless it is exactly [`MESSAGE_SIZE`] bytes long.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read_from_bytes(bytes).ok()
    }
}

/// A message towards the driver: the status in the first four bytes, little-endian as the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reply {
    error: [u8; 4],
    reserved: [u8; 4],
    flags: [u8; 4],
}

impl Reply {
    /// The answer that carries `status`.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            error: status.code().to_ne_bytes(),
            ..Self::new_zeroed()
        }
    }

    /// Decodes an answer, as the driver's side does; `None` unless it is exactly [`MESSAGE_SIZE`] bytes long.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read_from_bytes(bytes).ok()
    }

    /// The `error` field: 0 or 0x80004005 from a sound agent.
    #[must_use]
    pub fn code(&self) -> u32 {
        u32::from_ne_bytes(self.error)
    }
}

const _: () = assert!(size_of::<Request>() == MESSAGE_SIZE && align_of::<Request>() == 1);
const _: () = assert!(size_of::<Reply>() == MESSAGE_SIZE && align_of::<Reply>() == 1);
const _: () = assert!(size_of::<u32>() == REGISTERED_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_its_operation_in_the_first_byte() {
        let bytes = [5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(
            Request::decode(&bytes).unwrap().operation,
            Operation::FREEZE
        );
        assert_eq!(Request::new(Operation::REGISTER1).as_bytes()[0], 129);
    }

    #[test]
    fn an_unknown_operation_is_a_value() {
        let request = Request::decode(&[200; 12]).unwrap();
        assert_eq!(request.operation, Operation(200));
        assert_eq!(request.operation.to_string(), "operation 200");
    }

    #[test]
    fn a_message_of_another_length_is_refused() {
        assert_eq!(Request::decode(&[5; 11]), None);
        assert_eq!(Request::decode(&[5; 13]), None);
        assert_eq!(Request::decode(&[]), None);
    }

    #[test]
    fn a_failure_cannot_be_taken_for_a_registration() {
        let reply = Reply::new(Status::Fail);
        assert_eq!(reply.as_bytes()[..4], [0x05, 0x40, 0x00, 0x80]);
        assert_eq!(reply.code(), 0x8000_4005);
        assert_eq!(Reply::new(Status::Ok).as_bytes(), [0; 12]);
    }
}
