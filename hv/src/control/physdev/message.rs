//! Message-signalled interrupts: what the hypervisor writes into a device so that it raises one.
//!
//! A guest never chooses the address and data of a message, for they are a write to the machine's memory: it says which
//! message of which device it wants, and the hypervisor writes capability or table. Source: PCI 3.0 §6.8.1 (MSI) and
//! §6.8.2 (MSI-X).

use pv_abi::MachineAddr;
use pv_abi::errno::Errno;

use crate::Hypervisor;
use crate::control::pci::Function;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::physdev as rule;

/// Capability ids.
const MSI: u8 = 5;
const MSI_X: u8 = 0x11;
/// Offset of the control word in both capabilities.
const CONTROL: u8 = 2;
/// MSI control: on; how many messages are on; 64-bit addresses; a mask bit a message.
const MSI_ENABLE: u32 = 1 << 0;
const MSI_COUNT: u32 = 7 << 4;
const MSI_WIDE: u32 = 1 << 7;
const MSI_MASKS: u32 = 1 << 8;
/// MSI-X control: on; all masked.
const MSI_X_ENABLE: u32 = 1 << 15;
const MSI_X_MASK_ALL: u32 = 1 << 14;
/// The command register, with memory decoding and the switch for the interrupt pin.
const COMMAND: u8 = 4;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_NO_PIN: u32 = 1 << 10;

/// A message that a device can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The device.
    pub(super) function: Function,
    /// Which of its messages.
    pub(super) kind: Kind,
}

/// MSI or MSI-X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The one MSI message; where the capability is.
    Single { capability: u8 },
    /// An entry of the MSI-X table; where capability and entry are.
    Entry { capability: u8, entry: MachineAddr },
}

impl Message {
    /// The MSI message of a device.
    ///
    /// # Errors
    /// `ENODEV` where it has none.
    pub(super) fn single<M: Machine>(hv: &Hypervisor<M>, function: Function) -> Result<Self, Refusal> {
        let capability = function.capability(hv, MSI).ok_or_else(|| missing(function))?;
        Ok(Self { function, kind: Kind::Single { capability } })
    }

    /// An entry of the MSI-X table of a device.
    ///
    /// # Errors
    /// `ENODEV` where it has no table, `EINVAL` where the table is shorter, `ENXIO` where it is not in memory that the
    /// device decodes.
    pub(super) fn entry<M: Machine>(hv: &Hypervisor<M>, function: Function, index: u32) -> Result<Self, Refusal> {
        let capability = function.capability(hv, MSI_X).ok_or_else(|| missing(function))?;
        let last = function.read(hv, capability + CONTROL, 2) & 0x7ff;
        if index > last {
            let evidence = Evidence::Limit { asked: index.into(), limit: last.into() };
            return Err(Refusal::errno(Errno::Inval, rule::MESSAGE_ENTRY).with(evidence));
        }
        let place = function.read(hv, capability + 4, 4);
        let table = base_address(hv, function, (place & 7) as u8).map(|base| base + u64::from(place & !7));
        let entry = MachineAddr(table.unwrap_or(0) + u64::from(index) * 16);
        let decodes = function.read(hv, COMMAND, 2) & COMMAND_MEMORY != 0;
        if table.is_none() || !decodes || !hv.machine.is_device_memory(entry) {
            return Err(Refusal::errno(Errno::Nxio, rule::MESSAGE_ENTRY).with(Evidence::Value(entry.0)));
        }
        Ok(Self { function, kind: Kind::Entry { capability, entry } })
    }

    /// Writes the message into the device; an entry of a table stays masked.
    pub(super) fn write<M: Machine>(self, hv: &Hypervisor<M>, address: u64, data: u32) {
        let Self { function, kind } = self;
        match kind {
            Kind::Single { capability } => {
                let control = function.read(hv, capability + CONTROL, 2);
                function.write(hv, capability + CONTROL, 2, control & !(MSI_ENABLE | MSI_COUNT));
                function.write(hv, capability + 4, 4, address as u32);
                let data_at = if control & MSI_WIDE != 0 {
                    function.write(hv, capability + 8, 4, (address >> 32) as u32);
                    capability + 12
                } else {
                    capability + 8
                };
                function.write(hv, data_at, 2, data);
            }
            Kind::Entry { capability, entry } => {
                let control = function.read(hv, capability + CONTROL, 2);
                function.write(hv, capability + CONTROL, 2, control | MSI_X_ENABLE | MSI_X_MASK_ALL);
                self.mask(hv, true);
                hv.machine.write_device(entry, address as u32);
                hv.machine.write_device(MachineAddr(entry.0 + 4), (address >> 32) as u32);
                hv.machine.write_device(MachineAddr(entry.0 + 8), data);
                function.write(hv, capability + CONTROL, 2, (control | MSI_X_ENABLE) & !MSI_X_MASK_ALL);
            }
        }
        let command = function.read(hv, COMMAND, 2);
        function.write(hv, COMMAND, 2, command | COMMAND_NO_PIN);
    }

    /// Lets the device send the message, or not.
    pub(super) fn mask<M: Machine>(self, hv: &Hypervisor<M>, masked: bool) {
        let Self { function, kind } = self;
        match kind {
            Kind::Single { capability } => {
                let control = function.read(hv, capability + CONTROL, 2);
                if control & MSI_MASKS != 0 {
                    let at = capability + if control & MSI_WIDE != 0 { 16 } else { 12 };
                    let bits = function.read(hv, at, 4);
                    function.write(hv, at, 4, bits & !1 | u32::from(masked));
                }
                let control = control & !MSI_ENABLE | if masked { 0 } else { MSI_ENABLE };
                function.write(hv, capability + CONTROL, 2, control);
            }
            Kind::Entry { entry, .. } => hv.machine.write_device(MachineAddr(entry.0 + 12), masked.into()),
        }
    }

    /// Switches the capability off: none of its messages is mapped any more.
    pub(super) fn switch_off<M: Machine>(self, hv: &Hypervisor<M>) {
        let (capability, bit) = match self.kind {
            Kind::Single { capability } => (capability, MSI_ENABLE),
            Kind::Entry { capability, .. } => (capability, MSI_X_ENABLE),
        };
        let control = self.function.read(hv, capability + CONTROL, 2);
        self.function.write(hv, capability + CONTROL, 2, control & !bit);
    }
}

/// The memory that a base-address register holds.
fn base_address<M: Machine>(hv: &Hypervisor<M>, function: Function, register: u8) -> Option<u64> {
    const IO: u32 = 1 << 0;
    const WIDE: u32 = 2 << 1;
    if register > 5 {
        return None;
    }
    let at = 0x10 + register * 4;
    let low = function.read(hv, at, 4);
    if low & IO != 0 {
        return None;
    }
    let high = if low & 6 == WIDE && register < 5 { function.read(hv, at + 4, 4) } else { 0 };
    let base = u64::from(high) << 32 | u64::from(low & !0xf);
    (base != 0).then_some(base)
}

#[cold]
fn missing(function: Function) -> Refusal {
    let place = u64::from(function.bus) << 8 | u64::from(function.devfn);
    Refusal::errno(Errno::NoDev, rule::NO_MESSAGE_CAPABILITY).with(Evidence::Value(place))
}
