//! One page-table entry as the portable kernel sees it: a frame number and the bits of x86-64.
//!
//! On a PC it is stored as it is; on Xen the platform exchanges pfn for machine frame on the way in and back on the way
//! out. Bits 9 to 11 are free for software on both.

use bitflags::bitflags;

use super::Pfn;

bitflags! {
    /// The bits of an entry that are not the frame number.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct EntryFlags: u64 {
        /// The entry is used by the CPU.
        const PRESENT = 1 << 0;
        /// Writing is allowed.
        const WRITABLE = 1 << 1;
        /// User mode may use it.
        const USER = 1 << 2;
        /// Writes go through the cache to memory.
        const WRITE_THROUGH = 1 << 3;
        /// Not cached: device memory.
        const UNCACHED = 1 << 4;
        /// Set by the CPU when it used the entry.
        const ACCESSED = 1 << 5;
        /// Set by the CPU when it wrote through the entry.
        const DIRTY = 1 << 6;
        /// Software: the frame is shared until someone writes to it.
        const COPY_ON_WRITE = 1 << 9;
        /// No instructions may be fetched.
        const NO_EXECUTE = 1 << 63;
    }
}

impl EntryFlags {
    /// A link to a lower table: everything is allowed here, the last level decides.
    pub const TABLE: Self =
        Self::PRESENT.union(Self::WRITABLE).union(Self::USER).union(Self::ACCESSED).union(Self::DIRTY);
    /// Kernel data.
    pub const KERNEL_DATA: Self =
        Self::PRESENT.union(Self::WRITABLE).union(Self::ACCESSED).union(Self::DIRTY).union(Self::NO_EXECUTE);
    /// Kernel constants.
    pub const KERNEL_READ_ONLY: Self = Self::PRESENT.union(Self::ACCESSED).union(Self::NO_EXECUTE);
    /// Kernel text.
    pub const KERNEL_TEXT: Self = Self::PRESENT.union(Self::ACCESSED);
}

/// Bits 12 to 51 of an entry.
const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;

/// A page-table entry that names a pfn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The frame; meaningless unless [`EntryFlags::PRESENT`].
    pub pfn: Pfn,
    /// The other bits.
    pub flags: EntryFlags,
}

impl Entry {
    /// Nothing is there.
    pub const ABSENT: Self = Self { pfn: Pfn(0), flags: EntryFlags::empty() };

    /// An entry for `pfn`.
    #[must_use]
    pub const fn new(pfn: Pfn, flags: EntryFlags) -> Self {
        Self { pfn, flags }
    }

    /// True when the CPU would use it.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.flags.contains(EntryFlags::PRESENT)
    }

    /// The 64 bits with `frame` as the frame number.
    #[must_use]
    pub const fn bits_with_frame(self, frame: u64) -> u64 {
        if self.is_present() { ((frame << 12) & FRAME_MASK) | self.flags.bits() } else { 0 }
    }

    /// The frame number in 64 bits of a page table.
    #[must_use]
    pub const fn frame_in(bits: u64) -> u64 {
        (bits & FRAME_MASK) >> 12
    }

    /// The flags in 64 bits of a page table; bits this kernel has no name for are dropped.
    #[must_use]
    pub const fn flags_in(bits: u64) -> EntryFlags {
        EntryFlags::from_bits_truncate(bits & !FRAME_MASK)
    }
}

/// One change of one entry of a live page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryUpdate {
    /// The table.
    pub table: Pfn,
    /// Which of its 512 entries.
    pub index: usize,
    /// The new value.
    pub entry: Entry,
}

/// The index of `addr` in a table of `level` (1 is the last, 4 the top).
#[must_use]
pub const fn index_at(addr: usize, level: u8) -> usize {
    (addr >> (12 + 9 * (level as usize - 1))) & 511
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_bits() {
        let entry = Entry::new(Pfn(0x1234), EntryFlags::KERNEL_DATA);
        let bits = entry.bits_with_frame(0x1234);
        assert_eq!(Entry::frame_in(bits), 0x1234);
        assert_eq!(Entry::flags_in(bits), EntryFlags::KERNEL_DATA);
    }

    #[test]
    fn an_absent_entry_is_all_zeros() {
        assert_eq!(Entry::ABSENT.bits_with_frame(77), 0);
    }

    #[test]
    fn an_address_is_four_indices_and_an_offset() {
        let addr = (5 << 39) | (6 << 30) | (7 << 21) | (8 << 12) | 9;
        assert_eq!([4, 3, 2, 1].map(|level| index_at(addr, level)), [5, 6, 7, 8]);
    }
}
