//! A virtio network card, driven without waiting.
//!
//! Each frame lies in half a page behind the card's header. While much arrives the card is not asked for interrupts but
//! looked at now and then ([`VirtioCard::next_look_ns`]): what came together is handled together.
//!
//! Source: Virtual I/O Device 1.2, §5.1.

use bitflags::bitflags;
use virtio_drivers::Error;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::buffers::{Buffers, Outgoing};
use super::virtqueue::Writer;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Buffers of each queue, and what one holds: a header and a frame.
const SIZE: (u16, usize) = (256, 2048);
const HEADER_BYTES: usize = 12;

/// Frames that are longer do not fit an Ethernet without extensions.
const FRAME_MAX: usize = 1518;

/// Frames that come closer together than this are looked for by the clock, this long after each other.
const CLOSE_NS: u64 = 400_000;
const PAUSE_NS: u64 = 150_000;

bitflags! {
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        const MAC = 1 << 5;
        const EVENT_INDEX = 1 << 29;
        const VERSION_1 = 1 << 32;
    }
}

/// A virtio network card.
pub(crate) struct VirtioCard {
    transport: PciTransport,
    receive: Buffers,
    transmit: Outgoing,
    /// When it is looked at again without an interrupt.
    next_look_ns: Option<u64>,
    /// When a frame was taken last.
    taken_ns: u64,
}

impl VirtioCard {
    /// Starts a card and gives it all its buffers to receive into.
    ///
    /// # Errors
    /// The device or this domain's memory does not allow it.
    pub(crate) fn new(mut transport: PciTransport) -> Result<Self, Error> {
        let features = transport.begin_init(Features::all());
        let events = features.contains(Features::EVENT_INDEX);
        let mut receive = Buffers::new(&mut transport, RECEIVE, SIZE, Writer::Device, events)?;
        let transmit = Outgoing::new(&mut transport, TRANSMIT, SIZE, events)?;
        transport.finish_init();
        receive.lend_all();
        receive.queue.notify(&mut transport);
        Ok(Self { transport, receive, transmit, next_look_ns: None, taken_ns: 0 })
    }

    /// Whether the card has received something that was not taken yet, and is not going to be looked at by the clock.
    pub(crate) fn has_finished(&self) -> bool {
        self.next_look_ns.is_none() && self.receive.queue.has_used()
    }

    /// Takes the device's interrupt back.
    pub(crate) fn acknowledge(&mut self) {
        let _ = self.transport.ack_interrupt();
    }

    /// When the card is to be looked at without an interrupt.
    pub(crate) fn next_look_ns(&self) -> Option<u64> {
        self.next_look_ns
    }

    /// Shows each of the next frames that have arrived, at most `most`, and says whether there are more. Where there are
    /// none, the card interrupts when there are.
    pub(crate) fn take(&mut self, most: usize, now_ns: u64, mut show: impl FnMut(&[u8])) -> bool {
        if self.next_look_ns.is_some_and(|at| now_ns < at) {
            return false;
        }
        self.next_look_ns = None;
        let mut taken = 0;
        while taken < most {
            let Some((slot, len)) = self.receive.take_back() else { break };
            show(&self.receive.bytes(slot, len.max(HEADER_BYTES))[HEADER_BYTES..]);
            self.receive.lend_again(slot);
            taken += 1;
        }
        self.receive.queue.notify(&mut self.transport);
        if taken == most {
            return true;
        }
        let close = now_ns.saturating_sub(self.taken_ns) < CLOSE_NS;
        if taken > 1 || taken == 1 && close {
            self.receive.queue.ignore();
            self.next_look_ns = Some(now_ns + PAUSE_NS);
        }
        if taken > 0 {
            self.taken_ns = now_ns;
        }
        self.next_look_ns.is_none() && self.receive.queue.listen()
    }

    /// Whether there is room to send a frame.
    pub(crate) fn can_send(&mut self) -> bool {
        self.transmit.has_room()
    }

    /// Sends a frame with the next [`commit`](Self::commit); one that is too long is dropped. Call only after
    /// [`can_send`](Self::can_send).
    pub(crate) fn send(&mut self, frame: &[u8]) {
        if frame.len() > FRAME_MAX {
            return;
        }
        self.transmit.send(HEADER_BYTES + frame.len(), |memory| {
            memory[..HEADER_BYTES].fill(0);
            memory[HEADER_BYTES..].copy_from_slice(frame);
        });
    }

    /// Tells the card about frames to send.
    pub(crate) fn commit(&mut self) {
        self.transmit.notify(&mut self.transport);
    }
}
