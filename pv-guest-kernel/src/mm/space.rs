//! The address space of a process: what may be where, and what is there already.
//!
//! Words used:
//! - *region*: a range of addresses with a protection and something to fill it from. Making one costs nothing.
//! - *resident*: a page that has a frame. Pages become resident when they are touched ([`AddressSpace::fault`]): that is
//!   demand paging.
//! - *copy-on-write*: after [`AddressSpace::fork`] parent and child use the same frames, read-only; who writes first gets a
//!   copy. The last user of a frame just writes again.
//!
//! Invariants:
//! - regions do not overlap; each resident page lies in one;
//! - an entry is writable only if its frame has one user;
//! - a frame that a page table stops naming is released after the table says so, never before: until then it is still
//!   mapped writable, and Xen would refuse to let it become anything else.
//!
//! The kernel never follows a user pointer: it asks the space for the frame and copies through the direct map.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::entry::index_at;
use super::{Entry, EntryFlags, EntryUpdate, PAGE_SIZE, Pfn};

/// Frames and page tables, as an address space needs them. The kernel's is [`KernelMmu`](super::mmu::KernelMmu); tests have
/// one of ordinary memory.
pub trait Mmu {
    /// Takes a zeroed frame.
    fn alloc_frame(&self) -> Option<Pfn>;
    /// One more user; false when the frame has as many as can be counted.
    fn share_frame(&self, pfn: Pfn) -> bool;
    /// One user less.
    fn release_frame(&self, pfn: Pfn);
    /// How many use it.
    fn frame_users(&self, pfn: Pfn) -> u16;
    /// Copies bytes out of a frame.
    fn read_frame(&self, pfn: Pfn, offset: usize, into: &mut [u8]);
    /// Copies bytes into a frame.
    fn write_frame(&self, pfn: Pfn, offset: usize, from: &[u8]);
    /// Copies a whole frame.
    fn copy_frame(&self, from: Pfn, to: Pfn);
    /// Reads an entry of a table.
    fn read_entry(&self, table: Pfn, index: usize) -> Entry;
    /// Writes entries of tables.
    fn write_entries(&self, updates: &[EntryUpdate]);
    /// Makes a zeroed frame a table.
    fn make_table(&self, table: Pfn, level: u8);
    /// Makes tables ordinary frames again, the root first.
    fn retire_tables(&self, tables: &[(Pfn, u8)]);
    /// Forgets the translation of one user address in the space of `root`, or of all.
    fn flush(&self, root: Pfn, addr: Option<usize>);
}

/// First address a process may use: null pointers fault.
pub const USER_START: usize = 0x1_0000;
/// First address above those a process may use.
pub const USER_END: usize = 0x7fff_ffff_f000;
/// Where ranges without a wish are put.
const MMAP_START: usize = 0x1000_0000_0000;

/// Bytes one last-level table maps.
const TABLE_SPAN: usize = 512 * PAGE_SIZE;

/// A page that has a frame, and its entry.
struct ResidentPage {
    addr: usize,
    update: EntryUpdate,
}

/// What fills a page when it becomes resident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Zeros.
    Zeros,
    /// Bytes of a program, `offset` bytes from the region's start on (which may be negative: the first byte need not be
    /// page-aligned), zeros around them.
    Image {
        /// The bytes.
        bytes: &'static [u8],
        /// Where in the region they start.
        offset: usize,
    },
}

/// A range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First address after it.
    pub end: usize,
    /// Writing is allowed.
    pub writable: bool,
    /// Running is allowed.
    pub executable: bool,
    /// What fills it.
    pub backing: Backing,
}

/// What a process did that it may not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No region has the address.
    Unmapped,
    /// The region does not allow it.
    Forbidden,
    /// It is allowed, but there is no memory.
    OutOfMemory,
    /// A new region would overlap one or leave the user's addresses.
    BadRange,
}

/// How an address was touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// Read.
    Read,
    /// Written.
    Write,
    /// Executed.
    Execute,
}

/// How much a space uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Pages that have a frame.
    pub resident: usize,
    /// Page tables.
    pub tables: usize,
}

/// A process's memory.
#[derive(Debug)]
pub struct AddressSpace<M: Mmu> {
    mmu: M,
    root: Pfn,
    /// Start → region.
    regions: BTreeMap<usize, Region>,
    /// All page tables, the root first.
    tables: Vec<(Pfn, u8)>,
}

const fn page_down(addr: usize) -> usize {
    addr & !(PAGE_SIZE - 1)
}

const fn page_up(addr: usize) -> usize {
    page_down(addr + PAGE_SIZE - 1)
}

impl<M: Mmu> AddressSpace<M> {
    /// An empty space.
    ///
    /// # Errors
    /// [`Fault::OutOfMemory`].
    pub fn new(mmu: M) -> Result<Self, Fault> {
        let root = mmu.alloc_frame().ok_or(Fault::OutOfMemory)?;
        mmu.make_table(root, 4);
        Ok(Self { mmu, root, regions: BTreeMap::new(), tables: Vec::from([(root, 4)]) })
    }

    /// The top-level table.
    pub fn root(&self) -> Pfn {
        self.root
    }

    /// Adds a region; `start` and its end are page-aligned.
    ///
    /// # Errors
    /// [`Fault::BadRange`].
    pub fn map(&mut self, start: usize, region: Region) -> Result<(), Fault> {
        let aligned = start.is_multiple_of(PAGE_SIZE) && region.end.is_multiple_of(PAGE_SIZE);
        let inside = start >= USER_START && start < region.end && region.end <= USER_END;
        if !aligned || !inside || self.overlaps(start, region.end) {
            return Err(Fault::BadRange);
        }
        self.regions.insert(start, region);
        Ok(())
    }

    /// Adds a region of zeros where there is room; returns its start.
    ///
    /// # Errors
    /// [`Fault::BadRange`] for a length of 0 or when no range is free.
    pub fn map_anywhere(&mut self, len: usize, writable: bool) -> Result<usize, Fault> {
        let len = page_up(len.min(USER_END));
        let mut start = MMAP_START;
        while let Some((_, region)) = self.regions.range(..start + len).next_back() {
            if region.end <= start {
                break;
            }
            start = region.end;
        }
        let region = Region { end: start + len, writable, executable: false, backing: Backing::Zeros };
        self.map(start, region).map(|()| start)
    }

    fn overlaps(&self, start: usize, end: usize) -> bool {
        let before = self.regions.range(..end).next_back();
        before.is_some_and(|(_, region)| region.end > start)
    }

    /// Removes all pages in a range; regions that reach beyond it are cut.
    ///
    /// # Errors
    /// [`Fault::BadRange`] when the range is not page-aligned or not the user's.
    pub fn unmap(&mut self, start: usize, len: usize) -> Result<(), Fault> {
        let end = start.checked_add(page_up(len)).ok_or(Fault::BadRange)?;
        if !start.is_multiple_of(PAGE_SIZE) || start < USER_START || end > USER_END {
            return Err(Fault::BadRange);
        }
        let touched: Vec<_> = self
            .regions
            .range(..end)
            .filter(|(_, region)| region.end > start)
            .map(|(first, region)| (*first, *region))
            .collect();
        for (first, region) in touched {
            self.regions.remove(&first);
            if first < start {
                let head = Region { end: start, ..region };
                self.regions.insert(first, head);
            }
            if region.end > end {
                self.regions.insert(end, tail(first, region, end));
            }
            self.drop_pages(first.max(start), region.end.min(end));
        }
        Ok(())
    }

    /// The resident pages of a range. Ranges without a table are skipped 2 MiB at a time.
    fn resident_pages(&self, start: usize, end: usize) -> Vec<ResidentPage> {
        let mut pages = Vec::new();
        let mut addr = start;
        while addr < end {
            let Some((table, index)) = self.slot(addr) else {
                addr = (addr & !(TABLE_SPAN - 1)) + TABLE_SPAN;
                continue;
            };
            let entry = self.mmu.read_entry(table, index);
            if entry.is_present() {
                let update = EntryUpdate { table, index, entry };
                pages.push(ResidentPage { addr, update });
            }
            addr += PAGE_SIZE;
        }
        pages
    }

    /// Makes the pages of a range absent and releases their frames.
    fn drop_pages(&mut self, start: usize, end: usize) {
        let pages = self.resident_pages(start, end);
        let absent = |page: &ResidentPage| EntryUpdate { entry: Entry::ABSENT, ..page.update };
        let updates: Vec<_> = pages.iter().map(absent).collect();
        self.mmu.write_entries(&updates);
        self.mmu.flush(self.root, None);
        for page in pages {
            self.mmu.release_frame(page.update.entry.pfn);
        }
    }

    /// Moves the end of the region that starts at `start` (the heap of a process).
    ///
    /// # Errors
    /// [`Fault::Unmapped`] without such a region; [`Fault::BadRange`] when the new end meets another region.
    pub fn set_end(&mut self, start: usize, end: usize) -> Result<(), Fault> {
        let end = page_up(end);
        let old = self.regions.get(&start).copied().ok_or(Fault::Unmapped)?;
        if end <= start || end > USER_END {
            return Err(Fault::BadRange);
        }
        if end > old.end && self.overlaps(old.end, end) {
            return Err(Fault::BadRange);
        }
        if end < old.end {
            self.drop_pages(end, old.end);
        }
        self.regions.insert(start, Region { end, ..old });
        Ok(())
    }

    /// Where the region that starts at `start` ends.
    ///
    /// # Errors
    /// [`Fault::Unmapped`] without such a region.
    pub fn end_of(&self, start: usize) -> Result<usize, Fault> {
        let region = self.regions.get(&start);
        region.map(|region| region.end).ok_or(Fault::Unmapped)
    }

    /// The last-level table and index of an address, if that table exists.
    fn slot(&self, addr: usize) -> Option<(Pfn, usize)> {
        let mut table = self.root;
        for level in [4, 3, 2] {
            let entry = self.mmu.read_entry(table, index_at(addr, level));
            if !entry.is_present() {
                return None;
            }
            table = entry.pfn;
        }
        Some((table, index_at(addr, 1)))
    }

    /// As [`slot`](Self::slot), making the tables that are missing.
    fn make_slot(&mut self, addr: usize) -> Result<(Pfn, usize), Fault> {
        let mut table = self.root;
        for level in [4, 3, 2] {
            let index = index_at(addr, level);
            let entry = self.mmu.read_entry(table, index);
            table = if entry.is_present() { entry.pfn } else { self.make_table(table, index, level - 1)? };
        }
        Ok((table, index_at(addr, 1)))
    }

    fn make_table(&mut self, parent: Pfn, index: usize, level: u8) -> Result<Pfn, Fault> {
        let table = self.mmu.alloc_frame().ok_or(Fault::OutOfMemory)?;
        self.mmu.make_table(table, level);
        self.tables.push((table, level));
        self.mmu.write_entries(&[EntryUpdate { table: parent, index, entry: Entry::new(table, EntryFlags::TABLE) }]);
        Ok(table)
    }

    /// Someone touched `addr`: makes it so that the same touch succeeds now.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn fault(&mut self, addr: usize, touch: Touch) -> Result<(), Fault> {
        self.resident(addr, touch).map(|_| ())
    }

    /// The frame behind `addr`, made resident and fit for `touch`.
    fn resident(&mut self, addr: usize, touch: Touch) -> Result<Pfn, Fault> {
        let page = page_down(addr);
        let (start, region) = self.region_at(addr).ok_or(Fault::Unmapped)?;
        let allowed = match touch {
            Touch::Read => true,
            Touch::Write => region.writable,
            Touch::Execute => region.executable,
        };
        if !allowed {
            return Err(Fault::Forbidden);
        }
        let (table, index) = self.make_slot(page)?;
        let entry = self.mmu.read_entry(table, index);
        if !entry.is_present() {
            let pfn = self.filled_frame(page - start, &region)?;
            let flags = page_flags(&region);
            self.set(table, index, Entry::new(pfn, flags), page);
            return Ok(pfn);
        }
        if touch == Touch::Write && entry.flags.contains(EntryFlags::COPY_ON_WRITE) {
            return self.own(table, index, entry, page);
        }
        self.mmu.flush(self.root, Some(page));
        Ok(entry.pfn)
    }

    fn region_at(&self, addr: usize) -> Option<(usize, Region)> {
        let (start, region) = self.regions.range(..=addr).next_back()?;
        (addr < region.end).then_some((*start, *region))
    }

    /// A new frame with what belongs `offset` bytes into a region.
    fn filled_frame(&self, offset: usize, region: &Region) -> Result<Pfn, Fault> {
        let pfn = self.mmu.alloc_frame().ok_or(Fault::OutOfMemory)?;
        if let Backing::Image { bytes, offset: first } = region.backing {
            let from = offset.max(first);
            let end = (offset + PAGE_SIZE).min(first + bytes.len());
            if from < end {
                self.mmu.write_frame(pfn, from - offset, &bytes[from - first..end - first]);
            }
        }
        Ok(pfn)
    }

    /// Gives a copy-on-write page a frame of its own.
    fn own(&mut self, table: Pfn, index: usize, entry: Entry, page: usize) -> Result<Pfn, Fault> {
        let mut flags = entry.flags | EntryFlags::WRITABLE | EntryFlags::DIRTY;
        flags.remove(EntryFlags::COPY_ON_WRITE);
        if self.mmu.frame_users(entry.pfn) == 1 {
            self.set(table, index, Entry::new(entry.pfn, flags), page);
            return Ok(entry.pfn);
        }
        let copy = self.mmu.alloc_frame().ok_or(Fault::OutOfMemory)?;
        self.mmu.copy_frame(entry.pfn, copy);
        self.set(table, index, Entry::new(copy, flags), page);
        self.mmu.release_frame(entry.pfn);
        Ok(copy)
    }

    fn set(&self, table: Pfn, index: usize, entry: Entry, page: usize) {
        self.mmu.write_entries(&[EntryUpdate { table, index, entry }]);
        self.mmu.flush(self.root, Some(page));
    }

    /// A second space with the same content. Writable pages become copy-on-write in both.
    ///
    /// # Errors
    /// [`Fault::OutOfMemory`]; this space is as it was.
    pub fn fork(&mut self, mmu: M) -> Result<Self, Fault> {
        let mut child = Self::new(mmu)?;
        child.regions = self.regions.clone();
        let mut theirs = Vec::new();
        let prepared = self.prepare_fork(&mut child, &mut theirs);
        if let Err(fault) = prepared {
            for update in theirs {
                self.mmu.release_frame(update.entry.pfn);
            }
            return Err(fault);
        }
        // The child sees the frames only when nobody can write to them any more.
        self.mmu.write_entries(&theirs);
        Ok(child)
    }

    /// Shares every resident page, makes the child's tables, and collects its entries in `theirs`.
    fn prepare_fork(&mut self, child: &mut Self, theirs: &mut Vec<EntryUpdate>) -> Result<(), Fault> {
        let mut ours = Vec::new();
        for (start, region) in &self.regions {
            for page in self.resident_pages(*start, region.end) {
                let (table, index) = child.make_slot(page.addr)?;
                let old = page.update.entry;
                let entry = self.share(old)?;
                theirs.push(EntryUpdate { table, index, entry });
                if entry.pfn == old.pfn && entry.flags != old.flags {
                    ours.push(EntryUpdate { entry, ..page.update });
                }
            }
        }
        self.mmu.write_entries(&ours);
        self.mmu.flush(self.root, None);
        Ok(())
    }

    /// The entry a child gets for one of ours.
    fn share(&self, entry: Entry) -> Result<Entry, Fault> {
        if !self.mmu.share_frame(entry.pfn) {
            let copy = self.mmu.alloc_frame().ok_or(Fault::OutOfMemory)?;
            self.mmu.copy_frame(entry.pfn, copy);
            return Ok(Entry::new(copy, entry.flags));
        }
        let mut flags = entry.flags;
        if flags.contains(EntryFlags::WRITABLE) {
            flags.remove(EntryFlags::WRITABLE);
            flags.insert(EntryFlags::COPY_ON_WRITE);
        }
        Ok(Entry::new(entry.pfn, flags))
    }

    /// Copies bytes out of the space, as the process itself could.
    ///
    /// # Errors
    /// The fault the process would have met.
    pub fn read(&mut self, addr: usize, into: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < into.len() {
            let at = addr.checked_add(done).ok_or(Fault::Unmapped)?;
            let offset = at % PAGE_SIZE;
            let step = (into.len() - done).min(PAGE_SIZE - offset);
            let pfn = self.resident(at, Touch::Read)?;
            self.mmu.read_frame(pfn, offset, &mut into[done..done + step]);
            done += step;
        }
        Ok(())
    }

    /// Copies bytes into the space, as the process itself could.
    ///
    /// # Errors
    /// The fault the process would have met.
    pub fn write(&mut self, addr: usize, from: &[u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < from.len() {
            let at = addr.checked_add(done).ok_or(Fault::Unmapped)?;
            let offset = at % PAGE_SIZE;
            let step = (from.len() - done).min(PAGE_SIZE - offset);
            let pfn = self.resident(at, Touch::Write)?;
            self.mmu.write_frame(pfn, offset, &from[done..done + step]);
            done += step;
        }
        Ok(())
    }

    /// Pages and tables in use.
    pub fn usage(&self) -> Usage {
        let resident = self.leaf_frames().len();
        Usage { resident, tables: self.tables.len() }
    }

    fn leaf_frames(&self) -> Vec<Pfn> {
        let last = self.tables.iter().filter(|(_, level)| *level == 1);
        last.flat_map(|(table, _)| (0..512).map(|index| self.mmu.read_entry(*table, index)))
            .filter(|entry| entry.is_present())
            .map(|entry| entry.pfn)
            .collect()
    }
}

/// What is left of a region from `end` on.
fn tail(first: usize, region: Region, end: usize) -> Region {
    let backing = match region.backing {
        Backing::Zeros => Backing::Zeros,
        Backing::Image { bytes, offset } => {
            let cut = end - first;
            let skipped = cut.saturating_sub(offset).min(bytes.len());
            Backing::Image { bytes: &bytes[skipped..], offset: offset.saturating_sub(cut) }
        }
    };
    Region { backing, ..region }
}

/// The entry flags of a private page of a region.
fn page_flags(region: &Region) -> EntryFlags {
    let mut flags = EntryFlags::PRESENT | EntryFlags::USER | EntryFlags::ACCESSED;
    if region.writable {
        flags |= EntryFlags::WRITABLE | EntryFlags::DIRTY;
    }
    if !region.executable {
        flags |= EntryFlags::NO_EXECUTE;
    }
    flags
}

impl<M: Mmu> Drop for AddressSpace<M> {
    fn drop(&mut self) {
        let frames = self.leaf_frames();
        self.mmu.retire_tables(&self.tables);
        for pfn in frames.into_iter().chain(self.tables.iter().map(|(table, _)| *table)) {
            self.mmu.release_frame(pfn);
        }
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
