//! The serial console: a 16550 at one of the four places of a PC.
//!
//! Output waits for the chip; input comes by interrupt, or is fetched when someone asks. Nothing waits for a chip that
//! is not there.
//!
//! Source: PC16550D data sheet.

use core::fmt;
use core::sync::atomic::{AtomicU16, Ordering};

use arrayvec::ArrayVec;
use spin::Mutex;

use super::port;

/// First port of the first serial line.
pub(crate) const COM1: u16 = 0x3f8;
/// Bytes of input that are kept.
const INPUT: usize = 256;
/// Bytes that the chip takes at once.
const FIFO: usize = 16;

const INTERRUPTS: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const HAS_INPUT: u8 = 1;
const OUTPUT_EMPTY: u8 = 1 << 5;

/// A serial line.
pub(crate) struct Serial {
    /// First port; 0 where there is none.
    base: AtomicU16,
    input: Mutex<ArrayVec<u8, INPUT>>,
    output: Mutex<()>,
}

impl Serial {
    /// A line that is not there yet.
    pub(crate) const fn new() -> Self {
        Self { base: AtomicU16::new(0), input: Mutex::new(ArrayVec::new_const()), output: Mutex::new(()) }
    }

    /// Sets a line to `baud`, 8 bits, no parity, if there is a chip at `base`.
    pub(crate) fn start(&self, base: u16, baud: u32) {
        port::write8(base + SCRATCH, 0x5a);
        if port::read8(base + SCRATCH) != 0x5a {
            return;
        }
        let divisor = (115_200 / baud.clamp(50, 115_200)) as u16;
        port::write8(base + INTERRUPTS, 0);
        port::write8(base + LINE_CONTROL, 0x80);
        port::write8(base, divisor as u8);
        port::write8(base + 1, (divisor >> 8) as u8);
        port::write8(base + LINE_CONTROL, 0x03);
        port::write8(base + FIFO_CONTROL, 0x07);
        port::write8(base + MODEM_CONTROL, 0x0b);
        self.base.store(base, Ordering::Relaxed);
    }

    /// Says and hears nothing from now on.
    pub(crate) fn stop(&self) {
        self.base.store(0, Ordering::Relaxed);
    }

    /// From now on input raises an interrupt.
    pub(crate) fn enable_interrupt(&self) {
        if let Some(base) = self.base() {
            port::write8(base + INTERRUPTS, 1);
        }
    }

    fn base(&self) -> Option<u16> {
        Some(self.base.load(Ordering::Relaxed)).filter(|&base| base != 0)
    }

    /// Writes bytes, a carriage return before each line feed.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let _one_at_a_time = self.output.lock();
        self.write_unlocked(bytes);
    }

    /// Writes although another may be writing: for a panic.
    pub(crate) fn write_unlocked(&self, bytes: &[u8]) {
        let Some(base) = self.base() else { return };
        let mut room = 0;
        let mut put = |byte| {
            if room == 0 {
                while port::read8(base + LINE_STATUS) & OUTPUT_EMPTY == 0 {
                    core::hint::spin_loop();
                }
                room = FIFO;
            }
            port::write8(base, byte);
            room -= 1;
        };
        for &byte in bytes {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
    }

    /// Fetches what the chip has received.
    pub(crate) fn take_input(&self) {
        let Some(base) = self.base() else { return };
        let mut input = self.input.lock();
        while port::read8(base + LINE_STATUS) & HAS_INPUT != 0 {
            // What finds no room is lost, as on any line that nobody reads.
            let _ = input.try_push(port::read8(base));
        }
    }

    /// Takes what was typed.
    pub(crate) fn read(&self, into: &mut [u8]) -> usize {
        self.take_input();
        let mut input = self.input.lock();
        let count = into.len().min(input.len());
        for (slot, byte) in into.iter_mut().zip(input.drain(..count)) {
            *slot = byte;
        }
        count
    }
}

/// A writer that takes no lock: for a panic.
pub(crate) struct Unlocked<'a>(pub(crate) &'a Serial);

impl fmt::Write for Unlocked<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_unlocked(text.as_bytes());
        Ok(())
    }
}
