//! A virtio serial port, driven without waiting: the line of the control channel.
//!
//! Only the device's first port is used, which needs no negotiation. What the host does not take waits here.
//!
//! Source: Virtual I/O Device 1.2, §5.3.
#![expect(unsafe_code, reason = "the device reads and writes memory that was lent to it")]

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bitflags::bitflags;
use virtio_drivers::Error;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;

use super::dma::{DmaHal, DmaRegion};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUE_LEN: usize = 16;
const BUFFER_BYTES: usize = 4096;

bitflags! {
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        const EVENT_INDEX = 1 << 29;
        const VERSION_1 = 1 << 32;
    }
}

type Queue = VirtQueue<DmaHal, QUEUE_LEN>;

/// A virtio serial port.
pub(crate) struct VirtioPort {
    transport: PciTransport,
    receive: Queue,
    transmit: Queue,
    receive_memory: DmaRegion,
    transmit_memory: DmaRegion,
    /// Which buffer a token of the queue stands for.
    receiving: BTreeMap<u16, usize>,
    transmitting: BTreeMap<u16, (usize, usize)>,
    free: Vec<usize>,
    waiting: VecDeque<u8>,
}

fn buffer(memory: &mut DmaRegion, slot: usize, len: usize) -> &mut [u8] {
    &mut memory.bytes_mut()[slot * BUFFER_BYTES..][..len]
}

impl VirtioPort {
    /// Starts a port and gives it all its buffers to receive into.
    ///
    /// # Errors
    /// The device or this domain's memory does not allow it.
    pub(crate) fn new(mut transport: PciTransport) -> Result<Self, Error> {
        let features = transport.begin_init(Features::all());
        let events = features.contains(Features::EVENT_INDEX);
        let receive = Queue::new(&mut transport, RECEIVE, false, events)?;
        let transmit = Queue::new(&mut transport, TRANSMIT, false, events)?;
        let memory = || DmaRegion::new(QUEUE_LEN * BUFFER_BYTES / 4096).ok_or(Error::DmaError);
        let mut port = Self {
            receive,
            transmit,
            receive_memory: memory()?,
            transmit_memory: memory()?,
            receiving: BTreeMap::new(),
            transmitting: BTreeMap::new(),
            free: (0..QUEUE_LEN).rev().collect(),
            waiting: VecDeque::new(),
            transport,
        };
        port.transport.finish_init();
        for slot in 0..QUEUE_LEN {
            port.lend(slot)?;
        }
        if port.receive.should_notify() {
            port.transport.notify(RECEIVE);
        }
        Ok(port)
    }

    /// Whether the port has received something that was not taken yet.
    pub(crate) fn has_finished(&self) -> bool {
        self.receive.can_pop()
    }

    /// Takes the device's interrupt back.
    pub(crate) fn acknowledge(&mut self) {
        let _ = self.transport.ack_interrupt();
    }

    /// Takes what has arrived.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut taken = Vec::new();
        while let Some(token) = self.receive.peek_used() {
            let Some(slot) = self.receiving.remove(&token) else {
                break;
            };
            let memory = buffer(&mut self.receive_memory, slot, BUFFER_BYTES);
            // SAFETY: the same memory that was added with this token.
            let popped = unsafe { self.receive.pop_used(token, &[], &mut [memory]) };
            let len = popped.map_or(0, |len| len as usize).min(BUFFER_BYTES);
            taken.extend_from_slice(buffer(&mut self.receive_memory, slot, len));
            if let Err(error) = self.lend(slot) {
                log::warn!("control channel: a buffer is lost: {error}");
            }
        }
        if !taken.is_empty() && self.receive.should_notify() {
            self.transport.notify(RECEIVE);
        }
        taken
    }

    /// Bytes that wait for the host.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the host has not taken all that was sent.
    pub(crate) fn is_sending(&mut self) -> bool {
        self.flush();
        !self.waiting.is_empty() || !self.transmitting.is_empty()
    }

    /// Sends bytes, or keeps them until the host takes what came before.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        self.flush();
    }

    /// Gives the host what it has room for.
    pub(crate) fn flush(&mut self) {
        self.collect();
        let mut any = false;
        while !self.waiting.is_empty() {
            let Some(slot) = self.free.pop() else { break };
            let len = self.waiting.len().min(BUFFER_BYTES);
            let memory = buffer(&mut self.transmit_memory, slot, len);
            memory.iter_mut().zip(self.waiting.drain(..len)).for_each(|(to, from)| *to = from);
            // SAFETY: the slot is this message's until its token is popped.
            match unsafe { self.transmit.add(&[memory], &mut []) } {
                Ok(token) => drop(self.transmitting.insert(token, (slot, len))),
                Err(error) => {
                    log::warn!("control channel: output is lost: {error}");
                    self.free.push(slot);
                }
            }
            any = true;
        }
        if any && self.transmit.should_notify() {
            self.transport.notify(TRANSMIT);
        }
    }

    fn lend(&mut self, slot: usize) -> Result<(), Error> {
        let memory = buffer(&mut self.receive_memory, slot, BUFFER_BYTES);
        // SAFETY: the slot is the port's until its token is popped.
        let token = unsafe { self.receive.add(&[], &mut [memory]) }?;
        self.receiving.insert(token, slot);
        Ok(())
    }

    /// Takes back the buffers that were sent.
    fn collect(&mut self) {
        while let Some(token) = self.transmit.peek_used() {
            let Some((slot, len)) = self.transmitting.remove(&token) else {
                return;
            };
            let memory = buffer(&mut self.transmit_memory, slot, len);
            // SAFETY: the same memory that was added with this token.
            let _ = unsafe { self.transmit.pop_used(token, &[memory], &mut []) };
            self.free.push(slot);
        }
    }
}
