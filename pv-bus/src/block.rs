//! The slots of a block ring, as values.
//!
//! A slot is 112 bytes that mean one of three things, told apart by the first byte. [`Request::decode`] takes a private
//! copy of a slot apart once; every number in the result is still whatever the front wrote.
//!
//! Source: Xen `public/io/blkif.h` (x86-64 layout).

use pv_abi::GrantRef;

/// Bytes of a request.
pub const REQUEST_BYTES: usize = 112;
/// Bytes of a response.
pub const RESPONSE_BYTES: usize = 16;
/// The unit of every sector number on the ring.
pub const SECTOR_BYTES: usize = 512;
/// Sectors in a page.
pub const SECTORS_PER_PAGE: u8 = 8;
/// Segments that fit a slot.
pub const MAX_DIRECT_SEGMENTS: usize = 11;
/// Pages of segments that one request can name.
pub const MAX_INDIRECT_PAGES: usize = 8;
/// Segments in one such page.
pub const SEGMENTS_PER_INDIRECT_PAGE: usize = 512;
/// Bytes of a segment.
pub const SEGMENT_BYTES: usize = 8;
/// The value of `protocol` for the layout used here.
pub const PROTOCOL: &str = "x86_64-abi";

/// `info` bit: the device is a CD-ROM.
pub const VDISK_CDROM: u32 = 1;
/// `info` bit: the medium can be removed.
pub const VDISK_REMOVABLE: u32 = 2;
/// `info` bit: the device cannot be written.
pub const VDISK_READONLY: u32 = 4;

/// Operation codes.
pub mod op {
    /// `BLKIF_OP_READ`.
    pub const READ: u8 = 0;
    /// `BLKIF_OP_WRITE`.
    pub const WRITE: u8 = 1;
    /// `BLKIF_OP_WRITE_BARRIER`.
    pub const WRITE_BARRIER: u8 = 2;
    /// `BLKIF_OP_FLUSH_DISKCACHE`.
    pub const FLUSH: u8 = 3;
    /// `BLKIF_OP_DISCARD`.
    pub const DISCARD: u8 = 5;
    /// `BLKIF_OP_INDIRECT`.
    pub const INDIRECT: u8 = 6;
}

/// `BLKIF_DISCARD_SECURE`: what is discarded must not be recoverable.
pub const DISCARD_SECURE: u8 = 1;

/// How a request ended.
pub mod status {
    /// `BLKIF_RSP_OKAY`.
    pub const OKAY: i16 = 0;
    /// `BLKIF_RSP_ERROR`.
    pub const ERROR: i16 = -1;
    /// `BLKIF_RSP_EOPNOTSUPP`.
    pub const NOT_SUPPORTED: i16 = -2;
}

/// A request slot as it lies in the ring.
pub type RequestSlot = [u8; REQUEST_BYTES];
/// A response as it lies in the ring. (Its slot is as large as a request's.)
pub type ResponseSlot = [u8; RESPONSE_BYTES];

/// A run of sectors within a granted page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The page.
    pub grant: GrantRef,
    /// First sector in the page.
    pub first: u8,
    /// Last sector in the page, inclusive.
    pub last: u8,
}

impl Segment {
    /// No segment.
    pub const NONE: Self = Self { grant: GrantRef(0), first: 0, last: 0 };

    /// Reads a segment from its 8 bytes.
    #[must_use]
    pub fn decode(bytes: &[u8; SEGMENT_BYTES]) -> Self {
        let [a, b, c, d, first, last, _, _] = *bytes;
        Self { grant: GrantRef(u32::from_le_bytes([a, b, c, d])), first, last }
    }

    /// The segment's 8 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_BYTES] {
        let [a, b, c, d] = self.grant.0.to_le_bytes();
        [a, b, c, d, self.first, self.last, 0, 0]
    }
}

/// A request, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The front's own number for it.
    pub id: u64,
    /// First sector on the device.
    pub sector: u64,
    /// The rest.
    pub body: Body,
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Any operation whose segments are in the slot.
    Direct {
        /// The operation code; may be anything but those of the other two.
        operation: u8,
        /// How many of the segments count; may be more than there are.
        count: u8,
        /// The segments.
        segments: [Segment; MAX_DIRECT_SEGMENTS],
    },
    /// An operation whose segments are in pages of their own.
    Indirect {
        /// The operation code.
        operation: u8,
        /// How many segments there are.
        count: u16,
        /// The pages they are in.
        pages: [GrantRef; MAX_INDIRECT_PAGES],
    },
    /// Sectors that are not needed any more.
    Discard {
        /// [`DISCARD_SECURE`] or nothing.
        flag: u8,
        /// How many sectors.
        sectors: u64,
    },
}

fn u32_at(slot: &RequestSlot, at: usize) -> u32 {
    u32::from_le_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]])
}

fn u64_at(slot: &RequestSlot, at: usize) -> u64 {
    u64::from(u32_at(slot, at)) | u64::from(u32_at(slot, at + 4)) << 32
}

fn put(slot: &mut RequestSlot, at: usize, bytes: &[u8]) {
    slot[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Request {
    /// Takes a slot apart.
    #[must_use]
    pub fn decode(slot: &RequestSlot) -> Self {
        let body = match slot[0] {
            op::DISCARD => Body::Discard { flag: slot[1], sectors: u64_at(slot, 24) },
            op::INDIRECT => Body::Indirect {
                operation: slot[1],
                count: u16::from_le_bytes([slot[2], slot[3]]),
                pages: core::array::from_fn(|page| GrantRef(u32_at(slot, 28 + page * 4))),
            },
            operation => Body::Direct {
                operation,
                count: slot[1],
                segments: core::array::from_fn(|segment| {
                    let at = 24 + segment * SEGMENT_BYTES;
                    Segment { grant: GrantRef(u32_at(slot, at)), first: slot[at + 4], last: slot[at + 5] }
                }),
            },
        };
        Self { id: u64_at(slot, 8), sector: u64_at(slot, 16), body }
    }

    /// The operation that the response names: of an indirect request, the one within.
    #[must_use]
    pub fn operation(&self) -> u8 {
        match self.body {
            Body::Direct { operation, .. } | Body::Indirect { operation, .. } => operation,
            Body::Discard { .. } => op::DISCARD,
        }
    }

    /// The slot for this request to the device `handle`.
    #[must_use]
    pub fn encode(&self, handle: u16) -> RequestSlot {
        let mut slot = [0; REQUEST_BYTES];
        put(&mut slot, 8, &self.id.to_le_bytes());
        put(&mut slot, 16, &self.sector.to_le_bytes());
        match &self.body {
            Body::Direct { operation, count, segments } => {
                put(&mut slot, 0, &[*operation, *count]);
                put(&mut slot, 2, &handle.to_le_bytes());
                for (number, segment) in segments.iter().enumerate() {
                    put(&mut slot, 24 + number * SEGMENT_BYTES, &segment.encode());
                }
            }
            Body::Indirect { operation, count, pages } => {
                put(&mut slot, 0, &[op::INDIRECT, *operation]);
                put(&mut slot, 2, &count.to_le_bytes());
                put(&mut slot, 24, &handle.to_le_bytes());
                for (number, page) in pages.iter().enumerate() {
                    put(&mut slot, 28 + number * 4, &page.0.to_le_bytes());
                }
            }
            Body::Discard { flag, sectors } => {
                put(&mut slot, 0, &[op::DISCARD, *flag]);
                put(&mut slot, 2, &handle.to_le_bytes());
                put(&mut slot, 24, &sectors.to_le_bytes());
            }
        }
        slot
    }
}

/// A response, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response {
    /// The number of the request.
    pub id: u64,
    /// The operation of the request; of an indirect one, the operation within.
    pub operation: u8,
    /// One of [`status`].
    pub status: i16,
}

impl Response {
    /// Takes a slot apart.
    #[must_use]
    pub fn decode(slot: &ResponseSlot) -> Self {
        let [a, b, c, d, e, f, g, h, operation, _, low, high, ..] = *slot;
        Self { id: u64::from_le_bytes([a, b, c, d, e, f, g, h]), operation, status: i16::from_le_bytes([low, high]) }
    }

    /// The slot for this response.
    #[must_use]
    pub fn encode(&self) -> ResponseSlot {
        let mut slot = [0; RESPONSE_BYTES];
        slot[..8].copy_from_slice(&self.id.to_le_bytes());
        slot[8] = self.operation;
        slot[10..12].copy_from_slice(&self.status.to_le_bytes());
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use proptest::prelude::*;
    use pv_abi::io::blkif;

    #[test]
    fn the_numbers_are_those_of_the_abi() {
        assert_eq!(
            [op::READ, op::WRITE, op::WRITE_BARRIER, op::FLUSH, op::DISCARD, op::INDIRECT],
            [
                blkif::BLKIF_OP_READ,
                blkif::BLKIF_OP_WRITE,
                blkif::BLKIF_OP_WRITE_BARRIER,
                blkif::BLKIF_OP_FLUSH_DISKCACHE,
                blkif::BLKIF_OP_DISCARD,
                blkif::BLKIF_OP_INDIRECT,
            ]
        );
        assert_eq!(REQUEST_BYTES, size_of::<blkif::BlkifRequest>());
        assert_eq!(RESPONSE_BYTES, size_of::<blkif::BlkifResponse>());
        assert_eq!(MAX_DIRECT_SEGMENTS, blkif::BLKIF_MAX_SEGMENTS_PER_REQUEST);
        assert_eq!(MAX_INDIRECT_PAGES, blkif::BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST);
        assert_eq!(offset_of!(blkif::BlkifRequest, id), 8);
        assert_eq!(offset_of!(blkif::BlkifRequest, sector_number), 16);
        assert_eq!(offset_of!(blkif::BlkifRequest, seg), 24);
        assert_eq!(offset_of!(blkif::BlkifRequestDiscard, nr_sectors), 24);
        assert_eq!(offset_of!(blkif::BlkifRequestIndirect, nr_segments), 2);
        assert_eq!(offset_of!(blkif::BlkifRequestIndirect, handle), 24);
        assert_eq!(offset_of!(blkif::BlkifRequestIndirect, indirect_grefs), 28);
        assert_eq!(offset_of!(blkif::BlkifResponse, status), 10);
    }

    #[test]
    fn fields_lie_where_the_c_compiler_puts_them() {
        let segments = [Segment { grant: GrantRef(0x0403_0201), first: 5, last: 6 }; MAX_DIRECT_SEGMENTS];
        let request =
            Request { id: 0x11, sector: 0x22, body: Body::Direct { operation: op::WRITE, count: 3, segments } };
        let slot = request.encode(0xca00);
        assert_eq!(slot[..4], [1, 3, 0x00, 0xca]);
        assert_eq!((slot[8], slot[16]), (0x11, 0x22));
        assert_eq!(slot[24..32], [1, 2, 3, 4, 5, 6, 0, 0]);
        let pages = [GrantRef(9); MAX_INDIRECT_PAGES];
        let body = Body::Indirect { operation: op::READ, count: 256, pages };
        let slot = Request { id: 0x11, sector: 0x22, body }.encode(0xca00);
        assert_eq!(slot[..4], [6, 0, 0, 1]);
        assert_eq!(slot[24..29], [0x00, 0xca, 0, 0, 9]);
    }

    proptest! {
        #[test]
        fn decoding_any_slot_and_encoding_it_again_gives_the_same_meaning(bytes in prop::collection::vec(any::<u8>(), REQUEST_BYTES)) {
            let slot: RequestSlot = bytes.try_into().unwrap();
            let request = Request::decode(&slot);
            prop_assert_eq!(Request::decode(&request.encode(0)), request);
        }

        #[test]
        fn a_response_survives_the_ring(id: u64, operation: u8, status: i16) {
            let response = Response { id, operation, status };
            prop_assert_eq!(Response::decode(&response.encode()), response);
        }
    }
}
