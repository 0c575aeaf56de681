//! A PC: the kernel as it was before the port, with privileged instructions. It uses one CPU.
//!
//! | file | holds |
//! |---|---|
//! | `entry.s`, `boot` | from the boot loader to the portable kernel: memory map, page tables |
//! | `paging` | page tables, CR3, INVLPG |
//! | `interrupts` | GDT, TSS, IDT, `syscall`, the PICs |
//! | `clock` | TSC, PIT, real-time clock |
//! | `serial` | the 8250 on COM1 |
#![expect(unsafe_code, reason = "the machine is reached by privileged instructions")]

mod boot;
mod clock;
mod interrupts;
mod paging;
mod serial;

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

    fn kick(&self, _cpu: usize) {}

    fn cpu_down(&self) {}

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
        serial::write(bytes);
    }

    fn console_read(&self, into: &mut [u8]) -> usize {
        serial::read(into)
    }

    fn prepare_user(&self, kernel_stack_top: usize, root: Option<Pfn>) {
        interrupts::set_kernel_stack(kernel_stack_top);
        paging::load(root.unwrap_or_else(paging::kernel_root));
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

    fn flush_user(&self, _root: Pfn, addr: Option<usize>) {
        match addr {
            Some(addr) => paging::flush_page(addr),
            None => paging::flush_user(),
        }
    }

    fn user_frame(&self, entry: usize, stack: usize) -> TrapFrame {
        TrapFrame {
            rip: entry as u64,
            cs: interrupts::USER_CODE.into(),
            // Bit 1 is always set; IF is on.
            rflags: 0x202,
            rsp: stack as u64,
            ss: interrupts::USER_DATA.into(),
            ..TrapFrame::default()
        }
    }

    fn enter_user(&self, frame: &TrapFrame) -> ! {
        interrupts::enter_frame(frame)
    }

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
