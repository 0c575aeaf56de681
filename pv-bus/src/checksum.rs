//! Filling in a transport checksum that a sender left to its device.
//!
//! A frame with a *blank* checksum is correct except for the TCP or UDP checksum field. Whoever passes such a frame to
//! a wire that cannot fill it in calls [`complete`].
//!
//! Invariant: the frame comes from somebody who may lie; every length in it is checked before it is used.
//!
//! Source: RFC 1071, RFC 793, RFC 768, RFC 8200 §8.1; Xen `public/io/netif.h` (`NETTXF_csum_blank`).

use core::fmt;

const ETHERNET_HEADER: usize = 14;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;
const MAX_EXTENSION_HEADERS: usize = 8;

/// Why a checksum cannot be filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumError {
    /// A header is cut off, or a length in it is larger than the frame.
    Truncated,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// A fragment: the checksum covers more than this frame.
    Fragment,
    /// Neither TCP nor UDP.
    NotTransport,
}

impl fmt::Display for ChecksumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the frame is shorter than its headers say",
            Self::NotIp => "the frame is neither IPv4 nor IPv6",
            Self::Fragment => "the packet is a fragment",
            Self::NotTransport => "the packet is neither TCP nor UDP",
        })
    }
}

/// Where the network packet and its transport segment lie, and the sum of the pseudo header.
pub(crate) struct Transport {
    pub(crate) network: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) protocol: u8,
    pub(crate) pseudo_sum: u32,
}

/// Computes the TCP or UDP checksum of an Ethernet frame and writes it into the frame.
///
/// # Errors
/// [`ChecksumError`] when there is no such field; the frame is unchanged.
pub fn complete(frame: &mut [u8]) -> Result<(), ChecksumError> {
    let transport = find_transport(frame)?;
    let field = match transport.protocol {
        TCP => 16,
        UDP => 6,
        _ => return Err(ChecksumError::NotTransport),
    };
    let segment = frame.get_mut(transport.start..transport.end).ok_or(ChecksumError::Truncated)?;
    let minimum = if transport.protocol == TCP { 20 } else { 8 };
    if segment.len() < minimum {
        return Err(ChecksumError::Truncated);
    }
    segment[field..field + 2].fill(0);
    let sum = fold(transport.pseudo_sum + sum_of(segment));
    let checksum = if sum == 0xffff && transport.protocol == UDP { 0xffff } else { !sum };
    segment[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// Whether the transport checksum of a frame is right. False for frames without one.
#[must_use]
pub fn is_right(frame: &[u8]) -> bool {
    let Ok(transport) = find_transport(frame) else {
        return false;
    };
    transport.is_right(frame)
}

impl Transport {
    /// Whether the checksum of this segment of a frame is right.
    pub(crate) fn is_right(&self, frame: &[u8]) -> bool {
        let segment = frame.get(self.start..self.end);
        segment.is_some_and(|segment| fold(self.pseudo_sum + sum_of(segment)) == 0xffff)
    }
}

pub(crate) fn find_transport(frame: &[u8]) -> Result<Transport, ChecksumError> {
    let mut network = ETHERNET_HEADER;
    let mut ether_type = be16(frame, 12)?;
    if ether_type == TYPE_VLAN {
        ether_type = be16(frame, 16)?;
        network += 4;
    }
    match ether_type {
        TYPE_IPV4 => find_in_ipv4(frame, network),
        TYPE_IPV6 => find_in_ipv6(frame, network),
        _ => Err(ChecksumError::NotIp),
    }
}

fn find_in_ipv4(frame: &[u8], network: usize) -> Result<Transport, ChecksumError> {
    let header = frame.get(network..network + 20).ok_or(ChecksumError::Truncated)?;
    let header_len = usize::from(header[0] & 15) * 4;
    let total_len = usize::from(be16(header, 2)?);
    if header[0] >> 4 != 4 || header_len < 20 || total_len < header_len {
        return Err(ChecksumError::Truncated);
    }
    if be16(header, 6)? & 0x3fff != 0 {
        return Err(ChecksumError::Fragment);
    }
    let protocol = header[9];
    let len = total_len - header_len;
    let pseudo_sum = sum_of(&header[12..20]) + u32::from(protocol) + length_sum(len);
    Ok(Transport { network, start: network + header_len, end: network + total_len, protocol, pseudo_sum })
}

fn find_in_ipv6(frame: &[u8], network: usize) -> Result<Transport, ChecksumError> {
    let header = frame.get(network..network + 40).ok_or(ChecksumError::Truncated)?;
    let end = network + 40 + usize::from(be16(header, 4)?);
    let mut protocol = header[6];
    let mut start = network + 40;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match protocol {
            0 | 43 | 60 => {
                protocol = *frame.get(start).ok_or(ChecksumError::Truncated)?;
                let units = *frame.get(start + 1).ok_or(ChecksumError::Truncated)?;
                start += (usize::from(units) + 1) * 8;
            }
            44 => return Err(ChecksumError::Fragment),
            _ => break,
        }
    }
    let len = end.checked_sub(start).ok_or(ChecksumError::Truncated)?;
    let pseudo_sum = sum_of(&header[8..40]) + u32::from(protocol) + length_sum(len);
    Ok(Transport { network, start, end, protocol, pseudo_sum })
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, ChecksumError> {
    match bytes.get(at..at + 2) {
        Some(pair) => Ok(u16::from_be_bytes([pair[0], pair[1]])),
        None => Err(ChecksumError::Truncated),
    }
}

/// A length below 64 KiB as its one 16-bit word.
fn length_sum(len: usize) -> u32 {
    (len & 0xffff) as u32
}

/// The sum of 16-bit words, folded to one, of at most 4 GiB.
pub(crate) fn sum_of(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let halves = |word: &[u8; 8]| {
        let word = u64::from_be_bytes(*word);
        (word >> 32) + (word & 0xffff_ffff)
    };
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let sum = words.iter().map(halves).sum::<u64>() + halves(&last);
    // A sum of 32-bit words folds to that of their 16-bit halves.
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    u32::from(fold((sum >> 16) as u32 + (sum & 0xffff) as u32))
}

pub(crate) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn udp_frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 14];
        frame[12..14].copy_from_slice(&[8, 0]);
        let udp_len = (8 + payload.len()) as u16;
        let total = 20 + udp_len;
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x12, 0x34, 0, 53]);
        frame.extend(udp_len.to_be_bytes());
        frame.extend([0xaa, 0xaa]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_known_datagram_gets_its_known_checksum() {
        let mut frame = udp_frame(b"hi");
        complete(&mut frame).unwrap();
        // 0a00+0001+0a00+0002+0011+000a + 1234+0035+000a + 6869 = 8efa, inverted 7105 (added by hand).
        assert_eq!(frame[40..42], [0x71, 0x05]);
        assert!(is_right(&frame));
    }

    #[test]
    fn a_fragment_and_a_non_ip_frame_are_left_alone() {
        let mut frame = udp_frame(b"hi");
        frame[20] = 0x20;
        let before = frame.clone();
        assert_eq!(complete(&mut frame), Err(ChecksumError::Fragment));
        assert_eq!(frame, before);
        frame[12] = 0x99;
        assert_eq!(complete(&mut frame), Err(ChecksumError::NotIp));
    }

    proptest! {
        #[test]
        fn a_completed_frame_is_right(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut frame = udp_frame(&payload);
            complete(&mut frame).unwrap();
            prop_assert!(is_right(&frame));
        }

        #[test]
        fn no_frame_makes_it_panic(
            mut frame in prop::collection::vec(any::<u8>(), 0..120),
            kind in prop::sample::select(vec![TYPE_IPV4, TYPE_IPV6, TYPE_VLAN]),
        ) {
            if frame.len() > 14 {
                frame[12..14].copy_from_slice(&kind.to_be_bytes());
            }
            let _ = complete(&mut frame);
            let _ = is_right(&frame);
        }
    }
}
