//! A PC: the kernel as it was before the port, with privileged instructions. It uses one CPU.
//!
//! | file | holds |
//! |---|---|
//! | `entry.s`, `boot` | from the boot loader to the portable kernel: memory map, page tables |
//! | `paging` | page tables, CR3, INVLPG |
//! | `traps` | GDT, TSS, IDT, `syscall`, the PICs |
//! | `apic` | the local APIC, for calls from a CPU to itself |
//! | `lines` | which device waits for which interrupt line |
//! | `pci` | finds the devices on the PCI bus |
//! | `ata` | the disk |
//! | `ne2000` | the network card |
//! | `clock` | TSC, PIT, real-time clock |
//! | `console` | the 8250 on COM1 |
#![expect(unsafe_code, reason = "the machine is reached by privileged instructions")]

mod apic;
pub mod ata;
pub(in crate::platform) mod boot;
mod clock;
mod console;
mod lines;
pub mod ne2000;
pub(in crate::platform) mod paging;
pub mod pci;
pub(in crate::platform) mod traps;

use x86_64::instructions::interrupts as cpu;
use x86_64::instructions::port::Port;

pub use boot::native_entry;

use crate::mm::{Entry, EntryUpdate, Pfn};
use crate::platform::{Platform, Shutdown, TrapFrame};

/// A PC.
#[derive(Debug)]
pub struct Native;

impl Platform for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    #[inline]
    fn interrupts_disable(&self) -> bool {
        let were_on = cpu::are_enabled();
        cpu::disable();
        were_on
    }

    #[inline]
    fn interrupts_enable(&self) {
        cpu::enable();
    }

    fn wait_for_interrupt(&self) {
        cpu::enable_and_hlt();
        cpu::disable();
    }

    fn cpu(&self) -> usize {
        0
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn kick(&self, _cpu: usize) {
        apic::call_self();
    }

    fn cpu_down(&self) {}

    platform_in_files!();

    fn shutdown(&self, how: Shutdown) -> ! {
        cpu::disable();
        match how {
            // ACPI PM1a control of QEMU's two PC chipsets: sleep enable, type 0.
            // SAFETY: this port ends the machine, as is asked for; a machine that has it elsewhere stays on, idle.
            Shutdown::PowerOff => unsafe { Port::<u16>::new(0x604).write(0x2000) },
            // The reset control register: full reset.
            // SAFETY: as above.
            Shutdown::Reboot | Shutdown::Crash => unsafe { Port::<u8>::new(0xcf9).write(6) },
        }
        loop {
            x86_64::instructions::hlt();
        }
    }
}
