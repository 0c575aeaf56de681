//! Page-table entries: their bits, and what a guest may put into them.
//!
//! The hypervisor adjusts what a guest writes, and the guest reads the adjusted entry back: guests run in ring 3, so
//! every present entry is made a user entry. An L1 entry that was not is marked with bit 52 and thereby the guest
//! kernel's; one without that mark is made global, because it is the same in the kernel's and the user's tables.
//! Source: AMD APM 2 §5.4; Xen: public/xen.h and the adjustments of PV entries (abi: `_PAGE_GUEST_KERNEL`).

use pv_abi::Mfn;

use crate::frames::ClaimedMfn;

/// The entry is in use.
pub const PRESENT: u64 = 1 << 0;
/// Writes are allowed.
pub const WRITABLE: u64 = 1 << 1;
/// Ring 3 is allowed.
pub const USER: u64 = 1 << 2;
/// Caching: write-through.
pub const PWT: u64 = 1 << 3;
/// Caching: disabled.
pub const PCD: u64 = 1 << 4;
/// Set by the CPU on use.
pub const ACCESSED: u64 = 1 << 5;
/// Set by the CPU on a write.
pub const DIRTY: u64 = 1 << 6;
/// In an L1 entry: caching, by the page-attribute table.
pub const PAT: u64 = 1 << 7;
/// In an entry above L1: a large page.
pub const LARGE: u64 = 1 << 7;
/// The translation survives a change of address space.
pub const GLOBAL: u64 = 1 << 8;
/// Bits 9 to 11: software's.
pub const AVAILABLE: u64 = 7 << 9;
/// Bits 52 to 62: software's.
pub const AVAILABLE_HIGH: u64 = 0x7ff << 52;
/// Bit 52: the guest kernel's page (`_PAGE_GUEST_KERNEL`).
pub const GUEST_KERNEL: u64 = 1 << 52;
/// No instruction fetches.
pub const NO_EXECUTE: u64 = 1 << 63;
/// The frame's address.
pub const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// The bits that choose the caching of a page.
pub const CACHING: u64 = PWT | PCD | PAT;
/// What no L1 entry of a domain without devices may have.
pub const L1_FORBIDDEN: u64 = CACHING;
/// What no entry above L1 may have.
pub const UPPER_FORBIDDEN: u64 = PWT | PCD | LARGE | GLOBAL;
/// What may change in a present L1 entry without another look at what it points to.
pub const HARMLESS: u64 = NO_EXECUTE | AVAILABLE_HIGH | AVAILABLE | GLOBAL | DIRTY | ACCESSED | USER;
/// What may change in a present entry above L1 without another look at the table it points to.
pub const UPPER_HARMLESS: u64 = HARMLESS & !GLOBAL | WRITABLE;

/// Whether an entry is in use.
#[inline]
#[must_use]
pub const fn is_present(entry: u64) -> bool {
    entry & PRESENT != 0
}

/// The frame an entry names.
#[inline]
#[must_use]
pub const fn claimed(entry: u64) -> ClaimedMfn {
    ClaimedMfn((entry & FRAME) >> 12)
}

/// The frame that an entry of a checked table points to.
#[inline]
#[must_use]
pub const fn frame(entry: u64) -> Mfn {
    Mfn((entry & FRAME) >> 12)
}

/// A present L1 entry as it will stand in the table.
#[inline]
#[must_use]
pub const fn adjust_l1(entry: u64) -> u64 {
    if entry & USER == 0 {
        entry | USER | GUEST_KERNEL
    } else if entry & GUEST_KERNEL == 0 {
        entry | GLOBAL
    } else {
        entry
    }
}

/// A present entry of a level above 1 as it will stand in the table.
#[inline]
#[must_use]
pub const fn adjust_upper(level: u8, entry: u64) -> u64 {
    if level == 4 { entry | USER | ACCESSED } else { entry | USER }
}

/// Whether an L4 slot is the hypervisor's.
#[inline]
#[must_use]
pub const fn is_hypervisor_slot(index: usize) -> bool {
    index & !0xf == 256
}

/// Whether an address is one that a guest may map: not the hypervisor's, and not in the hole below it.
#[inline]
#[must_use]
pub const fn is_guest_address(address: u64) -> bool {
    address < 1 << 47 || address >= 0xffff_8800_0000_0000
}

/// The index into the table of a level, 1 to 4, for an address.
#[inline]
#[must_use]
pub const fn index(level: u8, address: u64) -> usize {
    (address >> (12 + 9 * (level as u32 - 1)) & 0x1ff) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_page_is_marked_and_not_global() {
        assert_eq!(adjust_l1(PRESENT), PRESENT | USER | GUEST_KERNEL);
    }

    #[test]
    fn a_user_page_becomes_global() {
        assert_eq!(adjust_l1(PRESENT | USER), PRESENT | USER | GLOBAL);
    }

    #[test]
    fn an_adjusted_entry_is_adjusted_no_further() {
        for entry in [PRESENT, PRESENT | USER, PRESENT | USER | GUEST_KERNEL] {
            assert_eq!(adjust_l1(adjust_l1(entry)), adjust_l1(entry));
        }
    }

    #[test]
    fn sixteen_slots_are_the_hypervisors() {
        assert_eq!(
            (0..512).filter(|slot| is_hypervisor_slot(*slot)).collect::<Vec<_>>(),
            (256..272).collect::<Vec<_>>()
        );
        assert!(!is_guest_address(0xffff_8000_0000_0000) && !is_guest_address(0xffff_87ff_ffff_ffff));
        assert!(is_guest_address(0xffff_8800_0000_0000) && is_guest_address(0x7fff_ffff_ffff));
        assert!(!is_guest_address(1 << 47));
    }

    #[test]
    fn indices_follow_the_levels() {
        let address = 0xffff_8880_0040_3000;
        assert_eq!([4, 3, 2, 1].map(|level| index(level, address)), [273, 0, 2, 3]);
    }
}
