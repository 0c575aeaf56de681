//! The port to Xen: the same kernel, deprivileged.
//!
//! | on a PC | here | file |
//! |---|---|---|
//! | boot loader, memory map | start_info, p2m list, tables that Xen built | `boot`, `shared` |
//! | physical addresses | pfns, and the machine frames behind them | `p2m` |
//! | writing a page table, CR3, INVLPG | `mmu_update`, `mmuext_op`, `update_va_mapping` | `paging` |
//! | IDT, TSS, `syscall` MSRs, `iretq` | trap table, callbacks, `stack_switch`, `iret` hypercall | `traps`, `entry.s` |
//! | CLI, STI, HLT | the upcall mask byte, `sched_op` block | this file |
//! | interrupt controller | event channels | `events` |
//! | GS, `rdmsr` of the APIC's number | GS, vcpu_info at its base | `percpu` |
//! | INIT-SIPI, inter-processor interrupts | `vcpu_op`, event channels between vCPUs | `cpus` |
//! | PIT, TSC calibration | vcpu_time_info, single-shot timer | `clock` |
//! | UART | console ring, or `console_io` for the first domain | `console` |
//! | device memory, DMA | foreign mappings, frames exchanged for contiguous ones | `foreign`, `memory` |
//! | – | grant tables: sharing pages with other domains | `grants` |
//! | suspend to RAM | `sched_op` shutdown with the reason suspend | `suspend` |
//! | memory hot-plug | giving memory to Xen and taking it again | `balloon` |
#![expect(unsafe_code, reason = "the platform is reached by hypercalls and shared memory")]

pub mod balloon;
mod boot;
pub(in crate::platform) mod clock;
pub(in crate::platform) mod console;
pub mod cpus;
pub mod events;
pub mod foreign;
pub mod grants;
pub mod hal;
pub mod hypercall;
pub mod memory;
pub mod p2m;
mod paging;
pub(in crate::platform) mod percpu;
pub(in crate::platform) mod shared;
pub mod store;
pub mod suspend;
mod traps;

use core::sync::atomic::{Ordering, compiler_fence};

use pv_abi::sched::{
    SCHEDOP_BLOCK, SCHEDOP_SHUTDOWN, SCHEDOP_YIELD, SHUTDOWN_CRASH, SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT, SchedShutdown,
};
use pv_abi::xen;

pub use boot::pv_entry;
pub use shared::{RingPage, console_ring, is_initial_domain, start_info, store_ring};

use crate::mm::{Entry, EntryUpdate, Pfn};
use crate::platform::{Platform, Shutdown, TrapFrame};

/// Xen.
#[derive(Debug)]
pub struct Pv;

impl Platform for Pv {
    fn name(&self) -> &'static str {
        "pv"
    }

    #[inline]
    fn interrupts_disable(&self) -> bool {
        let before = percpu::mask_events();
        compiler_fence(Ordering::SeqCst);
        before
    }

    #[inline]
    fn interrupts_enable(&self) {
        compiler_fence(Ordering::SeqCst);
        if percpu::unmask_events() {
            // Clearing the mask delivers nothing by itself; returning from any hypercall does.
            let _ = hypercall::version();
        }
    }

    fn wait_for_interrupt(&self) {
        let args = [u64::from(SCHEDOP_BLOCK), 0, 0, 0, 0];
        // SAFETY: no memory is involved. Xen clears the mask and sleeps in one step.
        unsafe { hypercall::raw(xen::HYPERVISOR_SCHED_OP, args) };
        self.interrupts_disable();
    }

    #[inline]
    fn cpu(&self) -> usize {
        percpu::number()
    }

    fn relax(&self) {
        give_way();
    }

    fn kick(&self, cpu: usize) {
        cpus::call(cpu);
    }

    fn cpu_down(&self) {
        cpus::go_down();
    }

    platform_in_files!();

    fn shutdown(&self, how: Shutdown) -> ! {
        end(how)
    }
}

/// Ends the domain.
pub(super) fn end(how: Shutdown) -> ! {
    let reason = match how {
        Shutdown::PowerOff => SHUTDOWN_POWEROFF,
        Shutdown::Reboot => SHUTDOWN_REBOOT,
        Shutdown::Crash => SHUTDOWN_CRASH,
    };
    console::drain();
    loop {
        let mut argument = SchedShutdown { reason };
        // SAFETY: Xen reads the struct and does not return.
        let _ = unsafe { hypercall::operation(xen::HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN, &mut argument) };
    }
}

/// Lets other vCPUs run.
pub(super) fn give_way() {
    let args = [u64::from(SCHEDOP_YIELD), 0, 0, 0, 0];
    // SAFETY: no memory is involved.
    unsafe { hypercall::raw(xen::HYPERVISOR_SCHED_OP, args) };
}
