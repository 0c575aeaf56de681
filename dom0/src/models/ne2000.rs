//! An NE2000 network card as the RTL8029 is one: a DP8390 and 32 KiB of memory behind a data port.
//!
//! The guest reaches the memory by remote DMA: it sets an address and a length and moves the bytes through the data port.
//! A frame that arrives goes into a ring of pages between two registers, behind a header that says where the next one
//! starts. Any page numbers are good: what is not memory reads as ones and takes no writes, and no frame makes more steps
//! than it has bytes.
//!
//! Source: National DP8390D data sheet; Realtek RTL8029AS data sheet.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

/// The memory of the card begins here, and ends there.
const MEMORY: core::ops::Range<usize> = 0x4000..0xc000;
/// The bytes at address 0: the card's address and what tells a 16-bit card, each byte twice.
const PROM_BYTES: usize = 32;
/// The smallest frame without its checksum, the largest that arrives, and what a frame in the ring has beside its data.
const SHORTEST: usize = 60;
const LONGEST: usize = 1514;
const HEADER: usize = 4;
const CHECKSUM: usize = 4;
/// Frames from the guest that wait at most; what comes then is lost, as on a wire.
const SENT_WAITING: usize = 256;

/// Command register.
mod command {
    pub(super) const STOP: u8 = 1 << 0;
    pub(super) const TRANSMIT: u8 = 1 << 2;
    pub(super) const REMOTE: u8 = 7 << 3;
    pub(super) const READ: u8 = 1 << 3;
    pub(super) const WRITE: u8 = 2 << 3;
    pub(super) const SEND: u8 = 3 << 3;
}

/// Interrupt status register.
mod status {
    pub(super) const RECEIVED: u8 = 1 << 0;
    pub(super) const TRANSMITTED: u8 = 1 << 1;
    pub(super) const TRANSMIT_ERROR: u8 = 1 << 3;
    pub(super) const REMOTE_DONE: u8 = 1 << 6;
    pub(super) const RESET: u8 = 1 << 7;
}

/// Receive configuration register.
mod receive {
    pub(super) const BROADCAST: u8 = 1 << 2;
    pub(super) const MULTICAST: u8 = 1 << 3;
    pub(super) const PROMISCUOUS: u8 = 1 << 4;
    pub(super) const MONITOR: u8 = 1 << 5;
}

/// Receive status: intact; for many.
const INTACT: u8 = 1 << 0;
const FOR_MANY: u8 = 1 << 5;
/// Transmit status: sent; stopped.
const SENT: u8 = 1 << 0;
const ABORTED: u8 = 1 << 3;
/// Data configuration: words, not bytes.
const WORDS: u8 = 1 << 0;
/// Transmit configuration: one of the loopbacks.
const LOOPBACK: u8 = 3 << 1;

/// A network card.
#[derive(Debug)]
pub struct Ne2000 {
    memory: Vec<u8>,
    prom: [u8; PROM_BYTES],
    command: u8,
    /// First page of the ring, the page behind it, the last page that the guest has read, the next that is written.
    start: u8,
    stop: u8,
    boundary: u8,
    current: u8,
    transmit_page: u8,
    transmit_status: u8,
    transmit_len: u16,
    remote_address: u16,
    remote_len: u16,
    receive_status: u8,
    receive_control: u8,
    transmit_control: u8,
    data_control: u8,
    interrupts: u8,
    enabled: u8,
    address: [u8; 6],
    groups: [u8; 8],
    sent: Vec<Vec<u8>>,
}

impl Ne2000 {
    /// A card with an address.
    #[must_use]
    pub fn new(address: [u8; 6]) -> Self {
        let mut prom = [0; PROM_BYTES];
        for (pair, byte) in prom.chunks_mut(2).zip(address.into_iter().chain([0; 8]).chain([0x57; 2])) {
            pair.fill(byte);
        }
        Self {
            memory: alloc::vec![0; MEMORY.len()],
            prom,
            command: command::STOP,
            start: 0,
            stop: 0,
            boundary: 0,
            current: 0,
            transmit_page: 0,
            transmit_status: 0,
            transmit_len: 0,
            remote_address: 0,
            remote_len: 0,
            receive_status: 0,
            receive_control: 0,
            transmit_control: 0,
            data_control: 0,
            interrupts: status::RESET,
            enabled: 0,
            address,
            groups: [0; 8],
            sent: Vec::new(),
        }
    }

    /// Whether its interrupt line is high.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.interrupts & self.enabled & 0x7f != 0
    }

    /// Takes the frames that the guest has sent.
    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.sent)
    }

    /// Whether a frame that comes now can be kept; one that the card would not take anyway always can.
    #[must_use]
    pub fn has_room(&self) -> bool {
        if !self.receives() {
            return true;
        }
        let pages = self.stop.saturating_sub(self.start);
        let free = match self.boundary.cmp(&self.current) {
            core::cmp::Ordering::Greater => self.boundary - self.current,
            _ => pages.saturating_sub(self.current - self.boundary),
        };
        // A ring that is written full looks like an empty one.
        usize::from(free) > (LONGEST + HEADER + CHECKSUM).div_ceil(256)
    }

    /// A frame arrives, from its destination on. One that has no room or is not for this card is lost.
    pub fn receive(&mut self, frame: &[u8]) {
        let Some(destination) = frame.first_chunk::<6>() else {
            return;
        };
        let monitors = self.receive_control & receive::MONITOR != 0;
        if frame.len() > LONGEST || !self.receives() || monitors || !self.wants(destination) || !self.has_room() {
            return;
        }
        let len = frame.len().max(SHORTEST) + CHECKSUM;
        let pages = (HEADER + len).div_ceil(256) as u8;
        let next = match u16::from(self.current) + u16::from(pages) {
            next if next >= u16::from(self.stop) => next - u16::from(self.stop - self.start),
            next => next,
        } as u8;
        self.receive_status = INTACT | if destination[0] & 1 != 0 { FOR_MANY } else { 0 };
        let [low, high] = (len as u16).to_le_bytes();
        let header = [self.receive_status, next, low, high];
        let padding = core::iter::repeat_n(0, len - frame.len());
        let mut at = u16::from(self.current) << 8;
        for byte in header.into_iter().chain(frame.iter().copied()).chain(padding) {
            self.put(at, byte);
            at = self.behind(at, 1);
        }
        self.current = next;
        self.interrupts |= status::RECEIVED;
    }

    /// Reads 1, 2 or 4 bytes at an offset in its 32 ports.
    pub fn read(&mut self, offset: u16, size: u8) -> u32 {
        match offset & 0x1f {
            0x10..0x18 => self.read_data(size),
            0x18.. => {
                self.reset();
                0
            }
            register => {
                let mut bytes = [0; 4];
                for (byte, register) in bytes.iter_mut().zip(register..0x10).take(size.into()) {
                    *byte = self.read_register(register as u8);
                }
                u32::from_le_bytes(bytes)
            }
        }
    }

    /// Writes 1, 2 or 4 bytes at an offset in its 32 ports.
    pub fn write(&mut self, offset: u16, size: u8, value: u32) {
        match offset & 0x1f {
            0x10..0x18 => self.write_data(size, value),
            0x18.. => {}
            register => {
                for (byte, register) in value.to_le_bytes().into_iter().zip(register..0x10).take(size.into()) {
                    self.write_register(register as u8, byte);
                }
            }
        }
    }

    fn receives(&self) -> bool {
        self.command & command::STOP == 0 && self.start < self.stop && (self.start..self.stop).contains(&self.current)
    }

    fn wants(&self, destination: &[u8; 6]) -> bool {
        let takes = |bit| self.receive_control & bit != 0;
        if takes(receive::PROMISCUOUS) || *destination == self.address {
            true
        } else if *destination == [0xff; 6] {
            takes(receive::BROADCAST)
        } else {
            let group = crc(destination) >> 26;
            destination[0] & 1 != 0
                && takes(receive::MULTICAST)
                && self.groups[group as usize >> 3] >> (group & 7) & 1 != 0
        }
    }

    /// The address some bytes behind another, in the ring.
    fn behind(&self, address: u16, bytes: u16) -> u16 {
        let next = address.wrapping_add(bytes);
        if next == u16::from(self.stop) << 8 { u16::from(self.start) << 8 } else { next }
    }

    fn get(&self, address: u16) -> u8 {
        let address = usize::from(address);
        match address.checked_sub(MEMORY.start) {
            None => self.prom.get(address).copied().unwrap_or(0xff),
            Some(at) => self.memory.get(at).copied().unwrap_or(0xff),
        }
    }

    fn put(&mut self, address: u16, byte: u8) {
        let at = usize::from(address).checked_sub(MEMORY.start);
        if let Some(place) = at.and_then(|at| self.memory.get_mut(at)) {
            *place = byte;
        }
    }

    /// How many bytes an access to the data port moves: what the card is set to, whatever the access is as wide as.
    fn width(&self, size: u8) -> u16 {
        match (size, self.data_control & WORDS) {
            (4, _) => 4,
            (_, 0) => 1,
            _ => 2,
        }
    }

    fn read_data(&mut self, size: u8) -> u32 {
        let mut bytes = [0; 4];
        if matches!(self.command & command::REMOTE, command::READ | command::SEND) {
            for (byte, at) in bytes.iter_mut().zip(0..self.width(size)) {
                *byte = self.get(self.remote_address.wrapping_add(at));
            }
            self.moved(size);
        }
        u32::from_le_bytes(bytes)
    }

    fn write_data(&mut self, size: u8, value: u32) {
        if self.command & command::REMOTE == command::WRITE && self.remote_len != 0 {
            for (byte, at) in value.to_le_bytes().into_iter().zip(0..self.width(size)) {
                self.put(self.remote_address.wrapping_add(at), byte);
            }
            self.moved(size);
        }
    }

    fn moved(&mut self, size: u8) {
        let width = self.width(size);
        self.remote_address = self.behind(self.remote_address, width);
        self.remote_len = self.remote_len.saturating_sub(width);
        if self.remote_len == 0 {
            self.interrupts |= status::REMOTE_DONE;
        }
    }

    fn reset(&mut self) {
        self.command = command::STOP;
        self.interrupts = status::RESET;
        self.enabled = 0;
    }

    fn set_command(&mut self, value: u8) {
        self.command = value & !command::TRANSMIT;
        if value & command::STOP != 0 {
            self.interrupts |= status::RESET;
            return;
        }
        self.interrupts &= !status::RESET;
        if matches!(value & command::REMOTE, command::READ | command::WRITE) && self.remote_len == 0 {
            self.interrupts |= status::REMOTE_DONE;
        }
        if value & command::TRANSMIT != 0 {
            self.transmit();
        }
    }

    fn transmit(&mut self) {
        let at = (usize::from(self.transmit_page) << 8).checked_sub(MEMORY.start);
        let frame = at.and_then(|at| self.memory.get(at..at + usize::from(self.transmit_len)));
        match frame.filter(|frame| (14..=LONGEST).contains(&frame.len())) {
            Some(frame) => {
                if self.transmit_control & LOOPBACK == 0 && self.sent.len() < SENT_WAITING {
                    self.sent.push(frame.to_vec());
                }
                self.transmit_status = SENT;
                self.interrupts |= status::TRANSMITTED;
            }
            None => {
                self.transmit_status = ABORTED;
                self.interrupts |= status::TRANSMIT_ERROR;
            }
        }
    }

    fn read_register(&self, register: u8) -> u8 {
        let [remote_low, remote_high] = self.remote_address.to_le_bytes();
        match (self.command >> 6, register) {
            (_, 0) => self.command,
            (0, 3) => self.boundary,
            (0, 4) => self.transmit_status,
            (0, 7) => self.interrupts,
            (0, 8) => remote_low,
            (0, 9) => remote_high,
            // "PC": an RTL8029.
            (0, 0x0a) => 0x50,
            (0, 0x0b) => 0x43,
            (0, 0x0c) => self.receive_status,
            (1, at @ 1..=6) => self.address[usize::from(at) - 1],
            (1, 7) => self.current,
            (1, at @ 8..) => self.groups[usize::from(at & 7)],
            (2, 1) => self.start,
            (2, 2) => self.stop,
            (2, 4) => self.transmit_page,
            (2, 0x0c) => self.receive_control,
            (2, 0x0d) => self.transmit_control,
            (2, 0x0e) => self.data_control,
            (2, 0x0f) => self.enabled,
            // Twisted pair, a link, both ways at once.
            (3, 5 | 6) => 0x40,
            _ => 0,
        }
    }

    fn write_register(&mut self, register: u8, value: u8) {
        match (self.command >> 6, register) {
            (_, 0) => self.set_command(value),
            (0, 1) => self.start = value,
            (0, 2) => self.stop = value,
            (0, 3) => self.boundary = value,
            (0, 4) => self.transmit_page = value,
            (0, at @ (5 | 6)) => self.transmit_len.as_mut_bytes()[usize::from(at) - 5] = value,
            // The bit that shows the reset is the card's own.
            (0, 7) => self.interrupts &= !(value & 0x7f),
            (0, at @ (8 | 9)) => self.remote_address.as_mut_bytes()[usize::from(at) - 8] = value,
            (0, at @ (0x0a | 0x0b)) => self.remote_len.as_mut_bytes()[usize::from(at) - 0x0a] = value,
            (0, 0x0c) => self.receive_control = value & 0x3f,
            (0, 0x0d) => self.transmit_control = value & 0x1f,
            (0, 0x0e) => self.data_control = value & 0x7f,
            (0, 0x0f) => self.enabled = value & 0x7f,
            (1, at @ 1..=6) => self.address[usize::from(at) - 1] = value,
            (1, 7) => self.current = value,
            (1, at @ 8..) => self.groups[usize::from(at & 7)] = value,
            _ => {}
        }
    }
}

/// The checksum of Ethernet, as the card's filter for groups makes it: highest bit first.
fn crc(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x04c1_1db7;
    let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| u32::from(byte >> bit & 1)));
    bits.fold(!0, |crc, bit| if crc >> 31 ^ bit != 0 { crc << 1 ^ POLYNOMIAL } else { crc << 1 })
}

#[cfg(test)]
mod tests;
