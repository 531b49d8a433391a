//! Packets of the integration services: a pipe header (flags, message size), a message
//! header, a payload. All numbers are little-endian. Layout: `include/linux/hyperv.h`,
//! `vmbuspipe_hdr`, `icmsg_hdr`, `icmsg_negotiate`, `hv_vss_msg`.

/// Pipe header and message header.
const HEADER_LEN: usize = 28;
/// A VSS packet of a real host: headers and a 12-byte payload.
pub const VSS_LEN: usize = 40;
/// A real host's FREEZE carries a long tail.
pub const FREEZE_LEN: usize = 6260;

const TYPE_NEGOTIATE: u16 = 0;
const TYPE_VSS: u16 = 5;
const TRANSACTION_AND_REQUEST: u8 = 3;

/// An operation of the VSS service; any number can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation(pub u8);

impl Operation {
    /// Asks what the guest's device manager supports; the driver answers.
    pub const GET_DM_INFO: Self = Self(3);
    /// The host asks: can you?
    pub const HOT_BACKUP: Self = Self(2);
    /// Freeze.
    pub const FREEZE: Self = Self(5);
    /// Thaw.
    pub const THAW: Self = Self(6);

    /// Its name, or its number.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::HOT_BACKUP => "HOT_BACKUP".into(),
            Self::FREEZE => "FREEZE".into(),
            Self::THAW => "THAW".into(),
            Self(number) => format!("operation {number}"),
        }
    }
}

/// What matters of a message header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 0 negotiates, 5 is VSS.
    pub kind: u16,
    /// 0 or an HRESULT.
    pub status: u32,
    /// The host's number for the request.
    pub transaction: u8,
    /// 1: transaction, 2: request, 4: response.
    pub flags: u8,
}

impl Header {
    /// Reads the header of a packet; `None` if the packet is too short to have one.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u16_at(packet, 12)?,
            status: u32_at(packet, 20)?,
            transaction: *packet.get(24)?,
            flags: *packet.get(25)?,
        })
    }
}

/// Headers, then the payload, for a request.
fn request(kind: u16, transaction: u8, payload: &[u8], total: usize) -> Vec<u8> {
    let size = u32::try_from(total - 8).unwrap_or(u32::MAX);
    let payload_len = u16::try_from(total - HEADER_LEN).unwrap_or(u16::MAX);
    let mut packet = Vec::with_capacity(total);
    packet.extend_from_slice(&1u32.to_le_bytes());
    packet.extend_from_slice(&size.to_le_bytes());
    for number in [3u16, 0, kind, 5, 0, payload_len] {
        packet.extend_from_slice(&number.to_le_bytes());
    }
    packet.extend_from_slice(&0u32.to_le_bytes());
    packet.extend_from_slice(&[transaction, TRANSACTION_AND_REQUEST, 0, 0]);
    packet.extend_from_slice(payload);
    packet.resize(total, 0);
    packet
}

/// A VSS request of the length a real host gives it.
#[must_use]
pub fn vss(operation: Operation, transaction: u8) -> Vec<u8> {
    let total = match operation {
        Operation::FREEZE => FREEZE_LEN,
        _ => VSS_LEN,
    };
    request(TYPE_VSS, transaction, &[operation.0], total)
}

/// The offer of a host: frame versions 1.0 and 3.0, message versions 1.0 to 5.0.
#[must_use]
pub fn negotiate(transaction: u8) -> Vec<u8> {
    let frames = [(1u16, 0u16), (3, 0)];
    let messages = [(1, 0), (3, 0), (4, 0), (5, 0)];
    let mut payload = Vec::new();
    payload.extend_from_slice(&u16::try_from(frames.len()).unwrap_or(0).to_le_bytes());
    payload.extend_from_slice(&u16::try_from(messages.len()).unwrap_or(0).to_le_bytes());
    payload.extend_from_slice(&0u32.to_le_bytes());
    for (major, minor) in frames.into_iter().chain(messages) {
        payload.extend_from_slice(&major.to_le_bytes());
        payload.extend_from_slice(&minor.to_le_bytes());
    }
    let total = HEADER_LEN + payload.len();
    request(TYPE_NEGOTIATE, transaction, &payload, total)
}

/// What a guest agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiation {
    /// Frame version, major and minor.
    pub frame: (u16, u16),
    /// Message version, major and minor.
    pub message: (u16, u16),
}

impl Negotiation {
    /// Reads an answer; `None` if it is not one, or nothing was agreed.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        let agreed = Header::of(packet)?.kind == TYPE_NEGOTIATE
            && u16_at(packet, HEADER_LEN)? == 1
            && u16_at(packet, HEADER_LEN + 2)? == 1;
        let version = |at| Some((u16_at(packet, at)?, u16_at(packet, at + 2)?));
        agreed.then_some(Self {
            frame: version(HEADER_LEN + 8)?,
            message: version(HEADER_LEN + 12)?,
        })
    }
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_le_bytes(bytes))
}

fn u32_at(packet: &[u8], at: usize) -> Option<u32> {
    let bytes = packet.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_layout_of_a_real_host() {
        let freeze = vss(Operation::FREEZE, 7);
        assert_eq!(freeze.len(), 6260);
        assert_eq!(freeze[28], 5);
        assert_eq!(
            Header::of(&freeze),
            Some(Header {
                kind: 5,
                status: 0,
                transaction: 7,
                flags: 3
            })
        );
        assert_eq!(vss(Operation::THAW, 1).len(), 40);
    }

    #[test]
    fn a_short_packet_has_no_header() {
        assert_eq!(Header::of(&[0; 25]), None);
        assert_eq!(Negotiation::of(&[0; 39]), None);
    }
}
