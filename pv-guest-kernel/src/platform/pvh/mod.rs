//! A Xen guest with hardware assistance: the CPU as on a PC, with page tables and descriptor tables of the kernel's own;
//! interrupts, time and devices as a PV guest has them. It uses one CPU.
//!
//! | what | whose |
//! |---|---|
//! | page tables, traps, `syscall` | `native` |
//! | event channels, clock, console, grants, store, drivers | `pv` |
//! | hypercalls: stubs in a page, which MSR 0x40000000 fills | `pv`, `boot` |
//! | start_info, shared page, grant table: parameters, and guest frames that the kernel chooses | `boot` |
//!
//! Source: Xen `public/arch-x86/hvm/start_info.h`, `public/hvm/params.h`, `public/arch-x86/cpuid.h`.
#![expect(unsafe_code, reason = "the machine is reached by privileged instructions, the hypervisor by its stubs")]

pub(super) mod boot;

use x86_64::instructions::interrupts;

pub(super) use boot::find_hypervisor;

use super::native::{paging, traps};
use super::pv::{self, clock, console};
use crate::mm::{Entry, EntryUpdate, Pfn};
use crate::platform::{Platform, Shutdown, TrapFrame};

/// Xen, with hardware assistance.
#[derive(Debug)]
pub struct Pvh;

impl Platform for Pvh {
    fn name(&self) -> &'static str {
        "pvh"
    }

    #[inline]
    fn interrupts_disable(&self) -> bool {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        were_on
    }

    #[inline]
    fn interrupts_enable(&self) {
        interrupts::enable();
    }

    fn wait_for_interrupt(&self) {
        interrupts::enable_and_hlt();
        interrupts::disable();
    }

    #[inline]
    fn cpu(&self) -> usize {
        pv::percpu::number()
    }

    fn relax(&self) {
        pv::give_way();
    }

    fn kick(&self, cpu: usize) {
        pv::cpus::call(cpu);
    }

    fn cpu_down(&self) {}

    platform_in_files!();

    fn shutdown(&self, how: Shutdown) -> ! {
        interrupts::disable();
        pv::end(how)
    }
}
