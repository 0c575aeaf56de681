//! PCI bus 0: the configuration spaces of the functions on it.
//!
//! A function is 256 bytes and a mask of what a guest can write there. That is all a configuration space is to the bus;
//! who wants to know what was set, where a base address is or whether it is on, asks.
//!
//! Source: PCI Local Bus 2.2, chapter 6; Intel 82441FX, 82371SB (PIIX3); Realtek RTL8029AS.

use alloc::vec::Vec;

const COMMAND: usize = 0x04;
const BARS: usize = 0x10;
const LINE: usize = 0x3c;
/// Command: I/O ports are on.
const IO: u8 = 1 << 0;

/// Device and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 0 to 31.
    pub device: u8,
    /// 0 to 7.
    pub function: u8,
}

/// A function's configuration space.
#[derive(Clone, Debug)]
pub struct Function {
    /// Where it is.
    pub place: Place,
    bytes: [u8; 256],
    writable: [u8; 256],
}

impl Function {
    /// A function by vendor, device and class code (class, subclass, interface), with nothing that can be written but the
    /// command's ports, memory, master and interrupt bits, and what firmware keeps in the interrupt line.
    #[must_use]
    pub fn new(place: Place, vendor: u16, device: u16, class: [u8; 3]) -> Self {
        let mut function = Self { place, bytes: [0; 256], writable: [0; 256] };
        function.bytes[..2].copy_from_slice(&vendor.to_le_bytes());
        function.bytes[2..4].copy_from_slice(&device.to_le_bytes());
        function.bytes[0x09..0x0c].copy_from_slice(&[class[2], class[1], class[0]]);
        function.writable[COMMAND..COMMAND + 2].copy_from_slice(&[0x07, 0x04]);
        function.writable[LINE] = 0xff;
        function
    }

    /// Sets bytes, and which of their bits can be written.
    #[must_use]
    pub fn with(mut self, at: u8, bytes: &[u8], writable: u8) -> Self {
        for (place, byte) in (usize::from(at)..256).zip(bytes) {
            (self.bytes[place], self.writable[place]) = (*byte, writable);
        }
        self
    }

    /// Gives it a range of I/O ports, a power of two of at least four, that is on.
    #[must_use]
    pub fn with_ports(mut self, bar: usize, base: u16, count: u16) -> Self {
        let at = BARS + 4 * (bar % 6);
        self.bytes[at..at + 4].copy_from_slice(&(u32::from(base) | 1).to_le_bytes());
        self.writable[at..at + 4].copy_from_slice(&(!(u32::from(count) - 1)).to_le_bytes());
        self.bytes[COMMAND] |= IO;
        self
    }

    /// Gives it an interrupt pin (1 for A) and what firmware says of the line.
    #[must_use]
    pub fn with_pin(mut self, pin: u8, line: u8) -> Self {
        (self.bytes[LINE], self.bytes[LINE + 1]) = (line, pin);
        self
    }

    /// The first port of a range, where it is on and below 64 Ki.
    #[must_use]
    pub fn ports(&self, bar: usize) -> Option<u16> {
        let at = BARS + 4 * (bar % 6);
        let base =
            u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]]) & !3;
        (self.bytes[COMMAND] & IO != 0 && base != 0).then(|| u16::try_from(base).ok()).flatten()
    }

    /// A byte.
    #[must_use]
    pub fn byte(&self, at: u8) -> u8 {
        self.bytes[usize::from(at)]
    }

    fn write(&mut self, at: u8, byte: u8) {
        let at = usize::from(at);
        self.bytes[at] = self.bytes[at] & !self.writable[at] | byte & self.writable[at];
    }
}

/// The bus.
#[derive(Clone, Debug, Default)]
pub struct Bus {
    functions: Vec<Function>,
}

impl Bus {
    /// Puts a function on it.
    pub fn add(&mut self, function: Function) {
        self.functions.push(function);
    }

    /// The functions.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The function at a place.
    #[must_use]
    pub fn at(&self, place: Place) -> Option<&Function> {
        self.functions.iter().find(|function| function.place == place)
    }

    /// Reads 1 to 4 bytes of a configuration space; ones where nothing is.
    #[must_use]
    pub fn read(&self, place: Place, offset: u32, size: u32) -> u32 {
        let mut bytes = [0xff; 4];
        if let (Some(function), Ok(first)) = (self.at(place), u8::try_from(offset)) {
            for (byte, at) in bytes.iter_mut().zip(first..=u8::MAX).take(size as usize) {
                *byte = function.byte(at);
            }
        }
        u32::from_le_bytes(bytes)
    }

    /// Writes 1 to 4 bytes.
    pub fn write(&mut self, place: Place, offset: u32, size: u32, value: u32) {
        let found = self.functions.iter_mut().find(|function| function.place == place);
        let (Some(function), Ok(first)) = (found, u8::try_from(offset)) else {
            return;
        };
        for (byte, at) in value.to_le_bytes().into_iter().zip(first..=u8::MAX).take(size as usize) {
            function.write(at, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = Place { device: 3, function: 0 };

    fn bus() -> Bus {
        let card = Function::new(PLACE, 0x10ec, 0x8029, [2, 0, 0]).with_ports(0, 0xc000, 0x20).with_pin(1, 11);
        Bus { functions: alloc::vec![card] }
    }

    #[test]
    fn a_function_says_what_it_is() {
        let bus = bus();
        assert_eq!(bus.read(PLACE, 0, 4), 0x8029_10ec);
        assert_eq!(bus.read(PLACE, 8, 4), 0x0200_0000);
        assert_eq!(bus.read(PLACE, 0x3c, 2) & 0xffff, 0x010b);
        assert_eq!(bus.read(PLACE, 2, 2) & 0xffff, 0x8029);
    }

    #[test]
    fn where_nothing_is_all_bits_are_set() {
        let mut bus = bus();
        bus.write(Place { device: 4, function: 0 }, 4, 4, 0);
        assert_eq!(bus.read(Place { device: 4, function: 0 }, 0, 4), u32::MAX);
        assert_eq!(bus.read(PLACE, 0x100, 4), u32::MAX);
        assert_eq!(bus.read(PLACE, u32::MAX, 4), u32::MAX);
    }

    #[test]
    fn the_size_of_its_ports_is_what_stays_unset() {
        let mut bus = bus();
        bus.write(PLACE, 0x10, 4, u32::MAX);
        assert_eq!(bus.read(PLACE, 0x10, 4), 0xffff_ffe1);
        assert_eq!(bus.at(PLACE).unwrap().ports(0), None);
        bus.write(PLACE, 0x10, 4, 0xd005);
        assert_eq!(bus.at(PLACE).unwrap().ports(0), Some(0xd000));
        bus.write(PLACE, 4, 1, 0);
        assert_eq!(bus.at(PLACE).unwrap().ports(0), None);
    }

    proptest! {
        #[test]
        fn whatever_is_written_it_stays_what_it_is(
            steps in proptest::collection::vec((any::<u32>(), 0_u32..5, any::<u32>()), 0..100)
        ) {
            let mut bus = bus();
            for (offset, size, value) in steps {
                bus.write(PLACE, offset & 0x1ff, size, value);
                let _ = bus.read(PLACE, offset & 0x1ff, size);
                prop_assert_eq!(bus.read(PLACE, 0, 4), 0x8029_10ec);
                prop_assert_eq!(bus.read(PLACE, 8, 4), 0x0200_0000);
            }
        }
    }
}
