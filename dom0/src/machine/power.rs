//! Switching the machine off.
//!
//! Source: Xen `public/platform.h` (`XENPF_enter_acpi_sleep`).
#![expect(unsafe_code, reason = "the hypervisor is told to switch off")]

use alloc::vec::Vec;

use dom0::acpi::{self, Memory};
use pv_abi::platform::{PlatformOp, XENPF_ENTER_ACPI_SLEEP, XENPF_INTERFACE_VERSION, XenpfEnterAcpiSleep};
use pv_abi::xen::HYPERVISOR_PLATFORM_OP;
use pv_guest_kernel::mm::PAGE_SIZE;
use pv_guest_kernel::platform::pv::foreign::ForeignMapping;
use pv_guest_kernel::platform::pv::hypercall;
use zerocopy::{FromZeros, IntoBytes};

/// Machine memory that is no guest's.
struct MachineMemory;

impl Memory for MachineMemory {
    fn read(&mut self, start: u64, len: usize) -> Option<Vec<u8>> {
        let mapping = ForeignMapping::of_device(start, len).ok()?;
        let mut bytes = alloc::vec![0; len];
        mapping.read(start as usize % PAGE_SIZE, &mut bytes);
        Some(bytes)
    }
}

/// Switches the machine off, if its tables say how. Returns if they do not, or the hypervisor will not.
pub(crate) fn off() {
    let Some(values) = acpi::power_off(&mut MachineMemory) else {
        return;
    };
    let mut payload = XenpfEnterAcpiSleep::new_zeroed();
    payload.val_a = values.a;
    payload.val_b = values.b;
    payload.sleep_state = 5;
    let mut argument = PlatformOp::new_zeroed();
    argument.cmd = XENPF_ENTER_ACPI_SLEEP;
    argument.interface_version = XENPF_INTERFACE_VERSION;
    argument.u[..size_of_val(&payload)].copy_from_slice(payload.as_bytes());
    let args = [&raw mut argument as u64, 0, 0, 0, 0];
    // SAFETY: the hypervisor reads the struct; no memory of this domain changes.
    if let Err(errno) = unsafe { hypercall::call(HYPERVISOR_PLATFORM_OP, args) } {
        log::info!("the hypervisor does not switch off by ACPI: {errno:?}");
    }
}
