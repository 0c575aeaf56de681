//! The 8250 on COM1: 115,200 baud, 8N1, receive interrupt on line 4.

use x86_64::instructions::port::Port;

const BASE: u16 = 0x3f8;
/// Line status: a byte was received.
const RECEIVED: u8 = 1;
/// Line status: the transmitter takes a byte.
const READY: u8 = 0x20;

fn read_register(offset: u16) -> u8 {
    // SAFETY: COM1's registers have no effect on memory.
    unsafe { Port::new(BASE + offset).read() }
}

fn write_register(offset: u16, value: u8) {
    // SAFETY: COM1's registers have no effect on memory.
    unsafe { Port::new(BASE + offset).write(value) }
}

/// Sets speed and format, and turns the receive interrupt on.
pub(super) fn init() {
    let settings = [
        (3, 0x80), // access to the divisor
        (0, 1),    // 115,200
        (1, 0),
        (3, 0x03), // 8 bits, no parity, 1 stop bit
        (2, 0x07), // FIFOs on and empty
        (4, 0x0b), // DTR, RTS, and OUT2, which lets interrupts through
        (1, 0x01), // interrupt on receive
    ];
    for (register, value) in settings {
        write_register(register, value);
    }
}

pub(super) fn console_write(bytes: &[u8]) {
    for byte in bytes {
        while read_register(5) & READY == 0 {
            core::hint::spin_loop();
        }
        write_register(0, *byte);
    }
}

pub(super) fn console_read(into: &mut [u8]) -> usize {
    let mut count = 0;
    while count < into.len() && read_register(5) & RECEIVED != 0 {
        into[count] = read_register(0);
        count += 1;
    }
    count
}
