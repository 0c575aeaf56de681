//! A virtio queue whose every descriptor has a buffer of its own, for devices that take and bring bytes in a row.
//!
//! A buffer is known by its *slot*, which is its descriptor's number too.
//!
//! Invariant: bytes are only reached while their slot is here, not with the device; what the device gives back that it does
//! not have is passed over.

use alloc::vec::Vec;

use virtio_drivers::Error;
use virtio_drivers::transport::pci::PciTransport;

use super::dma::DmaRegion;
use super::virtqueue::{VirtQueue, Writer};

/// A queue with its buffers.
pub(crate) struct Buffers {
    pub(crate) queue: VirtQueue,
    memory: DmaRegion,
    buffer_bytes: usize,
    writer: Writer,
    /// By slot: the device has it.
    lent: Vec<bool>,
}

impl Buffers {
    /// Starts a queue of at most `most` buffers of this size, which the device fills or reads.
    ///
    /// # Errors
    /// The device or this domain's memory does not allow it.
    pub(crate) fn new(
        transport: &mut PciTransport,
        number: u16,
        (most, buffer_bytes): (u16, usize),
        writer: Writer,
        events: bool,
    ) -> Result<Self, Error> {
        let queue = VirtQueue::new(transport, number, most, events)?;
        let slots = usize::from(queue.size());
        let memory = DmaRegion::new((slots * buffer_bytes).div_ceil(4096)).ok_or(Error::DmaError)?;
        Ok(Self { queue, memory, buffer_bytes, writer, lent: alloc::vec![false; slots] })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lent.len()
    }

    /// The first bytes of a buffer that is here.
    pub(crate) fn bytes(&self, slot: usize, len: usize) -> &[u8] {
        &self.memory.bytes()[slot * self.buffer_bytes..][..len]
    }

    /// The same, to fill them.
    pub(crate) fn bytes_mut(&mut self, slot: usize, len: usize) -> &mut [u8] {
        &mut self.memory.bytes_mut()[slot * self.buffer_bytes..][..len]
    }

    /// Gives the device the first bytes of a buffer, from the next [`VirtQueue::notify`] on.
    pub(crate) fn lend(&mut self, slot: usize, len: usize) {
        let address = self.memory.machine_address() + (slot * self.buffer_bytes) as u64;
        self.queue.describe(slot as u16, address, len.min(self.buffer_bytes) as u32, self.writer, None);
        self.lent[slot] = true;
        self.queue.offer(slot as u16);
    }

    /// Gives the device every buffer whole.
    pub(crate) fn lend_all(&mut self) {
        (0..self.count()).for_each(|slot| self.lend(slot, self.buffer_bytes));
    }

    /// The next buffer that the device gives back, and how many bytes it wrote.
    pub(crate) fn take_back(&mut self) -> Option<(usize, usize)> {
        while let Some((slot, len)) = self.queue.next_used() {
            if core::mem::replace(&mut self.lent[usize::from(slot)], false) {
                return Some((usize::from(slot), len.min(self.buffer_bytes)));
            }
            log::warn!("a virtio device gives a buffer back that it does not have");
        }
        None
    }

    /// Gives a buffer that [`take_back`](Self::take_back) gave to the device again, whole.
    pub(crate) fn lend_again(&mut self, slot: usize) {
        self.lend(slot, self.buffer_bytes);
    }
}

/// A queue that bytes are sent by.
pub(crate) struct Outgoing {
    buffers: Buffers,
    free: Vec<usize>,
}

impl Outgoing {
    /// Starts a queue of at most `most` buffers of this size.
    ///
    /// # Errors
    /// The device or this domain's memory does not allow it.
    pub(crate) fn new(
        transport: &mut PciTransport,
        number: u16,
        size: (u16, usize),
        events: bool,
    ) -> Result<Self, Error> {
        let mut buffers = Buffers::new(transport, number, size, Writer::Driver, events)?;
        buffers.queue.ignore();
        let free = (0..buffers.count()).rev().collect();
        Ok(Self { buffers, free })
    }

    /// Whether a buffer is free. If none is, the device interrupts when half of them are again.
    pub(crate) fn has_room(&mut self) -> bool {
        if !self.free.is_empty() {
            return true;
        }
        self.collect();
        let half = self.buffers.queue.size() / 2;
        if self.free.is_empty() && self.buffers.queue.listen_after(half) {
            self.collect();
        }
        if !self.free.is_empty() {
            self.buffers.queue.ignore();
        }
        !self.free.is_empty()
    }

    /// Whether the device has not taken all that was sent.
    pub(crate) fn is_busy(&mut self) -> bool {
        self.collect();
        self.free.len() < self.buffers.count()
    }

    /// Has a free buffer's first bytes filled and sends them with the next [`notify`](Self::notify); false when none is free.
    pub(crate) fn send(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let Some(slot) = self.free.pop() else { return false };
        fill(self.buffers.bytes_mut(slot, len));
        self.buffers.lend(slot, len);
        true
    }

    /// Tells the device what to send.
    pub(crate) fn notify(&mut self, transport: &mut PciTransport) {
        self.buffers.queue.notify(transport);
    }

    fn collect(&mut self) {
        while let Some((slot, _)) = self.buffers.take_back() {
            self.free.push(slot);
        }
    }
}
