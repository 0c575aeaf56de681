//! An NE2000 network card on the PCI bus (Realtek 8029): a DP8390 with 16 KiB of memory of its own, which the CPU reaches
//! word by word through one port.
//!
//! The card's memory is cut into pages of 256 bytes: six to send from, the rest a ring into which the card receives. Each
//! frame there has four bytes in front: status, the page of the next one, the length.
//!
//! Invariant: `next` is the page of the oldest frame that was not taken; the card's boundary register is the page before.
//!
//! Source: National Semiconductor DP8390D data sheet (July 1995).

use alloc::vec;
use alloc::vec::Vec;

use spin::Once;
use x86_64::instructions::port::Port;

use super::{lines, pci};
use crate::sync::SleepLock;
use crate::task::Signal;
use crate::time::{MILLISECOND_NS, SECOND_NS, now_ns};

/// Vendor and device of the Realtek 8029.
const RTL8029: u32 = 0x8029_10ec;
/// The longest frame, without its checksum.
pub const MAX_FRAME_BYTES: usize = 1514;
const MIN_FRAME_BYTES: usize = 60;

// Registers of page 0.
const COMMAND: u16 = 0;
const RING_START: u16 = 1;
const RING_END: u16 = 2;
const BOUNDARY: u16 = 3;
const SEND_PAGE: u16 = 4;
const SEND_BYTES: u16 = 5;
const INTERRUPTS: u16 = 7;
const REMOTE_ADDRESS: u16 = 8;
const REMOTE_BYTES: u16 = 10;
const RECEIVE_SETTINGS: u16 = 12;
const SEND_SETTINGS: u16 = 13;
const DATA_SETTINGS: u16 = 14;
const INTERRUPT_MASK: u16 = 15;
// Registers of page 1.
const STATION: u16 = 1;
const CURRENT: u16 = 7;
const MULTICAST: u16 = 8;
// Outside of the pages.
const DATA: u16 = 0x10;
const RESET: u16 = 0x1f;

// Command register.
const STOP: u8 = 0x01;
const START: u8 = 0x02;
const SEND: u8 = 0x04;
const REMOTE_READ: u8 = 0x08;
const REMOTE_WRITE: u8 = 0x10;
const REMOTE_NONE: u8 = 0x20;
const PAGE_1: u8 = 0x40;

// Interrupts.
const RECEIVED: u8 = 0x01;
const SENT: u8 = 0x02;
const SEND_FAILED: u8 = 0x08;
const OVERFLOW: u8 = 0x10;
const REMOTE_DONE: u8 = 0x40;
const WAS_RESET: u8 = 0x80;

/// Words, eight to a burst, no loopback.
const WORDS: u8 = 0x49;
/// Accept broadcasts and frames to this station.
const ACCEPT: u8 = 0x04;
/// Send without loopback; receive settings while the ring is set up: nothing is kept.
const MONITOR: u8 = 0x20;
const LOOPBACK: u8 = 0x02;

// Pages of the card's memory.
const FIRST_SEND_PAGE: u8 = 0x40;
const FIRST_RING_PAGE: u8 = 0x46;
const RING_PAGES_END: u8 = 0x80;
const PAGE_BYTES: u16 = 256;
const HEADER_BYTES: u16 = 4;

/// The card.
pub struct Card {
    ports: u16,
    line: u8,
    mac: [u8; 6],
    next: u8,
}

static CARD: Once<SleepLock<Card>> = Once::new();
/// Raised when the card wants something.
static INTERRUPT: Signal = Signal::new();

/// Looks for the card and starts it.
pub fn open() -> Option<&'static SleepLock<Card>> {
    let function = pci::find(|function| function.id() == RTL8029)?;
    function.enable();
    let mut card = Card { ports: function.ports(0)?, line: function.line(), mac: [0; 6], next: FIRST_RING_PAGE + 1 };
    card.start().then_some(())?;
    let line = card.line;
    let card = CARD.call_once(|| SleepLock::new(card));
    lines::listen(line, &INTERRUPT).then_some(card)
}

/// Raised when the card has received something, or has room again.
#[must_use]
pub fn signal() -> &'static Signal {
    &INTERRUPT
}

impl Card {
    fn write(&self, register: u16, value: u8) {
        // SAFETY: a port of the card, which cannot reach the machine's memory.
        unsafe { Port::new(self.ports + register).write(value) }
    }

    fn read(&self, register: u16) -> u8 {
        // SAFETY: as above.
        unsafe { Port::new(self.ports + register).read() }
    }

    /// Writes a register pair, the lower half first.
    fn write_pair(&self, register: u16, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.write(register, low);
        self.write(register + 1, high);
    }

    /// Resets the card, learns its address and lets it receive; false when it does not answer.
    fn start(&mut self) -> bool {
        self.write(RESET, self.read(RESET));
        let deadline = now_ns() + 20 * MILLISECOND_NS;
        while self.read(INTERRUPTS) & WAS_RESET == 0 {
            if now_ns() > deadline {
                return false;
            }
        }
        self.write(COMMAND, STOP | REMOTE_NONE);
        self.write(DATA_SETTINGS, WORDS);
        self.write_pair(REMOTE_BYTES, 0);
        self.write(RECEIVE_SETTINGS, MONITOR);
        self.write(SEND_SETTINGS, LOOPBACK);
        // The address stands at the start of the card's memory, each byte twice.
        let mut words = [0; 6];
        self.copy_out(0, &mut words);
        self.mac = words.map(|word| word as u8);
        self.write(RING_START, FIRST_RING_PAGE);
        self.write(RING_END, RING_PAGES_END);
        self.write(BOUNDARY, FIRST_RING_PAGE);
        self.write(INTERRUPTS, 0xff);
        self.write(COMMAND, PAGE_1 | STOP | REMOTE_NONE);
        for (register, byte) in (STATION..).zip(self.mac) {
            self.write(register, byte);
        }
        (MULTICAST..MULTICAST + 8).for_each(|register| self.write(register, 0));
        self.write(CURRENT, self.next);
        self.write(COMMAND, START | REMOTE_NONE);
        self.write(SEND_SETTINGS, 0);
        self.write(RECEIVE_SETTINGS, ACCEPT);
        self.write(INTERRUPT_MASK, RECEIVED | OVERFLOW);
        true
    }

    /// Starts a transfer between the CPU and the card's memory.
    fn remote(&self, address: u16, len_bytes: u16, direction: u8) {
        self.write(INTERRUPTS, REMOTE_DONE);
        self.write_pair(REMOTE_BYTES, len_bytes);
        self.write_pair(REMOTE_ADDRESS, address);
        self.write(COMMAND, START | direction);
    }

    fn copy_out(&self, address: u16, into: &mut [u16]) {
        self.remote(address, (into.len() * 2) as u16, REMOTE_READ);
        super::ata::read_words(self.ports + DATA, into);
    }

    /// Its address on the network.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends a frame, which is [`MAX_FRAME_BYTES`] long at most; false when the card did not take it.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        if frame.len() > MAX_FRAME_BYTES {
            return false;
        }
        let len = frame.len().max(MIN_FRAME_BYTES);
        let words: Vec<u16> = (0..len.div_ceil(2))
            .map(|word| u16::from_le_bytes([0, 1].map(|byte| frame.get(word * 2 + byte).copied().unwrap_or(0))))
            .collect();
        if !self.wait_until_sent() {
            return false;
        }
        self.remote(u16::from(FIRST_SEND_PAGE) * PAGE_BYTES, (words.len() * 2) as u16, REMOTE_WRITE);
        super::ata::write_words(self.ports + DATA, &words);
        self.write(SEND_PAGE, FIRST_SEND_PAGE);
        self.write_pair(SEND_BYTES, len as u16);
        self.write(INTERRUPTS, SENT | SEND_FAILED);
        self.write(COMMAND, START | SEND | REMOTE_NONE);
        true
    }

    /// The frame before is on its way: its pages are free.
    fn wait_until_sent(&self) -> bool {
        let deadline = now_ns() + SECOND_NS / 10;
        while self.read(COMMAND) & SEND != 0 {
            if now_ns() > deadline {
                return false;
            }
        }
        true
    }

    /// Takes the oldest frame that came. Without one, the card may interrupt again.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        self.write(INTERRUPTS, RECEIVED | OVERFLOW);
        if self.current() == self.next {
            lines::rearm(self.line);
            return None;
        }
        let start = u16::from(self.next) * PAGE_BYTES;
        let mut header = [0_u16; 2];
        self.copy_out(start, &mut header);
        let ([_status, next], len) = (header[0].to_le_bytes(), header[1]);
        let good = (FIRST_RING_PAGE..RING_PAGES_END).contains(&next)
            && usize::from(len) <= MAX_FRAME_BYTES + 4 + usize::from(HEADER_BYTES)
            && len > HEADER_BYTES;
        if !good {
            // The card's memory is not what it should be: begin again.
            self.next = FIRST_RING_PAGE + 1;
            self.start();
            return None;
        }
        let frame = self.take(start + HEADER_BYTES, usize::from(len - HEADER_BYTES));
        self.next = next;
        let before = if next == FIRST_RING_PAGE { RING_PAGES_END - 1 } else { next - 1 };
        self.write(BOUNDARY, before);
        Some(frame)
    }

    /// The page into which the card receives next.
    fn current(&self) -> u8 {
        self.write(COMMAND, PAGE_1 | START | REMOTE_NONE);
        let current = self.read(CURRENT);
        self.write(COMMAND, START | REMOTE_NONE);
        current
    }

    /// Copies a frame out of the ring, whose end it may cross.
    fn take(&self, start: u16, len: usize) -> Vec<u8> {
        let mut words = vec![0_u16; len.div_ceil(2)];
        let until_end = usize::from(u16::from(RING_PAGES_END) * PAGE_BYTES - start) / 2;
        let (head, tail) = words.split_at_mut(until_end.min(len.div_ceil(2)));
        self.copy_out(start, head);
        if !tail.is_empty() {
            self.copy_out(u16::from(FIRST_RING_PAGE) * PAGE_BYTES, tail);
        }
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}
