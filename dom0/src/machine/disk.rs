//! A virtio disk, driven without waiting.
//!
//! Each request takes a slot of a page for its header and its status, and a buffer of the pool for its data; both are
//! in a row in machine memory, so a request is two or three descriptors, which are its slot's own.
//!
//! Source: Virtual I/O Device 1.2, §5.2.

use alloc::vec::Vec;

use backends::block::{BlockDevice, DeviceCompletion, DeviceError, DeviceOperation, Geometry, Tag};
use bitflags::bitflags;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::dma::DmaRegion;
use super::virtqueue::{VirtQueue, Writer};

const QUEUE: u16 = 0;
const QUEUE_LEN: u16 = 128;
/// Descriptors of a request at most: header, data, status.
const CHAIN: u16 = 3;
/// Requests in flight at most, as many as a page has room for.
const MOST_SLOTS: u16 = 64;
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
    kind: Kind,
}

/// A virtio disk.
pub(crate) struct VirtioDisk {
    transport: PciTransport,
    queue: VirtQueue,
    geometry: Geometry,
    headers: DmaRegion,
    free_slots: Vec<u16>,
    free_buffers: Vec<DmaRegion>,
    buffers_made: usize,
    /// By slot.
    flying: Vec<Option<Flying>>,
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
        let events = features.contains(Features::EVENT_INDEX);
        let queue = VirtQueue::new(&mut transport, QUEUE, QUEUE_LEN, events)?;
        let slots = (queue.size() / CHAIN).min(MOST_SLOTS);
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
            free_slots: (0..slots).rev().collect(),
            free_buffers: Vec::new(),
            buffers_made: 0,
            flying: (0..slots).map(|_| None).collect(),
            owner: 0,
        })
    }

    /// The disk has a new owner, who will hear only of its own requests.
    pub(crate) fn hand_over(&mut self) {
        self.owner += 1;
    }

    /// Whether the device has finished something that was not taken yet.
    pub(crate) fn has_finished(&self) -> bool {
        self.queue.has_used()
    }

    /// Takes the device's interrupt back.
    pub(crate) fn acknowledge(&mut self) {
        let _ = self.transport.ack_interrupt();
    }

    /// The bytes of a slot.
    fn slot(&mut self, slot: u16) -> &mut [u8] {
        &mut self.headers.bytes_mut()[usize::from(slot) * SLOT_BYTES..][..SLOT_BYTES]
    }

    fn write_header(&mut self, slot: u16, kind: u32, sector: u64) {
        let bytes = self.slot(slot);
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].fill(0);
        bytes[8..16].copy_from_slice(&sector.to_le_bytes());
        bytes[STATUS_AT] = STATUS_PENDING;
    }

    /// Describes a request to the device and makes it available.
    fn offer(&mut self, slot: u16, kind: &Kind) {
        let start = self.headers.machine_address() + u64::from(slot) * SLOT_BYTES as u64;
        let [header, data, status] = [0, 1, 2].map(|part| slot * CHAIN + part);
        let data_part = match kind {
            Kind::Read(buffer) => Some((buffer, Writer::Device)),
            Kind::Write(buffer) => Some((buffer, Writer::Driver)),
            Kind::Flush => None,
        };
        let after = if data_part.is_some() { data } else { status };
        self.queue.describe(header, start, HEADER_BYTES as u32, Writer::Driver, Some(after));
        if let Some((buffer, writer)) = data_part {
            self.queue.describe(data, buffer.region.machine_address(), buffer.len as u32, writer, Some(status));
        }
        self.queue.describe(status, start + STATUS_AT as u64, 1, Writer::Device, None);
        self.queue.offer(header);
    }

    /// The next request that the device has finished, and who made it. Where there is none, the device interrupts when
    /// there is one again.
    fn pop(&mut self) -> Option<(u64, DeviceCompletion<DiskBuffer>)> {
        loop {
            let Some((head, _)) = self.queue.next_used() else {
                if self.queue.listen() {
                    continue;
                }
                return None;
            };
            let slot = head / CHAIN;
            let Some(flying) = self.flying.get_mut(usize::from(slot)).and_then(Option::take) else {
                log::warn!("a virtio disk finishes a request that it does not have");
                continue;
            };
            let result = match self.slot(slot)[STATUS_AT] {
                STATUS_OK => Ok(()),
                STATUS_UNSUPPORTED => Err(DeviceError::NotSupported),
                _ => Err(DeviceError::Failed),
            };
            self.free_slots.push(slot);
            let buffer = match flying.kind {
                Kind::Read(buffer) | Kind::Write(buffer) => Some(buffer),
                Kind::Flush => None,
            };
            return Some((flying.owner, DeviceCompletion { tag: flying.tag, result, buffer }));
        }
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
        !self.free_slots.is_empty()
    }

    fn submit(&mut self, tag: Tag, operation: DeviceOperation<DiskBuffer>) {
        let (number, sector, kind) = match operation {
            DeviceOperation::Read { sector, buffer } => (IN, sector, Kind::Read(buffer)),
            DeviceOperation::Write { sector, buffer } => (OUT, sector, Kind::Write(buffer)),
            DeviceOperation::Flush | DeviceOperation::Discard { .. } => (FLUSH, 0, Kind::Flush),
        };
        let slot = self.free_slots.pop().expect("can_submit said so");
        self.write_header(slot, number, sector);
        self.offer(slot, &kind);
        self.flying[usize::from(slot)] = Some(Flying { tag, owner: self.owner, kind });
    }

    fn commit(&mut self) {
        self.queue.notify(&mut self.transport);
    }

    fn is_quiet(&self) -> bool {
        self.flying.iter().flatten().all(|flying| flying.owner == self.owner)
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
