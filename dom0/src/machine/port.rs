//! A virtio serial port, driven without waiting: the line of the control channel.
//!
//! Only the device's first port is used, which needs no negotiation. What the host does not take waits here.
//!
//! Source: Virtual I/O Device 1.2, §5.3.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bitflags::bitflags;
use virtio_drivers::Error;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::buffers::{Buffers, Outgoing};
use super::virtqueue::Writer;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const BUFFER_BYTES: usize = 4096;
/// Buffers of each queue.
const SIZE: (u16, usize) = (16, BUFFER_BYTES);

bitflags! {
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        const EVENT_INDEX = 1 << 29;
        const VERSION_1 = 1 << 32;
    }
}

/// A virtio serial port.
pub(crate) struct VirtioPort {
    transport: PciTransport,
    receive: Buffers,
    transmit: Outgoing,
    waiting: VecDeque<u8>,
}

impl VirtioPort {
    /// Starts a port and gives it all its buffers to receive into.
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
        Ok(Self { transport, receive, transmit, waiting: VecDeque::new() })
    }

    /// Whether the port has received something that was not taken yet.
    pub(crate) fn has_finished(&self) -> bool {
        self.receive.queue.has_used()
    }

    /// Takes the device's interrupt back.
    pub(crate) fn acknowledge(&mut self) {
        let _ = self.transport.ack_interrupt();
    }

    /// Takes what has arrived.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut taken = Vec::new();
        loop {
            while let Some((slot, len)) = self.receive.take_back() {
                taken.extend_from_slice(self.receive.bytes(slot, len));
                self.receive.lend_again(slot);
            }
            if !self.receive.queue.listen() {
                break;
            }
        }
        self.receive.queue.notify(&mut self.transport);
        taken
    }

    /// Bytes that wait for the host.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the host has not taken all that was sent.
    pub(crate) fn is_sending(&mut self) -> bool {
        self.flush();
        !self.waiting.is_empty() || self.transmit.is_busy()
    }

    /// Sends bytes, or keeps them until the host takes what came before.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        self.flush();
    }

    /// Gives the host what it has room for.
    pub(crate) fn flush(&mut self) {
        while !self.waiting.is_empty() && self.transmit.has_room() {
            let len = self.waiting.len().min(BUFFER_BYTES);
            let waiting = &mut self.waiting;
            let fill =
                |memory: &mut [u8]| memory.iter_mut().zip(waiting.drain(..len)).for_each(|(to, from)| *to = from);
            if !self.transmit.send(len, fill) {
                break;
            }
        }
        self.transmit.notify(&mut self.transport);
    }
}
