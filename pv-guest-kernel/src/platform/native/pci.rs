//! Finds devices on the first PCI bus, by configuration mechanism 1 (PCI Local Bus 3.0, §3.2.2.3.2).

use x86_64::instructions::port::Port;

use crate::sync::IrqGuard;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

/// Command register: answer to ports, act as bus master.
const COMMAND_IO: u32 = 1;
const COMMAND_MASTER: u32 = 1 << 2;

/// A function of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Function {
    device: u8,
    function: u8,
}

impl Function {
    /// Reads 32 bits of the configuration; `offset` is a multiple of 4.
    fn read(self, offset: u8) -> u32 {
        let _irq = IrqGuard::new();
        self.select(offset);
        // SAFETY: reads the register that was selected; it has no effect on memory.
        unsafe { Port::new(DATA).read() }
    }

    fn write(self, offset: u8, value: u32) {
        let _irq = IrqGuard::new();
        self.select(offset);
        // SAFETY: written are command registers, to let a driver use its device.
        unsafe { Port::new(DATA).write(value) }
    }

    fn select(self, offset: u8) {
        let address = 1 << 31 | u32::from(self.device) << 11 | u32::from(self.function) << 8 | u32::from(offset & 0xfc);
        // SAFETY: selects a register; nothing else happens.
        unsafe { Port::new(ADDRESS).write(address) }
    }

    /// Vendor, and device << 16.
    pub(super) fn id(self) -> u32 {
        self.read(0)
    }

    /// Class << 8 | subclass.
    pub(super) fn class(self) -> u16 {
        (self.read(8) >> 16) as u16
    }

    /// The first port of a base address register, if it names ports.
    pub(super) fn ports(self, register: u8) -> Option<u16> {
        let value = self.read(0x10 + register * 4);
        (value & 1 != 0 && value & 0xfffc != 0).then_some((value & 0xfffc) as u16)
    }

    /// The line of the PICs that the firmware connected its interrupt to.
    pub(super) fn line(self) -> u8 {
        self.read(0x3c) as u8
    }

    /// Lets the device answer to its ports and reach memory.
    pub(super) fn enable(self) {
        self.write(4, self.read(4) & 0xffff | COMMAND_IO | COMMAND_MASTER);
    }
}

/// The first function of the bus for which `wanted` holds.
pub(super) fn find(wanted: impl Fn(Function) -> bool) -> Option<Function> {
    let functions = (0..32).flat_map(|device| (0..8).map(move |function| Function { device, function }));
    functions.filter(|function| function.id() & 0xffff != 0xffff).find(|function| wanted(*function))
}
