//! PCI configuration space by mechanism 1, and the clock's index and data ports.
//!
//! Both are an index and a data port that the hypervisor and dom0 share, so each access sets the index anew under a lock.
//! Source: PCI 3.0 §3.2.2.3.2, §6.8.

use crate::Hypervisor;
use crate::hardware::Machine;

/// The address port.
const ADDRESS: u16 = 0xcf8;
/// The data window.
const DATA: u16 = 0xcfc;
/// The bit that makes an address one of configuration space.
const ENABLE: u32 = 1 << 31;

/// A function of a device on the first segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Bus.
    pub(crate) bus: u8,
    /// Device (upper five bits) and function.
    pub(crate) devfn: u8,
}

impl Function {
    const fn address(self, register: u8) -> u32 {
        ENABLE | (self.bus as u32) << 16 | (self.devfn as u32) << 8 | (register & 0xfc) as u32
    }

    /// Reads 1, 2 or 4 bytes of its configuration space.
    pub(crate) fn read<M: Machine>(self, hv: &Hypervisor<M>, register: u8, bytes: u8) -> u32 {
        read(hv, self.address(register), register & 3, bytes)
    }

    /// Writes 1, 2 or 4 bytes of its configuration space.
    pub(crate) fn write<M: Machine>(self, hv: &Hypervisor<M>, register: u8, bytes: u8, value: u32) {
        write(hv, self.address(register), register & 3, bytes, value);
    }

    /// Finds a capability by its id.
    pub(crate) fn capability<M: Machine>(self, hv: &Hypervisor<M>, id: u8) -> Option<u8> {
        const STATUS: u8 = 6;
        const HAS_LIST: u32 = 1 << 4;
        const LIST: u8 = 0x34;
        if self.read(hv, 0, 2) == 0xffff || self.read(hv, STATUS, 2) & HAS_LIST == 0 {
            return None;
        }
        let mut at = self.read(hv, LIST, 1) as u8 & 0xfc;
        for _ in 0..48 {
            if at < 0x40 {
                return None;
            }
            if self.read(hv, at, 1) as u8 == id {
                return Some(at);
            }
            at = self.read(hv, at + 1, 1) as u8 & 0xfc;
        }
        None
    }
}

/// Reads from the data window at `offset` with this address register.
pub(crate) fn read<M: Machine>(hv: &Hypervisor<M>, address: u32, offset: u8, bytes: u8) -> u32 {
    if address & ENABLE == 0 {
        return u32::MAX;
    }
    let _guard = hv.interrupts.shared_ports.lock();
    hv.machine.write_port(ADDRESS, 4, address & !3);
    hv.machine.read_port(DATA + u16::from(offset), bytes)
}

/// Writes to the data window at `offset` with this address register.
pub(crate) fn write<M: Machine>(hv: &Hypervisor<M>, address: u32, offset: u8, bytes: u8, value: u32) {
    if address & ENABLE == 0 {
        return;
    }
    let _guard = hv.interrupts.shared_ports.lock();
    hv.machine.write_port(ADDRESS, 4, address & !3);
    hv.machine.write_port(DATA + u16::from(offset), bytes, value);
}

/// Reads a register of the clock.
pub(crate) fn read_clock<M: Machine>(hv: &Hypervisor<M>, index: u8) -> u8 {
    let _guard = hv.interrupts.shared_ports.lock();
    hv.machine.write_port(0x70, 1, index.into());
    hv.machine.read_port(0x71, 1) as u8
}

/// Writes a register of the clock.
pub(crate) fn write_clock<M: Machine>(hv: &Hypervisor<M>, index: u8, value: u8) {
    let _guard = hv.interrupts.shared_ports.lock();
    hv.machine.write_port(0x70, 1, index.into());
    hv.machine.write_port(0x71, 1, value.into());
}
