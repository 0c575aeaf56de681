//! The block protocol: requests for runs of 512-byte sectors, with grants for the memory.
//!
//! A ring entry is 112 bytes; a request of any form fits, a response takes the first 16. Sectors are numbered in units of
//! 512 bytes whatever the disk's own sector size.
//!
//! Xen: `public/io/blkif.h`.

use crate::layout::{constants, structs};

constants! {
    header "io/blkif.h";
    /// Reads.
    pub const BLKIF_OP_READ: u8 = 0;
    /// Writes.
    pub const BLKIF_OP_WRITE: u8 = 1;
    /// Writes, after all before it and before all after it; needs `feature-barrier`.
    pub const BLKIF_OP_WRITE_BARRIER: u8 = 2;
    /// Flushes the disk's cache; needs `feature-flush-cache`.
    pub const BLKIF_OP_FLUSH_DISKCACHE: u8 = 3;
    /// Not to be used.
    pub const BLKIF_OP_RESERVED_1: u8 = 4;
    /// Discards; needs `feature-discard`. See [`BlkifRequestDiscard`].
    pub const BLKIF_OP_DISCARD: u8 = 5;
    /// Reads or writes with the segments in pages of their own. See [`BlkifRequestIndirect`].
    pub const BLKIF_OP_INDIRECT: u8 = 6;
    /// Segments in a request itself.
    pub const BLKIF_MAX_SEGMENTS_PER_REQUEST: usize = 11;
    /// Pages of segments in an indirect request.
    pub const BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST: usize = 8;
    /// [`BlkifRequestDiscard::flag`]: erase beyond recovery.
    pub const BLKIF_DISCARD_SECURE: u8 = 1;
    /// [`BlkifResponse::status`]: no such operation.
    pub const BLKIF_RSP_EOPNOTSUPP: i16 = -2;
    /// [`BlkifResponse::status`]: failed.
    pub const BLKIF_RSP_ERROR: i16 = -1;
    /// [`BlkifResponse::status`]: done.
    pub const BLKIF_RSP_OKAY: i16 = 0;
    /// In the back end's node `info`: a CD-ROM.
    pub const VDISK_CDROM: u32 = 1;
    /// In the back end's node `info`: removable.
    pub const VDISK_REMOVABLE: u32 = 2;
    /// In the back end's node `info`: read-only.
    pub const VDISK_READONLY: u32 = 4;
}

/// Bytes of a ring entry.
pub const BLKIF_RING_ENTRY_SIZE: usize = size_of::<BlkifRequest>();

/// Segments in a page of an indirect request.
pub const BLKIF_SEGMENTS_PER_INDIRECT_PAGE: usize = crate::PAGE_SIZE / size_of::<BlkifRequestSegment>();

structs! {
    header "io/blkif.h";

    /// Part of a page, in sectors of 512 bytes.
    pub struct BlkifRequestSegment ["struct blkif_request_segment"] {
        /// Grant of the page.
        pub gref: u32,
        /// First sector in the page, 0 to 7.
        pub first_sect: u8,
        /// Last sector in the page, 0 to 7.
        pub last_sect: u8,
        /// Padding.
        pub _pad0: u16,
    }

    /// Reads, writes or flushes.
    pub struct BlkifRequest ["struct blkif_request"] {
        /// `BLKIF_OP_*`.
        pub operation: u8,
        /// Number of segments.
        pub nr_segments: u8,
        /// The device's number; only in reads and writes.
        pub handle: u16,
        /// Padding.
        pub _pad0: u32,
        /// Chosen by the front end, echoed.
        pub id: u64,
        /// First sector on the disk.
        pub sector_number: u64,
        /// The segments.
        pub seg: [BlkifRequestSegment; BLKIF_MAX_SEGMENTS_PER_REQUEST],
    }

    /// Discards a run of sectors.
    pub struct BlkifRequestDiscard ["struct blkif_request_discard"] {
        /// `BLKIF_OP_DISCARD`.
        pub operation: u8,
        /// 0 or [`BLKIF_DISCARD_SECURE`].
        pub flag: u8,
        /// The device's number.
        pub handle: u16,
        /// Padding.
        pub _pad0: u32,
        /// Chosen by the front end, echoed.
        pub id: u64,
        /// First sector.
        pub sector_number: u64,
        /// Number of sectors.
        pub nr_sectors: u64,
    }

    /// Reads or writes, with the segments in pages of 512 [`BlkifRequestSegment`].
    pub struct BlkifRequestIndirect ["struct blkif_request_indirect"] {
        /// `BLKIF_OP_INDIRECT`.
        pub operation: u8,
        /// `BLKIF_OP_READ` or `BLKIF_OP_WRITE`.
        pub indirect_op: u8,
        /// Number of segments.
        pub nr_segments: u16,
        /// Padding.
        pub _pad0: u32,
        /// Chosen by the front end, echoed.
        pub id: u64,
        /// First sector on the disk.
        pub sector_number: u64,
        /// The device's number.
        pub handle: u16,
        /// Padding.
        pub _pad1: u16,
        /// Grants of the pages of segments.
        pub indirect_grefs: [u32; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST],
        /// Padding.
        pub _pad2: u32,
    }

    /// The outcome of a request.
    pub struct BlkifResponse ["struct blkif_response"] {
        /// The request's.
        pub id: u64,
        /// The request's.
        pub operation: u8,
        /// Padding.
        pub _pad0: u8,
        /// `BLKIF_RSP_*`.
        pub status: i16,
        /// Padding.
        pub _pad1: u32,
    }
}
