//! I/O ports.

use x86_64::instructions::port::Port;

/// Reads a byte.
pub(crate) fn read8(port: u16) -> u8 {
    // SAFETY: the hypervisor owns the machine's ports, and lets a guest have those its permissions name.
    unsafe { Port::<u8>::new(port).read() }
}

/// Reads two bytes.
pub(crate) fn read16(port: u16) -> u16 {
    // SAFETY: as in `read8`.
    unsafe { Port::<u16>::new(port).read() }
}

/// Reads four bytes.
pub(crate) fn read32(port: u16) -> u32 {
    // SAFETY: as in `read8`.
    unsafe { Port::<u32>::new(port).read() }
}

/// Writes a byte.
pub(crate) fn write8(port: u16, value: u8) {
    // SAFETY: as in `read8`.
    unsafe { Port::<u8>::new(port).write(value) }
}

/// Writes two bytes.
pub(crate) fn write16(port: u16, value: u16) {
    // SAFETY: as in `read8`.
    unsafe { Port::<u16>::new(port).write(value) }
}

/// Writes four bytes.
pub(crate) fn write32(port: u16, value: u32) {
    // SAFETY: as in `read8`.
    unsafe { Port::<u32>::new(port).write(value) }
}
