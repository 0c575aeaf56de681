//! The kernel's [`Mmu`]: its frames, and the platform's page tables.

use core::sync::atomic::{AtomicU64, Ordering};

use super::frames::FRAMES;
use super::space::Mmu;
use super::{Entry, EntryUpdate, Pfn, phys};
use crate::platform;

static ENTRIES_WRITTEN: AtomicU64 = AtomicU64::new(0);

/// How many entries of page tables were written for processes.
#[must_use]
pub fn entries_written() -> u64 {
    ENTRIES_WRITTEN.load(Ordering::Relaxed)
}

/// The real thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelMmu;

impl Mmu for KernelMmu {
    fn alloc_frame(&self) -> Option<Pfn> {
        let pfn = FRAMES.lock().alloc()?;
        phys::zero(pfn);
        Some(pfn)
    }
    fn share_frame(&self, pfn: Pfn) -> bool {
        FRAMES.lock().share(pfn).is_ok()
    }
    fn release_frame(&self, pfn: Pfn) {
        FRAMES.lock().release(pfn);
    }
    fn frame_users(&self, pfn: Pfn) -> u16 {
        FRAMES.lock().users(pfn)
    }
    fn read_frame(&self, pfn: Pfn, offset: usize, into: &mut [u8]) {
        phys::copy_out(pfn, offset, into);
    }
    fn write_frame(&self, pfn: Pfn, offset: usize, from: &[u8]) {
        phys::copy_in(pfn, offset, from);
    }
    fn copy_frame(&self, from: Pfn, to: Pfn) {
        phys::copy_frame(from, to);
    }
    fn read_entry(&self, table: Pfn, index: usize) -> Entry {
        platform::current().read_entry(table, index)
    }
    fn write_entries(&self, updates: &[EntryUpdate]) {
        ENTRIES_WRITTEN.fetch_add(updates.len() as u64, Ordering::Relaxed);
        platform::current().write_entries(updates);
    }
    fn make_table(&self, table: Pfn, level: u8) {
        platform::current().make_table(table, level);
    }
    fn retire_tables(&self, tables: &[(Pfn, u8)]) {
        platform::current().retire_tables(tables);
    }
    fn flush(&self, root: Pfn, addr: Option<usize>) {
        platform::current().flush_user(root, addr);
    }
}
