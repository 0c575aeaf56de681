//! The serial console: a 16550 at one of the four places of a PC.
//!
//! Once its interrupt is on, output waits in memory and goes out as the chip asks for it, so that saying something does
//! not take as long as sending it; before, and in a panic, it is sent at once. What finds no room is lost and counted.
//! Input comes by interrupt, or is fetched when someone asks. Nothing waits for a chip that is not there.
//!
//! Source: PC16550D data sheet.

use alloc::format;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use arrayvec::ArrayVec;
use spin::Mutex;

use super::port;

/// First port of the first serial line.
pub(crate) const COM1: u16 = 0x3f8;
/// Bytes of input that are kept.
const INPUT: usize = 256;
/// Bytes of output that may wait.
const OUTPUT: usize = 16 << 10;
/// Bytes that the chip takes at once.
const FIFO: usize = 16;
/// How often it is filled again where it is empty at once, as one is that is no real chip.
const FILLS: usize = 64;

const INTERRUPTS: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

/// Of `INTERRUPTS`: for input, and for room for output.
const ON_INPUT: u8 = 1;
const ON_ROOM: u8 = 1 << 1;
/// Of `FIFO_CONTROL` when read: nothing is due.
const NOTHING_DUE: u8 = 1;
/// Of `LINE_STATUS`.
const HAS_INPUT: u8 = 1;
const OUTPUT_EMPTY: u8 = 1 << 5;

/// A serial line.
pub(crate) struct Serial {
    /// First port; 0 where there is none.
    base: AtomicU16,
    /// Whether the chip's interrupt is routed.
    by_interrupt: AtomicBool,
    input: Mutex<ArrayVec<u8, INPUT>>,
    output: Mutex<Output>,
}

/// Output that waits: a ring.
struct Output {
    bytes: [u8; OUTPUT],
    first: usize,
    count: usize,
    lost: usize,
}

impl Output {
    fn say(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(OUTPUT - self.count);
        self.lost += bytes.len() - fits;
        let at = (self.first + self.count) % OUTPUT;
        let before_end = fits.min(OUTPUT - at);
        self.bytes[at..at + before_end].copy_from_slice(&bytes[..before_end]);
        self.bytes[..fits - before_end].copy_from_slice(&bytes[before_end..fits]);
        self.count += fits;
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<u8> {
        self.count = self.count.checked_sub(1)?;
        let byte = self.bytes[self.first % OUTPUT];
        self.first = (self.first + 1) % OUTPUT;
        Some(byte)
    }

    /// Says how much was lost, once there is room for that.
    fn confess(&mut self) {
        if self.lost > 0 && self.count < OUTPUT / 2 {
            let lost = core::mem::take(&mut self.lost);
            let notice =
                format!("\n(hv) {lost} bytes of messages found no room here; sysctl readconsole may have them\n");
            self.say(notice.as_bytes());
        }
    }
}

impl Serial {
    /// A line that is not there yet.
    pub(crate) const fn new() -> Self {
        Self {
            base: AtomicU16::new(0),
            by_interrupt: AtomicBool::new(false),
            input: Mutex::new(ArrayVec::new_const()),
            output: Mutex::new(Output { bytes: [0; OUTPUT], first: 0, count: 0, lost: 0 }),
        }
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

    /// From now on input and room for output raise an interrupt.
    pub(crate) fn enable_interrupt(&self) {
        if let Some(base) = self.base() {
            port::write8(base + INTERRUPTS, ON_INPUT);
            self.by_interrupt.store(true, Ordering::Relaxed);
        }
    }

    /// Handles the chip's interrupt; whether there is input.
    pub(crate) fn on_interrupt(&self) -> bool {
        let Some(base) = self.base() else { return false };
        let mut has_input = false;
        while port::read8(base + FIFO_CONTROL) & NOTHING_DUE == 0 {
            if port::read8(base + LINE_STATUS) & HAS_INPUT != 0 {
                self.take_input();
                has_input = true;
            } else {
                self.send();
                break;
            }
        }
        has_input
    }

    fn base(&self) -> Option<u16> {
        Some(self.base.load(Ordering::Relaxed)).filter(|&base| base != 0)
    }

    /// Writes bytes, a carriage return before each line feed.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let Some(base) = self.base() else { return };
        if !self.by_interrupt.load(Ordering::Relaxed) {
            let _one_at_a_time = self.output.lock();
            return self.write_unlocked(bytes);
        }
        let mut output = self.output.lock();
        let idle = output.count == 0;
        output.say(bytes);
        if idle {
            port::write8(base + INTERRUPTS, ON_INPUT | ON_ROOM);
        }
    }

    /// Sends as much of what waits as the chip takes at once; whether nothing is left.
    pub(crate) fn send(&self) -> bool {
        let Some(base) = self.base() else { return true };
        let mut output = self.output.lock();
        output.confess();
        for _ in 0..FILLS {
            if output.count == 0 || port::read8(base + LINE_STATUS) & OUTPUT_EMPTY == 0 {
                break;
            }
            let mut room = FIFO;
            while room > 1 {
                let Some(byte) = output.pop() else { break };
                if byte == b'\n' {
                    port::write8(base, b'\r');
                    room -= 1;
                }
                port::write8(base, byte);
                room -= 1;
            }
        }
        if output.count == 0 {
            port::write8(base + INTERRUPTS, ON_INPUT);
        }
        output.count == 0
    }

    /// Sends all that waits, unless another is at it; from now on everything is sent at once.
    pub(crate) fn finish(&self) {
        self.by_interrupt.store(false, Ordering::Relaxed);
        if let Some(mut output) = self.output.try_lock() {
            while let Some(byte) = output.pop() {
                self.write_unlocked(&[byte]);
            }
        }
    }

    /// Writes although another may be writing: for a panic.
    pub(crate) fn write_unlocked(&self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(line) => [line, b"\r\n"].into_iter().for_each(|bytes| self.put(bytes)),
                None => self.put(line),
            }
        }
    }

    /// Sends bytes as they are, waiting for the chip.
    fn put(&self, bytes: &[u8]) {
        let Some(base) = self.base() else { return };
        for part in bytes.chunks(FIFO) {
            while port::read8(base + LINE_STATUS) & OUTPUT_EMPTY == 0 {
                core::hint::spin_loop();
            }
            part.iter().for_each(|&byte| port::write8(base, byte));
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
