//! Page tables on a PC: an entry is written, a stale translation is flushed, and that is all.

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::PhysAddr;
use x86_64::VirtAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::traps;
use crate::mm::{Entry, EntryUpdate, Pfn, phys};

static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);

pub(in crate::platform) fn set_kernel_root(root: Pfn) {
    KERNEL_ROOT.store(root.0, Ordering::Relaxed);
}

pub(in crate::platform) fn kernel_root() -> Pfn {
    Pfn(KERNEL_ROOT.load(Ordering::Relaxed))
}

pub(in crate::platform) fn read_entry(table: Pfn, index: usize) -> Entry {
    let bits = phys::read_u64(table, index);
    let entry = Entry::new(Pfn(Entry::frame_in(bits)), Entry::flags_in(bits));
    if entry.is_present() { entry } else { Entry::ABSENT }
}

pub(in crate::platform) fn write_entries(updates: &[EntryUpdate]) {
    for update in updates {
        let bits = update.entry.bits_with_frame(update.entry.pfn.0);
        phys::write_u64(update.table, update.index, bits);
    }
}

/// A top-level table shares the kernel's half with all others.
pub(in crate::platform) fn make_table(table: Pfn, level: u8) {
    if level == 4 {
        for index in 256..512 {
            phys::write_u64(table, index, phys::read_u64(kernel_root(), index));
        }
    }
}

/// A table in use as the root is left first.
pub(in crate::platform) fn retire_tables(tables: &[(Pfn, u8)]) {
    if tables.iter().any(|(table, _)| *table == loaded()) {
        load(kernel_root());
    }
}

fn loaded() -> Pfn {
    Pfn(Cr3::read().0.start_address().as_u64() >> 12)
}

/// Loads a top-level table, if it is another one.
pub(in crate::platform) fn load(root: Pfn) {
    if loaded() != root {
        let frame = PhysFrame::containing_address(PhysAddr::new(root.0 << 12));
        // SAFETY: each root has the kernel's half, in which this code and its stack lie.
        unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    }
}

pub(in crate::platform) fn flush_page(addr: usize) {
    tlb::flush(VirtAddr::new_truncate(addr as u64));
}

/// The next entry from user mode lands on `kernel_stack_top`, and user mode runs in `root`.
pub(in crate::platform) fn prepare_user(kernel_stack_top: usize, root: Option<Pfn>) {
    traps::set_kernel_stack(kernel_stack_top);
    load(root.unwrap_or_else(kernel_root));
}

/// One CPU: nothing but its own translations is there to forget, and they are those of `_root`.
pub(in crate::platform) fn flush_user(_root: Pfn, addr: Option<usize>) {
    match addr {
        Some(addr) => flush_page(addr),
        None => tlb::flush_all(),
    }
}
