//! No machine at all: what the portable kernel meets when its tests run on a host, and before an entry has run.

use crate::mm::{Entry, EntryUpdate, Pfn};
use crate::platform::{Platform, Shutdown, TrapFrame};

/// Has neither interrupts nor page tables.
#[derive(Debug)]
pub(super) struct Host;

impl Platform for Host {
    fn name(&self) -> &'static str {
        "host"
    }
    fn interrupts_disable(&self) -> bool {
        false
    }
    fn interrupts_enable(&self) {}
    fn wait_for_interrupt(&self) {}
    fn cpu(&self) -> usize {
        0
    }
    fn relax(&self) {
        core::hint::spin_loop();
    }
    fn kick(&self, _cpu: usize) {}
    fn cpu_down(&self) {}
    fn now_ns(&self) -> u64 {
        0
    }
    fn wall_clock_ns(&self) -> u64 {
        0
    }
    fn set_timer(&self, _deadline_ns: u64) {}
    fn console_write(&self, _bytes: &[u8]) {}
    fn console_read(&self, _into: &mut [u8]) -> usize {
        0
    }
    fn prepare_user(&self, _kernel_stack_top: usize, _root: Option<Pfn>) {}
    fn kernel_root(&self) -> Pfn {
        Pfn(0)
    }
    fn read_entry(&self, _table: Pfn, _index: usize) -> Entry {
        Entry::ABSENT
    }
    fn write_entries(&self, _updates: &[EntryUpdate]) {}
    fn make_table(&self, _table: Pfn, _level: u8) {}
    fn retire_tables(&self, _tables: &[(Pfn, u8)]) {}
    fn flush_page(&self, _addr: usize) {}
    fn flush_user(&self, _root: Pfn, _addr: Option<usize>) {}
    fn user_frame(&self, _entry: usize, _stack: usize) -> TrapFrame {
        TrapFrame::default()
    }
    fn enter_user(&self, frame: &TrapFrame) -> ! {
        panic!("a host has no user mode: {frame:?}")
    }
    fn shutdown(&self, how: Shutdown) -> ! {
        panic!("a kernel without a machine shut down: {how:?}")
    }
}
