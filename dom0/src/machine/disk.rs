//! A virtio disk, driven without waiting.
//!
//! Each request takes a slot of a page for its header and its status, and a buffer of the pool for its data; both are
//! in a row in machine memory, so a request is two or three descriptors.
//!
//! Source: Virtual I/O Device 1.2, §5.2.
#![expect(unsafe_code, reason = "the device writes to memory that was lent to it")]

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use backends::block::{BlockDevice, DeviceCompletion, DeviceError, DeviceOperation, Geometry, Tag};
use bitflags::bitflags;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::dma::{DmaHal, DmaRegion};

const QUEUE: u16 = 0;
const QUEUE_LEN: usize = 64;
/// Requests in flight: each takes at most three descriptors.
const SLOTS: usize = QUEUE_LEN / 3;
const SLOT_BYTES: usize = 64;
const HEADER_BYTES: usize = 16;
const STATUS_AT: usize = 32;

/// Data of one request at most.
const BUFFER_BYTES: usize = 128 * 1024;
const BUFFER_PAGES: usize = BUFFER_BYTES / 4096;
/// Buffers of the pool.
const BUFFERS: usize = 16;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const STATUS_OK: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 2;
/// Not a status: the device has not answered.
const STATUS_PENDING: u8 = 0xff;

bitflags! {
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        const READ_ONLY = 1 << 5;
        const BLOCK_SIZE = 1 << 6;
        const FLUSH = 1 << 9;
        const EVENT_INDEX = 1 << 29;
        const VERSION_1 = 1 << 32;
    }
}

/// Memory for the data of one request.
#[derive(Debug)]
pub(crate) struct DiskBuffer {
    region: DmaRegion,
    len: usize,
}

impl AsRef<[u8]> for DiskBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.region.bytes()[..self.len]
    }
}

impl AsMut<[u8]> for DiskBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.region.bytes_mut()[..self.len]
    }
}

enum Kind {
    Read(DiskBuffer),
    Write(DiskBuffer),
    Flush,
}

struct Flying {
    tag: Tag,
    owner: u64,
    slot: usize,
    kind: Kind,
}

/// A virtio disk.
pub(crate) struct VirtioDisk {
    transport: PciTransport,
    queue: VirtQueue<DmaHal, QUEUE_LEN>,
    geometry: Geometry,
    headers: DmaRegion,
    free_slots: Vec<usize>,
    free_buffers: Vec<DmaRegion>,
    buffers_made: usize,
    flying: BTreeMap<u16, Flying>,
    /// Counts the back ends that had the disk: what one of them left in flight is not told to the next.
    owner: u64,
}

impl VirtioDisk {
    /// Starts a disk.
    ///
    /// # Errors
    /// The device or this domain's memory does not allow it.
    pub(crate) fn new(mut transport: PciTransport) -> Result<Self, virtio_drivers::Error> {
        let features = transport.begin_init(Features::all());
        let low: u32 = transport.read_config_space(0)?;
        let high: u32 = transport.read_config_space(4)?;
        let block_bytes: u32 = transport.read_config_space(20)?;
        let queue = VirtQueue::new(&mut transport, QUEUE, false, features.contains(Features::EVENT_INDEX))?;
        let headers = DmaRegion::new(1).ok_or(virtio_drivers::Error::DmaError)?;
        transport.finish_init();
        let known = features.contains(Features::BLOCK_SIZE) && block_bytes.is_power_of_two() && block_bytes >= 512;
        let geometry = Geometry {
            sectors: u64::from(high) << 32 | u64::from(low),
            sector_size_bytes: 512,
            physical_sector_size_bytes: if known { block_bytes } else { 512 },
            read_only: features.contains(Features::READ_ONLY),
            cdrom: false,
            can_flush: features.contains(Features::FLUSH),
            discard: None,
            max_transfer_bytes: BUFFER_BYTES,
        };
        Ok(Self {
            transport,
            queue,
            geometry,
            headers,
            free_slots: (0..SLOTS).rev().collect(),
            free_buffers: Vec::new(),
            buffers_made: 0,
            flying: BTreeMap::new(),
            owner: 0,
        })
    }

    /// The disk has a new owner, who will hear only of its own requests.
    pub(crate) fn hand_over(&mut self) {
        self.owner += 1;
    }

    /// Whether the device has finished something that was not taken yet.
    pub(crate) fn has_finished(&self) -> bool {
        self.queue.can_pop()
    }

    /// Takes the device's interrupt back.
    pub(crate) fn acknowledge(&mut self) {
        let _ = self.transport.ack_interrupt();
    }

    fn write_header(&mut self, slot: usize, kind: u32, sector: u64) {
        let bytes = &mut self.headers.bytes_mut()[slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].fill(0);
        bytes[8..16].copy_from_slice(&sector.to_le_bytes());
        bytes[STATUS_AT] = STATUS_PENDING;
    }

    /// The next request that the device has finished, and who made it.
    fn pop(&mut self) -> Option<(u64, DeviceCompletion<DiskBuffer>)> {
        let token = self.queue.peek_used()?;
        let mut flying = self.flying.remove(&token)?;
        let (header, status) = slot_parts(&mut self.headers, flying.slot);
        let (inputs, mut outputs) = parts(&mut flying.kind, header, status);
        // SAFETY: the same memory that was added with this token.
        let popped = unsafe { self.queue.pop_used(token, &inputs, &mut outputs) };
        let (_, status) = slot_parts(&mut self.headers, flying.slot);
        let result = match (popped, status[0]) {
            (Ok(_), STATUS_OK) => Ok(()),
            (Ok(_), STATUS_UNSUPPORTED) => Err(DeviceError::NotSupported),
            _ => Err(DeviceError::Failed),
        };
        self.free_slots.push(flying.slot);
        let buffer = match flying.kind {
            Kind::Read(buffer) | Kind::Write(buffer) => Some(buffer),
            Kind::Flush => None,
        };
        let completion = DeviceCompletion { tag: flying.tag, result, buffer };
        Some((flying.owner, completion))
    }
}

/// The two parts of a slot that the device reads and writes.
fn slot_parts(headers: &mut DmaRegion, slot: usize) -> (&[u8], &mut [u8]) {
    let bytes = &mut headers.bytes_mut()[slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES];
    let (header, rest) = bytes.split_at_mut(HEADER_BYTES);
    (header, &mut rest[STATUS_AT - HEADER_BYTES..=STATUS_AT - HEADER_BYTES])
}

/// What the device reads, and what it writes, for a request.
fn parts<'a>(kind: &'a mut Kind, header: &'a [u8], status: &'a mut [u8]) -> (Vec<&'a [u8]>, Vec<&'a mut [u8]>) {
    match kind {
        Kind::Read(buffer) => (alloc::vec![header], alloc::vec![buffer.as_mut(), status]),
        Kind::Write(buffer) => (alloc::vec![header, (*buffer).as_ref()], alloc::vec![status]),
        Kind::Flush => (alloc::vec![header], alloc::vec![status]),
    }
}

impl BlockDevice for VirtioDisk {
    type Buffer = DiskBuffer;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn take_buffer(&mut self, len_bytes: usize) -> Option<DiskBuffer> {
        if len_bytes > BUFFER_BYTES {
            return None;
        }
        let region = match self.free_buffers.pop() {
            Some(region) => region,
            None if self.buffers_made < BUFFERS => {
                let region = DmaRegion::new(BUFFER_PAGES)?;
                self.buffers_made += 1;
                region
            }
            None => return None,
        };
        Some(DiskBuffer { region, len: len_bytes })
    }

    fn give_back(&mut self, buffer: DiskBuffer) {
        self.free_buffers.push(buffer.region);
    }

    fn can_submit(&self) -> bool {
        !self.free_slots.is_empty() && self.queue.available_desc() >= 3
    }

    fn submit(&mut self, tag: Tag, operation: DeviceOperation<DiskBuffer>) {
        let (number, sector, mut kind) = match operation {
            DeviceOperation::Read { sector, buffer } => (IN, sector, Kind::Read(buffer)),
            DeviceOperation::Write { sector, buffer } => (OUT, sector, Kind::Write(buffer)),
            DeviceOperation::Flush | DeviceOperation::Discard { .. } => (FLUSH, 0, Kind::Flush),
        };
        let slot = self.free_slots.pop().expect("can_submit said so");
        self.write_header(slot, number, sector);
        let (header, status) = slot_parts(&mut self.headers, slot);
        let (inputs, mut outputs) = parts(&mut kind, header, status);
        // SAFETY: header, status and data belong to this request until its token is popped.
        let added = unsafe { self.queue.add(&inputs, &mut outputs) };
        let token = added.expect("can_submit counted the descriptors");
        self.flying.insert(token, Flying { tag, owner: self.owner, slot, kind });
    }

    fn commit(&mut self) {
        if self.queue.should_notify() {
            self.transport.notify(QUEUE);
        }
    }

    fn is_quiet(&self) -> bool {
        self.flying.values().all(|flying| flying.owner == self.owner)
    }

    fn next_completion(&mut self) -> Option<DeviceCompletion<DiskBuffer>> {
        loop {
            let (owner, completion) = self.pop()?;
            if owner == self.owner {
                return Some(completion);
            }
            completion.buffer.into_iter().for_each(|buffer| self.give_back(buffer));
        }
    }
}
