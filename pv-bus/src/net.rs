//! Network frames as they pass between front ends, back ends and what is behind them.
//!
//! Source: Xen `public/io/netif.h` (`NETTXF_*`, `NETRXF_*`).

use alloc::vec::Vec;

use pv_abi::io::netif::{
    NETRXF_CSUM_BLANK, NETRXF_DATA_VALIDATED, NETTXF_CSUM_BLANK, NETTXF_DATA_VALIDATED, XEN_NETIF_NR_SLOTS_MIN,
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

/// An Ethernet frame without its trailing check sequence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// The frame, from the destination address on.
    pub bytes: Vec<u8>,
    /// What is known of its TCP or UDP checksum.
    pub checksum: Checksum,
}

impl Frame {
    /// A frame as from a wire.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, checksum: Checksum::InFrame }
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
