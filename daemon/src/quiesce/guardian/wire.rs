//! What agent and guardian say to each other, one message of a `SOCK_SEQPACKET` pair each.

use std::time::Duration;

/// Towards the guardian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A freeze begins: this many handles follow. The ledger's file comes with it.
    Arm {
        /// Handles to come.
        handles: u32,
        /// Thaw after this time, whatever the agent does.
        limit: Duration,
    },
    /// Handles, two descriptors each, in freeze order: the handle, and the socket of the process that is to make its calls.
    Handles(Vec<Place>),
    /// The next part of the checkpoint begins: thaw after this time from now instead.
    Limit(Duration),
    /// Everything is thawed.
    Disarm,
}

/// Where a handle belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its stage, counted in freeze order.
    pub(super) stage: u32,
    /// Where its mark is in the ledger.
    pub(super) offset: u32,
}

/// Sent by the guardian once it is confined and listens.
pub(super) const READY: u8 = b'R';

/// Sent by the guardian once it has every handle.
pub(super) const ARMED: u8 = b'A';

/// Bytes that hold any order: one with as many handles as a message carries.
pub(super) const LONGEST: usize = 1 + 8 * MAX_HANDLES;

/// As many handles as a message carries.
pub(super) const MAX_HANDLES: usize = hvutil_sys::socket::MOST_DESCRIPTORS / 2;

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Arm { handles, limit } => {
                let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                [&b"A"[..], &handles.to_le_bytes(), &limit.to_le_bytes()].concat()
            }
            Self::Handles(places) => {
                let mut message = b"H".to_vec();
                for place in places {
                    message.extend(place.stage.to_le_bytes());
                    message.extend(place.offset.to_le_bytes());
                }
                message
            }
            Self::Limit(limit) => {
                let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                [&b"L"[..], &limit.to_le_bytes()].concat()
            }
            Self::Disarm => b"D".to_vec(),
        }
    }

    /// `None` for what no agent sends.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let (kind, rest) = message.split_first()?;
        match kind {
            b'A' => {
                let (handles, limit) = rest.split_first_chunk()?;
                Some(Self::Arm {
                    handles: u32::from_le_bytes(*handles),
                    limit: Duration::from_millis(u64::from_le_bytes(limit.try_into().ok()?)),
                })
            }
            b'H' if rest.len() % 8 == 0 => rest
                .chunks_exact(8)
                .map(|place| {
                    let (stage, offset) = place.split_first_chunk()?;
                    Some(Place {
                        stage: u32::from_le_bytes(*stage),
                        offset: u32::from_le_bytes(offset.try_into().ok()?),
                    })
                })
                .collect::<Option<_>>()
                .map(Self::Handles),
            b'L' => {
                let limit = u64::from_le_bytes(rest.try_into().ok()?);
                Some(Self::Limit(Duration::from_millis(limit)))
            }
            b'D' if rest.is_empty() => Some(Self::Disarm),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_read_back_as_they_were_written() {
        let places = vec![
            Place {
                stage: 0,
                offset: 17
            };
            MAX_HANDLES
        ];
        for order in [
            Order::Arm {
                handles: 300,
                limit: Duration::from_millis(182_500),
            },
            Order::Handles(places),
            Order::Limit(Duration::from_secs(130)),
            Order::Disarm,
        ] {
            let message = order.encode();
            assert!(message.len() <= LONGEST);
            assert_eq!(Order::decode(&message), Some(order));
        }
    }

    #[test]
    fn garbage_is_no_order() {
        for garbage in [&b""[..], b"A", b"A123", b"H1234567", b"Dx", b"Z"] {
            assert_eq!(Order::decode(garbage), None);
        }
    }
}
