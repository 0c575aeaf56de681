//! A virtio network card, driven without waiting.
//!
//! Each frame lies in half a page behind the card's header; a queue's slots and its buffers have the same numbers.
//!
//! Source: Virtual I/O Device 1.2, §5.1.
#![expect(unsafe_code, reason = "the device reads and writes memory that was lent to it")]

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bitflags::bitflags;
use virtio_drivers::Error;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::dma::{DmaHal, DmaRegion};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUE_LEN: usize = 128;
const BUFFER_BYTES: usize = 2048;
const BUFFER_PAGES: usize = QUEUE_LEN * BUFFER_BYTES / 4096;
const HEADER_BYTES: usize = 12;

/// Frames that are longer do not fit an Ethernet without extensions.
const FRAME_MAX: usize = 1518;

bitflags! {
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        const MAC = 1 << 5;
        const EVENT_INDEX = 1 << 29;
        const VERSION_1 = 1 << 32;
    }
}

type Queue = VirtQueue<DmaHal, QUEUE_LEN>;

/// A virtio network card.
pub(crate) struct VirtioCard {
    transport: PciTransport,
    receive: Queue,
    transmit: Queue,
    receive_memory: DmaRegion,
    transmit_memory: DmaRegion,
    /// Which buffer a token of the queue stands for.
    receiving: BTreeMap<u16, usize>,
    transmitting: BTreeMap<u16, usize>,
    free: Vec<usize>,
}

fn buffer(memory: &mut DmaRegion, slot: usize, len: usize) -> &mut [u8] {
    &mut memory.bytes_mut()[slot * BUFFER_BYTES..][..len]
}

impl VirtioCard {
    /// Starts a card and gives it all its buffers to receive into.
    ///
    /// # Errors
    /// The device or this domain's memory does not allow it.
    pub(crate) fn new(mut transport: PciTransport) -> Result<Self, Error> {
        let features = transport.begin_init(Features::all());
        let events = features.contains(Features::EVENT_INDEX);
        let receive = Queue::new(&mut transport, RECEIVE, false, events)?;
        let transmit = Queue::new(&mut transport, TRANSMIT, false, events)?;
        let memory = || DmaRegion::new(BUFFER_PAGES).ok_or(Error::DmaError);
        let mut card = Self {
            receive,
            transmit,
            receive_memory: memory()?,
            transmit_memory: memory()?,
            receiving: BTreeMap::new(),
            transmitting: BTreeMap::new(),
            free: (0..QUEUE_LEN).rev().collect(),
            transport,
        };
        card.transport.finish_init();
        for slot in 0..QUEUE_LEN {
            card.lend(slot)?;
        }
        card.commit();
        Ok(card)
    }

    /// Whether the card has received something that was not taken yet.
    pub(crate) fn has_finished(&self) -> bool {
        self.receive.can_pop()
    }

    /// Takes the device's interrupt back.
    pub(crate) fn acknowledge(&mut self) {
        let _ = self.transport.ack_interrupt();
    }

    /// Takes the next frame that has arrived.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let token = self.receive.peek_used()?;
        let slot = self.receiving.remove(&token)?;
        let memory = buffer(&mut self.receive_memory, slot, BUFFER_BYTES);
        // SAFETY: the same memory that was added with this token.
        let popped = unsafe { self.receive.pop_used(token, &[], &mut [memory]) };
        let len = popped.map_or(0, |len| len as usize).clamp(HEADER_BYTES, BUFFER_BYTES);
        let frame = buffer(&mut self.receive_memory, slot, len)[HEADER_BYTES..].to_vec();
        if let Err(error) = self.lend(slot) {
            log::warn!("network card: a buffer is lost: {error}");
        }
        Some(frame)
    }

    /// Whether there is room to send a frame.
    pub(crate) fn can_send(&mut self) -> bool {
        self.collect();
        !self.free.is_empty()
    }

    /// Sends a frame; one that is too long is dropped. Call only after [`can_send`](Self::can_send).
    pub(crate) fn send(&mut self, frame: &[u8]) {
        if frame.len() > FRAME_MAX {
            return;
        }
        let Some(slot) = self.free.pop() else { return };
        let memory = buffer(&mut self.transmit_memory, slot, HEADER_BYTES + frame.len());
        memory[..HEADER_BYTES].fill(0);
        memory[HEADER_BYTES..].copy_from_slice(frame);
        // SAFETY: the slot is this frame's until its token is popped.
        match unsafe { self.transmit.add(&[memory], &mut []) } {
            Ok(token) => drop(self.transmitting.insert(token, slot)),
            Err(_) => self.free.push(slot),
        }
    }

    /// Tells the card about frames to send and buffers to fill.
    pub(crate) fn commit(&mut self) {
        if self.transmit.should_notify() {
            self.transport.notify(TRANSMIT);
        }
        if self.receive.should_notify() {
            self.transport.notify(RECEIVE);
        }
    }

    fn lend(&mut self, slot: usize) -> Result<(), Error> {
        let memory = buffer(&mut self.receive_memory, slot, BUFFER_BYTES);
        // SAFETY: the slot is the card's until its token is popped.
        let token = unsafe { self.receive.add(&[], &mut [memory]) }?;
        self.receiving.insert(token, slot);
        Ok(())
    }

    /// Takes back the buffers of frames that were sent.
    fn collect(&mut self) {
        while let Some(token) = self.transmit.peek_used() {
            let Some(slot) = self.transmitting.remove(&token) else {
                return;
            };
            // The length does not matter to the queue, only where the buffer begins.
            let memory = buffer(&mut self.transmit_memory, slot, BUFFER_BYTES);
            // SAFETY: the same memory that was added with this token.
            let _ = unsafe { self.transmit.pop_used(token, &[memory], &mut []) };
            self.free.push(slot);
        }
    }
}
