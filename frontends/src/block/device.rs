//! What a back end says of its disk, and what the two agree on.

use pv_bus::block::{MAX_DIRECT_SEGMENTS, MAX_INDIRECT_PAGES, SECTOR_BYTES, SEGMENTS_PER_INDIRECT_PAGE, op};
use pv_bus::block::{VDISK_CDROM, VDISK_READONLY, VDISK_REMOVABLE};
use pv_bus::xenbus::Link;
use pv_bus::{Hal, StoreError};

/// What the owner of a front end chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Offer persistent grants.
    pub persistent: bool,
    /// Use at most this many segments (pages) a request on the ring; 11 or less means no indirect requests.
    pub max_segments: usize,
    /// Use at most this many rings, if the back end knows several; at least one.
    pub max_queues: u32,
    /// Use a ring of at most 2 to this power pages, if the back end knows such rings.
    pub max_ring_order: u32,
    /// Use at most this many pages for data.
    pub max_pages: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { persistent: true, max_segments: 64, max_queues: 1, max_ring_order: 0, max_pages: 1024 }
    }
}

/// A disk as the back end describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// Every request starts and ends at a multiple of this many bytes.
    pub sector_size_bytes: u32,
    /// What the medium itself works in.
    pub physical_sector_size_bytes: u32,
    /// It cannot be written.
    pub read_only: bool,
    /// The medium can be taken out.
    pub removable: bool,
    /// It is a CD-ROM.
    pub cdrom: bool,
    /// It forgets sectors when told to, in pieces of this many bytes that start at this offset.
    pub discard: Option<Discard>,
}

/// How a device forgets sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Discard {
    /// Unit in bytes.
    pub granularity_bytes: u32,
    /// Where the first unit starts.
    pub alignment_bytes: u32,
    /// It can make them unrecoverable.
    pub secure: bool,
}

/// What the two sides agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Features {
    pub(super) persistent: bool,
    pub(super) max_segments: usize,
    pub(super) flush: bool,
    pub(super) barrier: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { persistent: false, max_segments: MAX_DIRECT_SEGMENTS, flush: false, barrier: false }
    }
}

impl Features {
    /// Reads what the back end offers and takes what both want.
    pub(super) fn agree<H: Hal>(hal: &mut H, link: &Link, options: &Options) -> Self {
        let offered: usize = link.read_peer_or(hal, "feature-max-indirect-segments", 0);
        let most = options.max_segments.min(MAX_INDIRECT_PAGES * SEGMENTS_PER_INDIRECT_PAGE);
        Self {
            persistent: options.persistent && link.peer_has(hal, "feature-persistent"),
            max_segments: offered.min(most).max(MAX_DIRECT_SEGMENTS),
            flush: link.peer_has(hal, "feature-flush-cache"),
            barrier: link.peer_has(hal, "feature-barrier"),
        }
    }

    /// The back end said that it does not know this operation after all.
    pub(super) fn without(&mut self, operation: u8) {
        match operation {
            op::FLUSH => self.flush = false,
            op::WRITE_BARRIER => self.barrier = false,
            _ => {}
        }
    }
}

impl Device {
    /// Reads what the back end says.
    ///
    /// # Errors
    /// The store's answer for a missing key; [`StoreError::Invalid`] for a sector size that is none.
    pub(super) fn read<H: Hal>(hal: &mut H, link: &Link) -> Result<Self, StoreError> {
        let sector_size_bytes: u32 = link.read_peer_or(hal, "sector-size", 512);
        if !sector_size_bytes.is_power_of_two() || (sector_size_bytes as usize) < SECTOR_BYTES {
            return Err(StoreError::Invalid);
        }
        let info: u32 = link.read_peer_or(hal, "info", 0);
        let discard = link.peer_has(hal, "feature-discard").then(|| Discard {
            granularity_bytes: link.read_peer_or(hal, "discard-granularity", sector_size_bytes),
            alignment_bytes: link.read_peer_or(hal, "discard-alignment", 0),
            secure: link.peer_has(hal, "discard-secure"),
        });
        Ok(Self {
            sectors: link.read_peer(hal, "sectors")?,
            sector_size_bytes,
            physical_sector_size_bytes: link.read_peer_or(hal, "physical-sector-size", sector_size_bytes),
            read_only: info & VDISK_READONLY != 0,
            removable: info & VDISK_REMOVABLE != 0,
            cdrom: info & VDISK_CDROM != 0,
            discard,
        })
    }
}
