//! Cutting oversize TCP segments into frames that a wire takes, and joining such frames again.
//!
//! Whoever handles one long segment instead of many short ones saves what each costs beside its bytes. [`cut`] is for the
//! last one who can: it makes the frames that the sender would have made. [`Joiner`] is for the first one who can: it
//! joins frames of one connection that follow each other to the segment they were cut from.
//!
//! Invariant: [`cut`] of what a [`Joiner`] made gives back the frames, byte for byte (but for their IPv4 identification).
//!
//! Source: RFC 9293, RFC 791; Xen `public/io/netif.h` (`XEN_NETIF_GSO_TYPE_*`).

use alloc::vec::Vec;

use crate::checksum::{self, ChecksumError, TCP, Transport, find_transport, fold, sum_of};
use crate::net::{Checksum, Frame, MAX_FRAME_BYTES, Oversize};

/// Payload bytes that a piece carries at least; TCP knows no smaller segment that is worth it.
pub const MIN_SEGMENT_BYTES: u16 = 48;

/// A segment of so many pieces is given room for the longest: it is copied once, not over and over.
const GROWS_FROM: usize = 2;

const TCP_HEADER: usize = 20;
const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

/// The headers of a TCP segment in a frame.
struct Headers {
    transport: Transport,
    ipv6: bool,
    /// Where the payload starts.
    payload: usize,
}

impl Headers {
    fn find(frame: &[u8]) -> Result<Self, ChecksumError> {
        let transport = find_transport(frame)?;
        if transport.protocol != TCP {
            return Err(ChecksumError::NotTransport);
        }
        let segment = frame.get(transport.start..transport.end).ok_or(ChecksumError::Truncated)?;
        let header = usize::from(*segment.get(12).ok_or(ChecksumError::Truncated)? >> 4) * 4;
        if header < TCP_HEADER || header > segment.len() {
            return Err(ChecksumError::Truncated);
        }
        let ipv6 = frame[transport.network] >> 4 == 6;
        Ok(Self { payload: transport.start + header, ipv6, transport })
    }

    fn sequence(&self, frame: &[u8]) -> u32 {
        be32(frame, self.transport.start + 4)
    }

    fn flags(&self, frame: &[u8]) -> u8 {
        frame[self.transport.start + 13]
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Cuts an oversize frame into frames with their checksums filled in; gives any other frame back as it is.
///
/// # Errors
/// [`ChecksumError`] when it is no whole TCP segment.
pub fn cut(frame: Frame) -> Result<Vec<Frame>, ChecksumError> {
    let Some(oversize) = frame.oversize else {
        return Ok(alloc::vec![frame]);
    };
    let headers = Headers::find(&frame.bytes)?;
    let step = usize::from(oversize.segment_bytes.max(MIN_SEGMENT_BYTES));
    let payload = &frame.bytes[headers.payload..headers.transport.end];
    let count = payload.len().div_ceil(step).max(1);
    let mut pieces = Vec::with_capacity(count);
    for number in 0..count {
        let at = number * step;
        let piece = &payload[at..payload.len().min(at + step)];
        let mut bytes = Vec::with_capacity(headers.payload + piece.len());
        bytes.extend_from_slice(&frame.bytes[..headers.payload]);
        bytes.extend_from_slice(piece);
        number_piece(&mut bytes, &headers, number, at, number + 1 == count);
        checksum::complete(&mut bytes)?;
        pieces.push(Frame { bytes, checksum: Checksum::Validated, oversize: None });
    }
    Ok(pieces)
}

/// Gives the piece that starts `at` bytes into the payload its lengths, numbers and flags.
fn number_piece(bytes: &mut [u8], headers: &Headers, number: usize, at: usize, last: bool) {
    let tcp = headers.transport.start;
    let sequence = be32(bytes, tcp + 4).wrapping_add(at as u32);
    bytes[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
    if !last {
        bytes[tcp + 13] &= !(FIN | PSH);
    }
    if number > 0 {
        bytes[tcp + 13] &= !CWR;
    }
    set_length(bytes, headers);
    if !headers.ipv6 {
        let ip = headers.transport.network;
        let identification = u16::from_be_bytes([bytes[ip + 4], bytes[ip + 5]]).wrapping_add(number as u16);
        bytes[ip + 4..ip + 6].copy_from_slice(&identification.to_be_bytes());
        sum_header(bytes, headers);
    }
}

/// Makes the network header say how long the frame is.
fn set_length(bytes: &mut [u8], headers: &Headers) {
    let ip = headers.transport.network;
    let (field, length) = if headers.ipv6 { (ip + 4, bytes.len() - ip - 40) } else { (ip + 2, bytes.len() - ip) };
    bytes[field..field + 2].copy_from_slice(&(length as u16).to_be_bytes());
}

fn sum_header(bytes: &mut [u8], headers: &Headers) {
    let header = &mut bytes[headers.transport.network..headers.transport.start];
    header[10..12].fill(0);
    let sum = !fold(sum_of(header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Joins frames as they come.
#[derive(Default)]
pub struct Joiner {
    open: Option<Open>,
}

/// A segment that grows.
struct Open {
    frame: Frame,
    headers: Headers,
    segment_bytes: usize,
    pieces: usize,
    next_sequence: u32,
}

impl Joiner {
    /// Takes a frame as it came from a wire, its checksum in it, and gives those that are not going to grow any more, in
    /// order.
    pub fn add(&mut self, frame: &[u8], mut out: impl FnMut(Frame)) {
        let Some(headers) = joinable(frame) else {
            self.finish(&mut out);
            return out(Frame::new(frame.to_vec()));
        };
        if let Some(open) = &mut self.open
            && open.takes(frame, &headers)
        {
            let (payload, end) = (headers.payload, headers.transport.end);
            let last = end - payload < open.segment_bytes || headers.flags(frame) & PSH != 0;
            open.append(&frame[payload..end], headers.flags(frame));
            if last {
                self.finish(&mut out);
            }
            return;
        }
        self.finish(&mut out);
        let segment_bytes = headers.transport.end - headers.payload;
        let next_sequence = headers.sequence(frame).wrapping_add(segment_bytes as u32);
        let first = Frame { checksum: Checksum::Validated, ..Frame::new(frame.to_vec()) };
        if headers.flags(frame) & PSH != 0 {
            return out(first);
        }
        self.open = Some(Open { frame: first, headers, segment_bytes, pieces: 1, next_sequence });
    }

    /// Gives what is still growing.
    pub fn finish(&mut self, mut out: impl FnMut(Frame)) {
        if let Some(open) = self.open.take() {
            out(open.close());
        }
    }
}

/// The headers of a frame that can be part of a longer segment: plain data, whole, and right.
fn joinable(frame: &[u8]) -> Option<Headers> {
    let headers = Headers::find(frame).ok()?;
    let plain = headers.flags(frame) & !PSH == ACK;
    let ip = headers.transport.network;
    let plain_network = if headers.ipv6 { headers.transport.start == ip + 40 } else { frame[ip] == 0x45 };
    let data = headers.transport.end - headers.payload;
    let fits = data >= usize::from(MIN_SEGMENT_BYTES) && data <= usize::from(u16::MAX);
    // Padding behind a short packet would become data.
    let whole = headers.transport.end == frame.len();
    let right = || headers.ipv6 || fold(sum_of(&frame[ip..headers.transport.start])) == 0xffff;
    (plain && plain_network && fits && whole && right() && headers.transport.is_right(frame)).then_some(headers)
}

impl Open {
    /// Whether the frame continues this segment.
    fn takes(&self, bytes: &[u8], headers: &Headers) -> bool {
        let (own, other) = (&self.headers, headers);
        let same_shape = own.payload == other.payload && own.transport.network == other.transport.network;
        if !same_shape || other.sequence(bytes) != self.next_sequence {
            return false;
        }
        let data = other.transport.end - other.payload;
        let room = MAX_FRAME_BYTES - self.frame.bytes.len() >= data && data <= self.segment_bytes;
        room && headers_agree(&self.frame.bytes, bytes, own)
    }

    fn append(&mut self, payload: &[u8], flags: u8) {
        if self.pieces == GROWS_FROM {
            self.frame.bytes.reserve(MAX_FRAME_BYTES - self.frame.bytes.len());
        }
        self.frame.bytes.extend_from_slice(payload);
        self.frame.bytes[self.headers.transport.start + 13] |= flags & PSH;
        self.next_sequence = self.next_sequence.wrapping_add(payload.len() as u32);
        self.pieces += 1;
    }

    fn close(self) -> Frame {
        let Self { mut frame, headers, segment_bytes, pieces, .. } = self;
        frame.bytes.shrink_to_fit();
        if pieces == 1 {
            return frame;
        }
        set_length(&mut frame.bytes, &headers);
        if !headers.ipv6 {
            sum_header(&mut frame.bytes, &headers);
        }
        // The field of a blank checksum holds the sum of the pseudo header, as a sender that offloads leaves it.
        let tcp = headers.transport.start;
        let old_length = (headers.transport.end - tcp) as u32;
        let new_length = (frame.bytes.len() - tcp) as u32;
        let sum = fold(headers.transport.pseudo_sum - old_length + new_length);
        frame.bytes[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
        frame.checksum = Checksum::Blank;
        frame.oversize = Some(Oversize { ipv6: headers.ipv6, segment_bytes: segment_bytes as u16 });
        frame
    }
}

/// Whether two frames of one shape differ only in what differs from piece to piece.
fn headers_agree(one: &[u8], other: &[u8], headers: &Headers) -> bool {
    let (ip, tcp) = (headers.transport.network, headers.transport.start);
    let same = |from: usize, to: usize| one[from..to] == other[from..to];
    let network = match headers.ipv6 {
        true => same(ip, ip + 4) && same(ip + 6, tcp),
        // Not the length, the identification and the sum.
        false => same(ip, ip + 2) && same(ip + 6, ip + 10) && same(ip + 12, tcp),
    };
    // Not the sequence number, the flags (PSH may come) and the sum.
    network
        && same(0, ip)
        && same(tcp, tcp + 4)
        && same(tcp + 8, tcp + 13)
        && same(tcp + 14, tcp + 16)
        && same(tcp + 18, headers.payload)
}

#[cfg(test)]
mod tests;
