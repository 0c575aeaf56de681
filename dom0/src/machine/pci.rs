//! PCI devices, through the configuration ports.
//!
//! The first domain may use the ports once it has raised its I/O privilege level; the hypervisor carries each access
//! out and keeps what is its own.
//!
//! Source: PCI Local Bus 3.0 §3.2.2.3.2; Xen `public/physdev.h`.
#![expect(unsafe_code, reason = "port instructions reach the hardware")]

use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;

use pv_abi::physdev::{PHYSDEVOP_SET_IOPL, PhysdevSetIopl};
use pv_abi::xen::HYPERVISOR_PHYSDEV_OP;
use pv_guest_kernel::platform::pv::hypercall;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

use super::dma::DmaHal;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;
const INTERRUPT_LINE: u8 = 0x3c;
/// Buses that are looked at.
const BUSES: u8 = 8;

/// The configuration ports.
#[derive(Debug)]
pub(crate) struct Ports(());

impl Ports {
    /// Asks for the right to use ports.
    ///
    /// # Errors
    /// One line: the hypervisor refuses.
    pub(crate) fn open() -> Result<Self, String> {
        let mut argument = PhysdevSetIopl { iopl: 1 };
        // SAFETY: the struct of this operation; no memory changes.
        let result = unsafe { hypercall::operation(HYPERVISOR_PHYSDEV_OP, PHYSDEVOP_SET_IOPL, &mut argument) };
        result.map(|_| Self(())).map_err(|errno| alloc::format!("the hypervisor refuses access to ports: {errno:?}"))
    }

    fn select(device: DeviceFunction, register: u8) {
        let place = u32::from(device.bus) << 16 | u32::from(device.device) << 11 | u32::from(device.function) << 8;
        let address = ENABLE | place | u32::from(register & 0xfc);
        // SAFETY: selects a register of the configuration space; nothing else uses this port here.
        unsafe {
            asm!("out dx, eax", in("dx") CONFIG_ADDRESS, in("eax") address, options(nomem, nostack, preserves_flags))
        };
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, device: DeviceFunction, register: u8) -> u32 {
        Self::select(device, register);
        let word: u32;
        // SAFETY: reads the selected register.
        unsafe { asm!("in eax, dx", in("dx") CONFIG_DATA, out("eax") word, options(nomem, nostack, preserves_flags)) };
        word
    }

    fn write_word(&mut self, device: DeviceFunction, register: u8, data: u32) {
        Self::select(device, register);
        // SAFETY: writes the selected register of a device that this domain owns.
        unsafe { asm!("out dx, eax", in("dx") CONFIG_DATA, in("eax") data, options(nomem, nostack, preserves_flags)) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(())
    }
}

/// A virtio device, ready for its driver.
pub(crate) struct VirtioDevice {
    /// What it is.
    pub(crate) kind: DeviceType,
    /// Its registers.
    pub(crate) transport: PciTransport,
    /// The interrupt line the firmware gave it, if it has one.
    pub(crate) line: Option<u32>,
}

/// Finds the virtio devices, in the order of their places.
///
/// # Errors
/// One line: the hypervisor does not let this domain look.
pub(crate) fn virtio_devices() -> Result<Vec<VirtioDevice>, String> {
    let mut root = PciRoot::new(Ports::open()?);
    let mut found = Vec::new();
    for bus in 0..BUSES {
        let present: Vec<_> = root.enumerate_bus(bus).collect();
        for (place, info) in present {
            let Some(kind) = virtio_device_type(&info) else {
                continue;
            };
            root.set_command(place, Command::MEMORY_SPACE | Command::BUS_MASTER);
            let line = root_word(place, INTERRUPT_LINE) & 0xff;
            match PciTransport::new::<DmaHal, _>(&mut root, place) {
                Ok(transport) => {
                    let line = (1..=254).contains(&line).then_some(line);
                    found.push(VirtioDevice { kind, transport, line });
                }
                Err(error) => {
                    log::warn!("pci {place}: virtio device without modern interface: {error}")
                }
            }
        }
    }
    Ok(found)
}

fn root_word(place: DeviceFunction, register: u8) -> u32 {
    Ports(()).read_word(place, register)
}
