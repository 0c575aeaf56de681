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
mod clock;
mod console;
pub mod cpus;
pub mod events;
pub mod foreign;
pub mod grants;
pub mod hal;
pub mod hypercall;
pub mod memory;
pub mod p2m;
mod paging;
mod percpu;
mod shared;
pub mod store;
pub mod suspend;
mod traps;

use core::sync::atomic::{Ordering, compiler_fence};

use pv_abi::arch::{FLAT_USER_CS, FLAT_USER_SS};
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
            // SAFETY: asks for the version; no memory is involved.
            unsafe { hypercall::raw(xen::HYPERVISOR_XEN_VERSION, [0; 5]) };
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
        let args = [u64::from(SCHEDOP_YIELD), 0, 0, 0, 0];
        // SAFETY: no memory is involved.
        unsafe { hypercall::raw(xen::HYPERVISOR_SCHED_OP, args) };
    }

    fn kick(&self, cpu: usize) {
        cpus::call(cpu);
    }

    fn cpu_down(&self) {
        cpus::go_down();
    }

    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }

    fn wall_clock_ns(&self) -> u64 {
        clock::wall_clock_ns()
    }

    fn set_timer(&self, deadline_ns: u64) {
        clock::set_timer(deadline_ns);
    }

    fn console_write(&self, bytes: &[u8]) {
        console::write(bytes);
    }

    fn console_read(&self, into: &mut [u8]) -> usize {
        console::read(into)
    }

    fn prepare_user(&self, kernel_stack_top: usize, root: Option<Pfn>) {
        paging::prepare_user(kernel_stack_top, root);
    }

    fn kernel_root(&self) -> Pfn {
        paging::kernel_root()
    }

    fn read_entry(&self, table: Pfn, index: usize) -> Entry {
        paging::read_entry(table, index)
    }

    fn write_entries(&self, updates: &[EntryUpdate]) {
        paging::write_entries(updates);
    }

    fn make_table(&self, table: Pfn, level: u8) {
        paging::make_table(table, level);
    }

    fn retire_tables(&self, tables: &[(Pfn, u8)]) {
        paging::retire_tables(tables);
    }

    fn flush_page(&self, addr: usize) {
        paging::flush_page(addr);
    }

    fn flush_user(&self, root: Pfn, addr: Option<usize>) {
        paging::flush_user(root, addr);
    }

    fn user_frame(&self, entry: usize, stack: usize) -> TrapFrame {
        TrapFrame {
            rip: entry as u64,
            cs: FLAT_USER_CS.into(),
            // Bit 1 is always set; IF stands for unmasked events.
            rflags: 0x202,
            rsp: stack as u64,
            ss: FLAT_USER_SS.into(),
            ..TrapFrame::default()
        }
    }

    fn enter_user(&self, frame: &TrapFrame) -> ! {
        traps::enter_frame(frame)
    }

    fn shutdown(&self, how: Shutdown) -> ! {
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
}
