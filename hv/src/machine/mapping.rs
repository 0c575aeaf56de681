//! The hypervisor's page tables, and the memory they are made of while the machine starts.
//!
//! Nothing is writable and executable at once, and only the image's code is executable. Tables are made with the
//! largest pages that fit and are never given back.

use alloc::vec::Vec;
use core::ops::Range;

use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame, Size1GiB, Size2MiB,
    Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::layout::{LARGE_PAGE, PAGE};
use super::multiboot::MemoryRange;

/// The boot loader's tables map this much one to one.
const REACHABLE: u64 = 1 << 32;

/// Usable RAM that nobody has taken.
pub(crate) struct BootMemory {
    free: Vec<Range<u64>>,
    /// What is added to a physical address to reach it now.
    offset: u64,
}

impl BootMemory {
    /// All usable RAM of the map above 1 MiB but what is `taken`, in whole pages.
    pub(crate) fn new(map: &[MemoryRange], taken: &[Range<u64>]) -> Self {
        let mut free: Vec<Range<u64>> = map
            .iter()
            .filter(|range| range.kind == MemoryRange::RAM)
            .map(|range| range.start.max(1 << 20).next_multiple_of(PAGE)..range.end() / PAGE * PAGE)
            .collect();
        for hole in taken {
            let hole = hole.start / PAGE * PAGE..hole.end.next_multiple_of(PAGE);
            free = free.into_iter().flat_map(|range| without(&range, &hole)).collect();
        }
        free.retain(|range| range.start < range.end);
        Self { free, offset: 0 }
    }

    /// Takes `bytes` (rounded up to pages), aligned, from the top of the largest range that can be reached now.
    pub(crate) fn take(&mut self, bytes: u64, align: u64) -> Option<u64> {
        let bytes = bytes.next_multiple_of(PAGE);
        let index = (0..self.free.len())
            .filter(|&index| self.free[index].end <= REACHABLE)
            .max_by_key(|&index| self.free[index].end - self.free[index].start)?;
        let range = self.free[index].clone();
        let start = range.end.checked_sub(bytes)? / align * align;
        if start < range.start {
            return None;
        }
        self.free[index].end = start;
        if start + bytes < range.end {
            self.free.push(start + bytes..range.end);
        }
        Some(start)
    }

    /// From now on all RAM is mapped at this offset.
    pub(crate) fn moved_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Gives up what is left.
    pub(crate) fn into_free(self) -> Vec<Range<u64>> {
        self.free
    }
}

fn without(range: &Range<u64>, hole: &Range<u64>) -> [Range<u64>; 2] {
    [range.start..range.end.min(hole.start.max(range.start)), range.start.max(hole.end.min(range.end))..range.end]
}

// SAFETY: `take` never gives a frame twice.
unsafe impl FrameAllocator<Size4KiB> for BootMemory {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let start = self.take(PAGE, PAGE)?;
        Some(PhysFrame::containing_address(PhysAddr::new(start)))
    }
}

/// What may be done with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The hypervisor runs it.
    Execute,
    /// The hypervisor reads it.
    Read,
    /// The hypervisor reads and writes it.
    Write,
    /// Device registers: read and written, never cached.
    Device,
    /// Everyone reads it.
    GuestRead,
}

impl Access {
    fn flags(self) -> PageTableFlags {
        let base = PageTableFlags::PRESENT | PageTableFlags::ACCESSED | PageTableFlags::DIRTY | PageTableFlags::GLOBAL;
        match self {
            Self::Execute => base,
            Self::Read => base | PageTableFlags::NO_EXECUTE,
            Self::Write => base | PageTableFlags::NO_EXECUTE | PageTableFlags::WRITABLE,
            Self::Device => Self::Write.flags() | PageTableFlags::NO_CACHE | PageTableFlags::WRITE_THROUGH,
            Self::GuestRead => base | PageTableFlags::NO_EXECUTE | PageTableFlags::USER_ACCESSIBLE,
        }
    }

    fn parent_flags(self) -> PageTableFlags {
        let base = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
        if self == Self::GuestRead { PageTableFlags::PRESENT | PageTableFlags::USER_ACCESSIBLE } else { base }
    }
}

/// The hypervisor's page tables.
pub(crate) struct Tables {
    root: u64,
    huge_pages: bool,
}

impl Tables {
    /// Empty tables.
    pub(crate) fn new(memory: &mut BootMemory, huge_pages: bool) -> Option<Self> {
        let root = memory.take(PAGE, PAGE)?;
        // SAFETY: the frame was just taken, and all that `take` gives is mapped at `offset`.
        unsafe { core::ptr::write_bytes((root + memory.offset) as *mut u8, 0, PAGE as usize) };
        Some(Self { root, huge_pages })
    }

    /// The physical address of the root table.
    pub(crate) const fn root(&self) -> u64 {
        self.root
    }

    /// Maps whole pages; `None` when memory is used up or something is mapped there.
    pub(crate) fn map(&mut self, memory: &mut BootMemory, to: u64, from: Range<u64>, access: Access) -> Option<()> {
        let mut physical = from.start;
        while physical < from.end {
            let virtual_ = to + (physical - from.start);
            let fits = |size: u64| (physical | virtual_).is_multiple_of(size) && from.end - physical >= size;
            physical += if self.huge_pages && fits(Size1GiB::SIZE) {
                self.map_one::<Size1GiB>(memory, virtual_, physical, access)?
            } else if fits(LARGE_PAGE) {
                self.map_one::<Size2MiB>(memory, virtual_, physical, access)?
            } else {
                self.map_one::<Size4KiB>(memory, virtual_, physical, access)?
            };
        }
        Some(())
    }

    fn map_one<S: PageSize + core::fmt::Debug>(
        &mut self,
        memory: &mut BootMemory,
        to: u64,
        from: u64,
        access: Access,
    ) -> Option<u64>
    where
        for<'a> OffsetPageTable<'a>: Mapper<S>,
    {
        let offset = memory.offset;
        // SAFETY: `root` is a table that only this value changes, mapped at `offset`.
        let root = unsafe { &mut *((self.root + offset) as *mut PageTable) };
        // SAFETY: all tables come from `memory`, which is mapped at `offset`.
        let mut mapper = unsafe { OffsetPageTable::new(root, VirtAddr::new(offset)) };
        let page = Page::<S>::containing_address(VirtAddr::new(to));
        let frame = PhysFrame::<S>::containing_address(PhysAddr::new(from));
        // SAFETY: the addresses are of the hypervisor's slots, which hold what layout.rs says.
        let mapped =
            unsafe { mapper.map_to_with_table_flags(page, frame, access.flags(), access.parent_flags(), memory) };
        match mapped {
            Ok(flush) => {
                flush.ignore();
                Some(S::SIZE)
            }
            Err(MapToError::PageAlreadyMapped(same)) if same == frame => Some(S::SIZE),
            Err(_) => None,
        }
    }

    /// The physical address of the lowest table that maps `address`, made where it is missing.
    pub(crate) fn table_of(&mut self, memory: &mut BootMemory, address: u64) -> Option<u64> {
        let mut table = self.root;
        for level in (1..4).rev() {
            let index = (address >> (12 + 9 * level)) & 511;
            let place = (table + memory.offset + index * 8) as *mut u64;
            // SAFETY: `table` is one of these tables, mapped at `offset`.
            let entry = unsafe { place.read() };
            table = if entry & 1 == 0 {
                let new = memory.take(PAGE, PAGE)?;
                // SAFETY: the frame was just taken and is mapped at `offset`.
                unsafe { core::ptr::write_bytes((new + memory.offset) as *mut u8, 0, PAGE as usize) };
                // SAFETY: as for the read above.
                unsafe { place.write(new | 3) };
                new
            } else {
                entry & 0x000f_ffff_ffff_f000
            };
        }
        Some(table)
    }
}
