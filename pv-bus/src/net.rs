//! Network frames as they pass between front ends, back ends and what is behind them.
//!
//! Source: Xen `public/io/netif.h` (`NETTXF_*`, `NETRXF_*`).

use alloc::vec::Vec;

use pv_abi::io::netif::{
    NETRXF_CSUM_BLANK, NETRXF_DATA_VALIDATED, NETTXF_CSUM_BLANK, NETTXF_DATA_VALIDATED, XEN_NETIF_EXTRA_FLAG_MORE,
    XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_TYPE_MCAST_ADD, XEN_NETIF_EXTRA_TYPE_MCAST_DEL, XEN_NETIF_GSO_TYPE_TCPV4,
    XEN_NETIF_GSO_TYPE_TCPV6, XEN_NETIF_NR_SLOTS_MIN,
};

use crate::checksum;

/// Bytes of the shortest frame: an Ethernet header.
pub const MIN_FRAME_BYTES: usize = 14;
/// Bytes of the longest frame that the rings can carry.
pub const MAX_FRAME_BYTES: usize = 65_535;
/// Ring slots that one frame takes at most.
pub const MAX_SLOTS: usize = XEN_NETIF_NR_SLOTS_MIN as usize;

/// What is known of a frame's TCP or UDP checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Checksum {
    /// It is in the frame, as from a wire: the receiver checks it.
    #[default]
    InFrame,
    /// It is in the frame and somebody has checked it.
    Validated,
    /// It is not filled in: the frame never was on a wire, and its content is good.
    Blank,
}

impl Checksum {
    /// The flags of a slot on the way from a guest.
    #[must_use]
    pub fn transmit_flags(self) -> u16 {
        match self {
            Self::InFrame => 0,
            Self::Validated => NETTXF_DATA_VALIDATED,
            Self::Blank => NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED,
        }
    }

    /// What these flags say, on the way from a guest.
    #[must_use]
    pub fn from_transmit_flags(flags: u16) -> Self {
        match (flags & NETTXF_CSUM_BLANK != 0, flags & NETTXF_DATA_VALIDATED != 0) {
            (true, _) => Self::Blank,
            (false, true) => Self::Validated,
            (false, false) => Self::InFrame,
        }
    }

    /// The flags of a slot on the way to a guest.
    #[must_use]
    pub fn receive_flags(self) -> u16 {
        match self {
            Self::InFrame => 0,
            Self::Validated => NETRXF_DATA_VALIDATED,
            Self::Blank => NETRXF_CSUM_BLANK | NETRXF_DATA_VALIDATED,
        }
    }

    /// What these flags say, on the way to a guest.
    #[must_use]
    pub fn from_receive_flags(flags: u16) -> Self {
        match (flags & NETRXF_CSUM_BLANK != 0, flags & NETRXF_DATA_VALIDATED != 0) {
            (true, _) => Self::Blank,
            (false, true) => Self::Validated,
            (false, false) => Self::InFrame,
        }
    }
}

/// A TCP segment that is longer than the network's own, to be cut into such by whoever passes it to a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Oversize {
    /// Over IPv6, not IPv4.
    pub ipv6: bool,
    /// Bytes of payload in each piece but the last.
    pub segment_bytes: u16,
}

/// What a slot of extra information says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extra {
    /// The frame is oversize.
    Oversize(Oversize),
    /// No frame: the guest wants what is sent to this group.
    JoinGroup([u8; 6]),
    /// No frame: it does not want it any more.
    LeaveGroup([u8; 6]),
    /// Of this type, which is none of the others, or malformed.
    Other(u8),
}

/// Bytes of a slot of extra information.
pub const EXTRA_BYTES: usize = 8;

impl Extra {
    /// Takes a slot apart; also says whether another one follows.
    #[must_use]
    pub fn decode(slot: [u8; EXTRA_BYTES]) -> (Self, bool) {
        let [kind, flags, a, b, c, d, e, f] = slot;
        let extra = match (kind, c) {
            (XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4 | XEN_NETIF_GSO_TYPE_TCPV6) => {
                let ipv6 = c == XEN_NETIF_GSO_TYPE_TCPV6;
                Self::Oversize(Oversize { ipv6, segment_bytes: u16::from_le_bytes([a, b]) })
            }
            (XEN_NETIF_EXTRA_TYPE_MCAST_ADD, _) => Self::JoinGroup([a, b, c, d, e, f]),
            (XEN_NETIF_EXTRA_TYPE_MCAST_DEL, _) => Self::LeaveGroup([a, b, c, d, e, f]),
            _ => Self::Other(kind),
        };
        (extra, flags & XEN_NETIF_EXTRA_FLAG_MORE != 0)
    }

    /// The only slot of extra information of a frame.
    #[must_use]
    pub fn encode(self) -> [u8; EXTRA_BYTES] {
        match self {
            Self::Oversize(Oversize { ipv6, segment_bytes }) => {
                let [a, b] = segment_bytes.to_le_bytes();
                let kind = if ipv6 { XEN_NETIF_GSO_TYPE_TCPV6 } else { XEN_NETIF_GSO_TYPE_TCPV4 };
                [XEN_NETIF_EXTRA_TYPE_GSO, 0, a, b, kind, 0, 0, 0]
            }
            Self::JoinGroup([a, b, c, d, e, f]) => [XEN_NETIF_EXTRA_TYPE_MCAST_ADD, 0, a, b, c, d, e, f],
            Self::LeaveGroup([a, b, c, d, e, f]) => [XEN_NETIF_EXTRA_TYPE_MCAST_DEL, 0, a, b, c, d, e, f],
            Self::Other(kind) => [kind, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// An Ethernet frame without its trailing check sequence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// The frame, from the destination address on.
    pub bytes: Vec<u8>,
    /// What is known of its TCP or UDP checksum.
    pub checksum: Checksum,
    /// It is to be cut before it goes to a wire; its checksum is blank then.
    pub oversize: Option<Oversize>,
}

impl Frame {
    /// A frame as from a wire.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Fills in a blank checksum; does nothing to any other frame.
    ///
    /// # Errors
    /// [`checksum::ChecksumError`] when the frame has no such checksum; it stays blank.
    pub fn complete_checksum(&mut self) -> Result<(), checksum::ChecksumError> {
        if self.checksum == Checksum::Blank {
            checksum::complete(&mut self.bytes)?;
            self.checksum = Checksum::Validated;
        }
        Ok(())
    }
}

/// A number that all frames of one flow have in common, to spread flows over queues: of the addresses and ports of TCP and
/// UDP over IPv4 or IPv6, else of the Ethernet addresses.
#[must_use]
pub fn flow(frame: &[u8]) -> u32 {
    let hash = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hashed = flow_key(frame).iter().fold(0x811c_9dc5, hash);
    hashed ^ hashed >> 16
}

/// The bytes that tell one flow from another.
fn flow_key(frame: &[u8]) -> &[u8] {
    let is_transport = |at: usize| frame.get(at).is_some_and(|protocol| matches!(protocol, 6 | 17));
    let key = match frame.get(12..15) {
        // Without options and no fragment, whose later parts have no ports.
        Some([8, 0, 0x45]) if is_transport(23) && frame[20] & 0x3f == 0 => frame.get(26..38),
        Some([0x86, 0xdd, _]) if is_transport(20) => frame.get(22..58),
        _ => None,
    };
    key.or_else(|| frame.get(..12)).unwrap_or_default()
}
