//! A queue of a virtio device, in its split form.
//!
//! A *chain* of descriptors names memory; the driver makes chains *available*, the device gives them back *used*. Who
//! owns a queue decides what its descriptors name and keeps the memory while the device has it.
//!
//! Invariants:
//! - What this side has published is kept here too and never read back; what the device says is read once and bounded.
//! - A notification that the other side asked for is not lost: the indices wrap around, and so does the comparison.
//! - The device is told of chains by [`VirtQueue::notify`] alone, so that many of them cost one notification.
//!
//! Source: Virtual I/O Device 1.2, §2.7.

use core::sync::atomic::{AtomicU16, Ordering, fence};

use dom0::virtio::is_passed;
use virtio_drivers::Error;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::dma::DmaRegion;

/// Halfwords of a descriptor.
const DESCRIPTOR: usize = 8;
/// A descriptor's flags: another one follows; the device writes.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Flags of both rings: do not tell me.
const QUIET: u16 = 1;

/// Who writes the memory of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writer {
    /// The device only reads it.
    Driver,
    /// The device writes it.
    Device,
}

/// A queue of a virtio device.
pub(crate) struct VirtQueue {
    memory: DmaRegion,
    number: u16,
    size: u16,
    /// Where the rings are, in halfwords.
    available_at: usize,
    used_at: usize,
    /// Each side names the index that it wants to be told of, not only whether.
    events: bool,
    /// Chains made available, and how many of them the device was shown.
    available: u16,
    shown: u16,
    /// Used chains that were taken.
    taken: u16,
}

impl VirtQueue {
    /// Starts a queue of at most `most` descriptors, a power of two.
    ///
    /// # Errors
    /// The device has no such queue, or this domain no memory for it.
    pub(crate) fn new(transport: &mut PciTransport, number: u16, most: u16, events: bool) -> Result<Self, Error> {
        if transport.queue_used(number) {
            return Err(Error::AlreadyUsed);
        }
        let offered = transport.max_queue_size(number).min(u32::from(most)) as u16;
        let size = if offered.is_power_of_two() { offered } else { offered.next_power_of_two() / 2 };
        if size == 0 {
            return Err(Error::InvalidParam);
        }
        let entries = usize::from(size);
        let available_at = entries * DESCRIPTOR;
        // Flags, index, ring, event; the used ring is aligned to four bytes.
        let used_at = (available_at + entries + 3).next_multiple_of(2);
        let halves = used_at + 4 * entries + 3;
        let memory = DmaRegion::new((2 * halves).div_ceil(4096)).ok_or(Error::DmaError)?;
        let start = memory.machine_address();
        let at = |half: usize| start + 2 * half as u64;
        transport.queue_set(number, size.into(), start, at(available_at), at(used_at));
        Ok(Self { memory, number, size, available_at, used_at, events, available: 0, shown: 0, taken: 0 })
    }

    /// Descriptors that there are.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Says what a descriptor names, and which one comes after it in its chain. It is part of no chain that the device has.
    pub(crate) fn describe(&self, descriptor: u16, address: u64, len_bytes: u32, writer: Writer, next: Option<u16>) {
        let at = usize::from(descriptor % self.size) * DESCRIPTOR;
        for part in 0..4 {
            self.put(at + part, (address >> (16 * part)) as u16);
        }
        self.put(at + 4, len_bytes as u16);
        self.put(at + 5, (len_bytes >> 16) as u16);
        let write = if writer == Writer::Device { WRITE } else { 0 };
        self.put(at + 6, write | if next.is_some() { NEXT } else { 0 });
        self.put(at + 7, next.unwrap_or(0));
    }

    /// Makes the chain that begins with this descriptor available; the device sees it after [`notify`](Self::notify).
    pub(crate) fn offer(&mut self, head: u16) {
        self.put(self.available_at + 2 + usize::from(self.available % self.size), head);
        self.available = self.available.wrapping_add(1);
    }

    /// Shows the device what was made available, and tells it where it wants to be told.
    pub(crate) fn notify(&mut self, transport: &mut PciTransport) {
        let before = self.shown;
        if before == self.available {
            return;
        }
        self.shown = self.available;
        self.half(self.available_at + 1).store(self.available, Ordering::Release);
        // The index is out before the device's wish is read, as the device does it the other way round.
        fence(Ordering::SeqCst);
        let wanted = if self.events {
            let event = self.half(self.used_at + 2 + 4 * usize::from(self.size)).load(Ordering::Relaxed);
            is_passed(event, before, self.available)
        } else {
            self.half(self.used_at).load(Ordering::Relaxed) & QUIET == 0
        };
        if wanted {
            transport.notify(self.number);
        }
    }

    /// Whether the device has used something that was not taken yet.
    pub(crate) fn has_used(&self) -> bool {
        self.half(self.used_at + 1).load(Ordering::Acquire) != self.taken
    }

    /// The next chain that the device has used: its head, below [`size`](Self::size), and how much the device wrote.
    pub(crate) fn next_used(&mut self) -> Option<(u16, usize)> {
        if !self.has_used() {
            return None;
        }
        let at = self.used_at + 2 + 4 * usize::from(self.taken % self.size);
        self.taken = self.taken.wrapping_add(1);
        let get = |part: usize| self.half(at + part).load(Ordering::Relaxed);
        Some((get(0) % self.size, usize::from(get(2)) | usize::from(get(3)) << 16))
    }

    /// Asks for an interrupt when the device uses the next chain. True when it has used one already.
    pub(crate) fn listen(&mut self) -> bool {
        self.listen_after(0)
    }

    /// Asks for an interrupt when the device uses one more than so many chains. True when it has done so already.
    pub(crate) fn listen_after(&mut self, chains: u16) -> bool {
        self.wish(self.taken.wrapping_add(chains), 0);
        // The wish is out before the device's index is read.
        fence(Ordering::SeqCst);
        self.half(self.used_at + 1).load(Ordering::Acquire).wrapping_sub(self.taken) > chains
    }

    /// Asks for no interrupts.
    pub(crate) fn ignore(&mut self) {
        self.wish(self.taken.wrapping_sub(1), QUIET);
    }

    fn wish(&self, event: u16, flags: u16) {
        if self.events {
            self.put(self.available_at + 2 + usize::from(self.size), event);
        } else {
            self.put(self.available_at, flags);
        }
    }

    fn half(&self, at: usize) -> &AtomicU16 {
        &self.memory.halves()[at]
    }

    fn put(&self, at: usize, value: u16) {
        self.half(at).store(value, Ordering::Relaxed);
    }
}
