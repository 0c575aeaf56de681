//! A disk in memory: for images that came with the service domain's ramdisk, and for tests.
//!
//! It can have a volatile cache, as real disks do: then a write is durable only after the next flush, and
//! [`MemoryDisk::lose_power`] takes everything else away.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use pv_bus::block::SECTOR_BYTES;

use super::device::{BlockDevice, DeviceCompletion, DeviceError, DeviceOperation, DiscardSupport, Geometry, Tag};

/// The most that one operation moves.
const MAX_TRANSFER_BYTES: usize = 1 << 20;

/// A disk in memory.
pub struct MemoryDisk {
    medium: Vec<u8>,
    /// Sectors that were written and not flushed. Unused without a volatile cache.
    cache: BTreeMap<usize, [u8; SECTOR_BYTES]>,
    volatile: bool,
    read_only: bool,
    finished: VecDeque<DeviceCompletion<Vec<u8>>>,
}

impl MemoryDisk {
    /// A disk with this content, cut to whole sectors. What it answers is durable.
    #[must_use]
    pub fn new(mut content: Vec<u8>) -> Self {
        content.truncate(content.len() / SECTOR_BYTES * SECTOR_BYTES);
        Self { medium: content, cache: BTreeMap::new(), volatile: false, read_only: false, finished: VecDeque::new() }
    }

    /// The same disk, but it can only be read.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// The same disk with a volatile cache.
    #[must_use]
    pub fn with_volatile_cache(self) -> Self {
        Self { volatile: true, ..self }
    }

    /// What is on the medium, whatever is in the cache.
    #[must_use]
    pub fn medium(&self) -> &[u8] {
        &self.medium
    }

    /// Forgets what was not flushed.
    pub fn lose_power(&mut self) {
        self.cache.clear();
        self.finished.clear();
    }

    fn sector(&self, number: usize) -> Option<&[u8]> {
        match self.cache.get(&number) {
            Some(sector) => Some(sector),
            None => self.medium.get(number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES),
        }
    }

    fn put_sector(&mut self, number: usize, data: &[u8; SECTOR_BYTES]) -> Result<(), DeviceError> {
        let place = self.medium.get_mut(number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES);
        let place = place.ok_or(DeviceError::Failed)?;
        if self.volatile {
            self.cache.insert(number, *data);
        } else {
            place.copy_from_slice(data);
        }
        Ok(())
    }

    fn read(&self, first: usize, into: &mut [u8]) -> Result<(), DeviceError> {
        for (number, chunk) in into.chunks_mut(SECTOR_BYTES).enumerate() {
            let sector = self.sector(first + number).ok_or(DeviceError::Failed)?;
            chunk.copy_from_slice(&sector[..chunk.len()]);
        }
        Ok(())
    }

    fn write(&mut self, first: usize, data: &[u8]) -> Result<(), DeviceError> {
        let (sectors, _) = data.as_chunks::<SECTOR_BYTES>();
        sectors.iter().enumerate().try_for_each(|(number, sector)| self.put_sector(first + number, sector))
    }

    fn flush(&mut self) {
        for (number, sector) in core::mem::take(&mut self.cache) {
            self.medium[number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES].copy_from_slice(&sector);
        }
    }

    fn discard(&mut self, first: usize, sectors: u64) -> Result<(), DeviceError> {
        let sectors = usize::try_from(sectors).map_err(|_| DeviceError::Failed)?;
        (first..first + sectors).try_for_each(|number| self.put_sector(number, &[0; SECTOR_BYTES]))
    }

    fn run(&mut self, operation: DeviceOperation<Vec<u8>>) -> (Result<(), DeviceError>, Option<Vec<u8>>) {
        match operation {
            DeviceOperation::Read { sector, mut buffer } => (self.read(index(sector), &mut buffer), Some(buffer)),
            DeviceOperation::Write { sector, buffer } => (self.write(index(sector), &buffer), Some(buffer)),
            DeviceOperation::Flush => {
                self.flush();
                (Ok(()), None)
            }
            DeviceOperation::Discard { sector, sectors, .. } => (self.discard(index(sector), sectors), None),
        }
    }
}

/// A sector number as an index; one that does not fit is on no disk in memory.
fn index(sector: u64) -> usize {
    usize::try_from(sector).unwrap_or(usize::MAX / SECTOR_BYTES / 2)
}

impl BlockDevice for MemoryDisk {
    type Buffer = Vec<u8>;

    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: (self.medium.len() / SECTOR_BYTES) as u64,
            sector_size_bytes: 512,
            physical_sector_size_bytes: 512,
            read_only: self.read_only,
            cdrom: false,
            can_flush: true,
            discard: (!self.read_only).then_some(DiscardSupport {
                granularity_bytes: 512,
                alignment_bytes: 0,
                secure: false,
            }),
            max_transfer_bytes: MAX_TRANSFER_BYTES,
        }
    }

    fn take_buffer(&mut self, len_bytes: usize) -> Option<Vec<u8>> {
        (len_bytes <= MAX_TRANSFER_BYTES).then(|| vec![0; len_bytes])
    }

    fn give_back(&mut self, _buffer: Vec<u8>) {}

    fn can_submit(&self) -> bool {
        true
    }

    fn submit(&mut self, tag: Tag, operation: DeviceOperation<Vec<u8>>) {
        let (result, buffer) = self.run(operation);
        self.finished.push_back(DeviceCompletion { tag, result, buffer });
    }

    fn next_completion(&mut self) -> Option<DeviceCompletion<Vec<u8>>> {
        self.finished.pop_front()
    }
}
