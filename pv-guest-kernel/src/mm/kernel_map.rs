//! The mapping area: kernel addresses for frames that are not where the direct map has them.
//!
//! Every mapping is preceded by an unmapped page. Tables of the area are made on demand and kept.

use alloc::vec::Vec;

use super::entry::{Entry, EntryFlags, EntryUpdate, index_at};
use super::frames::FRAMES;
use super::ranges::Ranges;
use super::{MAPPING_AREA, MAPPING_AREA_BYTES, PAGE_SIZE, Pfn, phys};
use crate::platform;
use crate::sync::IrqLock;

static AREA: IrqLock<Ranges> = IrqLock::new(Ranges::new());

/// Opens the area. Called once, when the heap is there.
pub(crate) fn init() {
    AREA.lock().give(MAPPING_AREA, MAPPING_AREA_BYTES);
}

/// A range of the mapping area. Dropping it gives the addresses back: whoever mapped something there unmaps it first.
#[derive(Debug)]
pub struct AddressRange {
    /// The first usable byte, after the guard page.
    addr: usize,
    pages: usize,
}

impl AddressRange {
    /// Reserves addresses for `pages` pages and makes the tables down to the last level.
    pub fn reserve(pages: usize) -> Option<Self> {
        let start = AREA.lock().take((pages + 1) * PAGE_SIZE)?;
        let range = Self { addr: start + PAGE_SIZE, pages };
        range.tables().is_some().then_some(range)
    }

    /// The first byte.
    #[must_use]
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// The last-level table of the page at `addr` and the index in it.
    #[must_use]
    pub fn slot(addr: usize) -> Option<(Pfn, usize)> {
        table_for(addr).map(|table| (table, index_at(addr, 1)))
    }

    fn tables(&self) -> Option<()> {
        let first = self.addr & !(512 * PAGE_SIZE - 1);
        (first..self.addr + self.pages * PAGE_SIZE)
            .step_by(512 * PAGE_SIZE)
            .try_for_each(|addr| table_for(addr).map(|_| ()))
    }
}

impl Drop for AddressRange {
    fn drop(&mut self) {
        AREA.lock().give(self.addr - PAGE_SIZE, (self.pages + 1) * PAGE_SIZE);
    }
}

/// The last-level table for `addr` in the kernel's address space; makes what is missing.
fn table_for(addr: usize) -> Option<Pfn> {
    static MAKING: IrqLock<()> = IrqLock::new(());
    let _turn = MAKING.lock();
    let platform = platform::current();
    let mut table = platform.kernel_root();
    for level in [4, 3, 2] {
        let index = index_at(addr, level);
        let entry = platform.read_entry(table, index);
        table = if entry.is_present() { entry.pfn } else { make_table(table, index, level - 1)? };
    }
    Some(table)
}

/// The frame mapped at `addr`, if one is.
pub(super) fn frame_at(addr: usize) -> Option<Pfn> {
    let platform = platform::current();
    let mut table = platform.kernel_root();
    for level in [4, 3, 2, 1] {
        let entry = platform.read_entry(table, index_at(addr, level));
        if !entry.is_present() {
            return None;
        }
        table = entry.pfn;
    }
    Some(table)
}

fn make_table(parent: Pfn, index: usize, level: u8) -> Option<Pfn> {
    let platform = platform::current();
    let table = FRAMES.lock().alloc()?;
    phys::zero(table);
    platform.make_table(table, level);
    platform.write_entries(&[EntryUpdate { table: parent, index, entry: Entry::new(table, EntryFlags::TABLE) }]);
    Some(table)
}

/// Frames of this kernel mapped in a row; it owns them.
#[derive(Debug)]
pub struct Mapping {
    range: AddressRange,
    frames: Vec<Pfn>,
}

impl Mapping {
    /// Takes `pages` zeroed frames, wherever they are, and maps them in a row.
    pub fn of_new_frames(pages: usize) -> Option<Self> {
        let range = AddressRange::reserve(pages)?;
        let mut mapping = Self { range, frames: Vec::with_capacity(pages) };
        for _ in 0..pages {
            let pfn = FRAMES.lock().alloc()?;
            phys::zero(pfn);
            mapping.frames.push(pfn);
        }
        mapping.write(|pfn| Entry::new(pfn, EntryFlags::KERNEL_DATA));
        Some(mapping)
    }

    /// The first byte.
    #[must_use]
    pub fn addr(&self) -> usize {
        self.range.addr()
    }

    fn write(&self, entry: impl Fn(Pfn) -> Entry) {
        let update = |(page, pfn): (usize, &Pfn)| {
            let (table, index) = AddressRange::slot(self.addr() + page * PAGE_SIZE)?;
            Some(EntryUpdate { table, index, entry: entry(*pfn) })
        };
        let updates: Vec<_> = self.frames.iter().enumerate().filter_map(update).collect();
        platform::current().write_entries(&updates);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.write(|_| Entry::ABSENT);
        for page in 0..self.frames.len() {
            platform::current().flush_page(self.addr() + page * PAGE_SIZE);
        }
        let mut frames = FRAMES.lock();
        for pfn in &self.frames {
            frames.release(*pfn);
        }
    }
}
