//! A 16550A serial port.
//!
//! It has no baud rate: what the guest writes is there at once for whoever takes it ([`Uart::take_sent`]), and while
//! [`SENT_WAITING`] bytes wait nobody takes, the port is not ready for more. What comes for the guest goes into its FIFO
//! as far as there is [`Uart::room`]; a few bytes that do not reach the trigger level count as waiting long.
//!
//! Source: National PC16550D data sheet; a PC lets its interrupt through by OUT2.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes from the guest that wait at most; with so many the port is not ready.
pub const SENT_WAITING: usize = 4096;
const FIFO_BYTES: usize = 16;

/// Interrupt enable register.
mod enable {
    pub(super) const RECEIVED: u8 = 1 << 0;
    pub(super) const EMPTY: u8 = 1 << 1;
    pub(super) const LINE: u8 = 1 << 2;
    pub(super) const MODEM: u8 = 1 << 3;
}

/// Interrupt identification register.
mod cause {
    pub(super) const NONE: u8 = 0x01;
    pub(super) const MODEM: u8 = 0x00;
    pub(super) const EMPTY: u8 = 0x02;
    pub(super) const RECEIVED: u8 = 0x04;
    pub(super) const TIMEOUT: u8 = 0x0c;
    pub(super) const LINE: u8 = 0x06;
    pub(super) const FIFO: u8 = 0xc0;
}

/// Line status register.
mod line {
    pub(super) const READY: u8 = 1 << 0;
    pub(super) const OVERRUN: u8 = 1 << 1;
    /// Holding register and transmitter are empty.
    pub(super) const EMPTY: u8 = 3 << 5;
}

/// Modem control register.
mod modem {
    pub(super) const OUT2: u8 = 1 << 3;
    pub(super) const LOOP: u8 = 1 << 4;
    pub(super) const WRITABLE: u8 = 0x1f;
}

/// FIFO control register.
mod fifo {
    pub(super) const ON: u8 = 1 << 0;
    pub(super) const CLEAR_RECEIVE: u8 = 1 << 1;
}

/// Line control: the divisor is where data is.
const DIVISOR: u8 = 1 << 7;
/// Modem status: the other side is there and ready (carrier, DSR, CTS).
const CONNECTED: u8 = 0xb0;

/// A serial port.
#[derive(Debug, Default)]
pub struct Uart {
    received: VecDeque<u8>,
    sent: VecDeque<u8>,
    divisor: [u8; 2],
    enabled: u8,
    line_control: u8,
    modem_control: u8,
    /// Bits of the modem status that changed since it was read.
    modem_changes: u8,
    scratch: u8,
    fifo_control: u8,
    overrun: bool,
    /// The holding register became empty and nobody was told.
    became_empty: bool,
}

impl Uart {
    /// How many bytes for the guest it takes now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.loops() { 0 } else { self.depth().saturating_sub(self.received.len()) }
    }

    /// Takes a byte for the guest; one for which there is no room is lost, and the guest sees that.
    pub fn receive(&mut self, byte: u8) {
        if self.received.len() < self.depth() {
            self.received.push_back(byte);
        } else {
            self.overrun = true;
        }
    }

    /// Takes what the guest has sent.
    pub fn take_sent(&mut self) -> Vec<u8> {
        let was_full = !self.is_ready();
        let sent = self.sent.drain(..).collect();
        self.became_empty |= was_full;
        sent
    }

    /// Whether its interrupt line is high.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.cause() != cause::NONE && self.modem_control & modem::OUT2 != 0
    }

    /// Reads a register, 0 to 7.
    pub fn read(&mut self, register: u16) -> u8 {
        let divisor = self.line_control & DIVISOR != 0;
        match register & 7 {
            at @ (0 | 1) if divisor => self.divisor[usize::from(at)],
            0 => self.received.pop_front().unwrap_or(0),
            1 => self.enabled,
            2 => self.identify(),
            3 => self.line_control,
            4 => self.modem_control,
            5 => self.line_status(),
            6 => self.modem_status() | core::mem::take(&mut self.modem_changes),
            _ => self.scratch,
        }
    }

    /// Writes a register, 0 to 7.
    pub fn write(&mut self, register: u16, value: u8) {
        let divisor = self.line_control & DIVISOR != 0;
        match register & 7 {
            at @ (0 | 1) if divisor => self.divisor[usize::from(at)] = value,
            0 => self.send(value),
            1 => {
                self.became_empty |= value & !self.enabled & enable::EMPTY != 0 && self.is_ready();
                self.enabled = value & 0x0f;
            }
            2 => self.control_fifo(value),
            3 => self.line_control = value,
            4 => {
                let before = self.modem_status();
                self.modem_control = value & modem::WRITABLE;
                self.note_modem_changes(before);
            }
            5 | 6 => {}
            _ => self.scratch = value,
        }
    }

    fn loops(&self) -> bool {
        self.modem_control & modem::LOOP != 0
    }

    fn depth(&self) -> usize {
        if self.fifo_control & fifo::ON != 0 { FIFO_BYTES } else { 1 }
    }

    fn is_ready(&self) -> bool {
        self.sent.len() < SENT_WAITING
    }

    fn send(&mut self, byte: u8) {
        if self.loops() {
            self.receive(byte);
        } else if self.is_ready() {
            self.sent.push_back(byte);
        }
        self.became_empty = self.is_ready();
    }

    fn control_fifo(&mut self, value: u8) {
        if (value ^ self.fifo_control) & fifo::ON != 0 || value & fifo::CLEAR_RECEIVE != 0 {
            self.received.clear();
        }
        self.fifo_control = value & (cause::FIFO | fifo::ON);
    }

    fn trigger(&self) -> usize {
        match (self.fifo_control & fifo::ON, self.fifo_control >> 6) {
            (0, _) | (_, 0) => 1,
            (_, 1) => 4,
            (_, 2) => 8,
            _ => 14,
        }
    }

    fn cause(&self) -> u8 {
        let enabled = |bit| self.enabled & bit != 0;
        if enabled(enable::LINE) && self.overrun {
            cause::LINE
        } else if enabled(enable::RECEIVED) && self.received.len() >= self.trigger() {
            cause::RECEIVED
        } else if enabled(enable::RECEIVED) && !self.received.is_empty() {
            cause::TIMEOUT
        } else if enabled(enable::EMPTY) && self.became_empty {
            cause::EMPTY
        } else if enabled(enable::MODEM) && self.modem_changes != 0 {
            cause::MODEM
        } else {
            cause::NONE
        }
    }

    fn identify(&mut self) -> u8 {
        let cause = self.cause();
        if cause == cause::EMPTY {
            self.became_empty = false;
        }
        cause | if self.fifo_control & fifo::ON != 0 { cause::FIFO } else { 0 }
    }

    fn line_status(&mut self) -> u8 {
        let ready = if self.received.is_empty() { 0 } else { line::READY };
        let overrun = if core::mem::take(&mut self.overrun) { line::OVERRUN } else { 0 };
        ready | overrun | if self.is_ready() { line::EMPTY } else { 0 }
    }

    /// The modem's lines; in loopback they are this port's own.
    fn modem_status(&self) -> u8 {
        if !self.loops() {
            return CONNECTED;
        }
        let own = self.modem_control;
        (own & 2) << 3 | (own & 1) << 5 | (own & 4) << 4 | (own & 8) << 4
    }

    fn note_modem_changes(&mut self, before: u8) {
        const RING: u8 = 1 << 2;
        let now = self.modem_status();
        let changed = (before ^ now) >> 4;
        // Of the ring only its end counts.
        let rings_still = now >> 4 & RING;
        self.modem_changes |= changed & !(RING & rings_still);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open() -> Uart {
        let mut uart = Uart::default();
        for (register, value) in [(3, 0x80), (0, 1), (1, 0), (3, 3), (2, 0xc7), (4, 0x0b)] {
            uart.write(register, value);
        }
        uart
    }

    #[test]
    fn what_the_guest_writes_is_sent() {
        let mut uart = open();
        for byte in *b"hello" {
            assert_eq!(uart.read(5) & 0x60, 0x60);
            uart.write(0, byte);
        }
        assert_eq!(uart.take_sent(), b"hello");
        assert_eq!(uart.take_sent(), b"");
    }

    #[test]
    fn a_guest_that_sends_too_fast_waits_until_it_is_taken() {
        let mut uart = open();
        uart.write(1, 2);
        for _ in 0..SENT_WAITING + 10 {
            uart.write(0, 1);
        }
        assert_eq!(uart.read(5) & 0x60, 0);
        assert!(!uart.asks());
        assert_eq!(uart.take_sent().len(), SENT_WAITING);
        assert!(uart.asks());
        assert_eq!(uart.read(2), 0xc2);
    }

    #[test]
    fn what_arrives_interrupts_until_it_is_read() {
        let mut uart = open();
        uart.write(1, 1);
        for byte in 0..14 {
            uart.receive(byte);
        }
        assert_eq!((uart.asks(), uart.read(2)), (true, 0xc4));
        assert_eq!(uart.read(0), 0);
        assert_eq!(uart.read(2), 0xcc);
        for byte in 1..14 {
            assert_eq!(uart.read(5) & 1, 1);
            assert_eq!(uart.read(0), byte);
        }
        assert_eq!((uart.asks(), uart.read(2), uart.read(5) & 1), (false, 0xc1, 0));
    }

    #[test]
    fn what_has_no_room_is_an_overrun() {
        let mut uart = open();
        uart.write(1, 4);
        (0..16).for_each(|byte| uart.receive(byte));
        assert_eq!((uart.room(), uart.asks()), (0, false));
        uart.receive(16);
        assert_eq!(uart.read(2) & 0xf, 6);
        assert_eq!(uart.read(5) & 2, 2);
        assert_eq!(uart.read(5) & 2, 0);
    }

    #[test]
    fn an_empty_transmitter_interrupts_once() {
        let mut uart = open();
        uart.write(1, 2);
        assert!(uart.asks());
        assert_eq!(uart.read(2) & 0xf, 2);
        assert!(!uart.asks());
        uart.write(0, b'x');
        assert!(uart.asks());
    }

    #[test]
    fn the_interrupt_needs_out2() {
        let mut uart = open();
        uart.write(1, 2);
        uart.write(4, 3);
        assert!(!uart.asks());
    }

    #[test]
    fn in_loopback_it_hears_itself_alone() {
        let mut uart = open();
        uart.write(4, 0x1a);
        assert_eq!(uart.read(6) & 0xf0, 0x90);
        uart.write(0, b'q');
        assert_eq!((uart.room(), uart.read(0)), (0, b'q'));
        assert_eq!(uart.take_sent(), b"");
    }

    #[test]
    fn the_divisor_is_behind_its_bit() {
        let mut uart = open();
        uart.write(3, 0x83);
        assert_eq!((uart.read(0), uart.read(1)), (1, 0));
        uart.write(1, 7);
        uart.write(3, 3);
        assert_eq!(uart.read(1), 0);
        uart.write(7, 0x5a);
        assert_eq!(uart.read(7), 0x5a);
    }

    #[test]
    fn without_a_fifo_it_keeps_one_byte() {
        let mut uart = open();
        uart.write(2, 0);
        assert_eq!((uart.room(), uart.read(2)), (1, 1));
        uart.receive(1);
        assert_eq!(uart.room(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_written_its_memory_is_bounded(
            steps in proptest::collection::vec((any::<u16>(), any::<u8>(), any::<bool>()), 0..300)
        ) {
            let mut uart = Uart::default();
            for (register, value, receive) in steps {
                uart.write(register, value);
                uart.read(register);
                if receive {
                    uart.receive(value);
                }
                prop_assert!(uart.received.len() <= FIFO_BYTES && uart.sent.len() <= SENT_WAITING);
                prop_assert!(!uart.asks() || uart.cause() != cause::NONE);
            }
        }
    }
}
