//! The guest's memory: virtual, pseudo-physical and machine addresses, and its page tables.

use core::cell::UnsafeCell;

use pv_abi::xen::DOMID_SELF;
use pv_abi::xen::{HYPERVISOR_MMU_UPDATE, HYPERVISOR_MMUEXT_OP, HYPERVISOR_UPDATE_VA_MAPPING, MmuUpdate, MmuextOp};

use crate::{hypercall, start_info};

/// Where pseudo-physical memory is mapped.
pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
/// Present.
pub const P: u64 = 1;
/// Writable.
pub const RW: u64 = 2;
/// User (in a guest kernel's tables, too).
pub const US: u64 = 4;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;

/// A page of the test's own.
#[repr(C, align(4096))]
pub struct Page(pub UnsafeCell<[u64; 512]>);
// SAFETY: A guest test has one vCPU; the hypervisor's writes are those that the test asked for.
unsafe impl Sync for Page {}

impl Page {
    /// A page of zeroes.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; 512]))
    }

    /// Its virtual address.
    #[must_use]
    pub fn va(&self) -> u64 {
        self.0.get() as u64
    }

    /// Its machine frame.
    #[must_use]
    pub fn mfn(&self) -> u64 {
        mfn_of(self.va())
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

/// The machine frame behind a virtual address of the boot mapping.
#[must_use]
pub fn mfn_of(va: u64) -> u64 {
    let pfn = (va - VIRT_BASE) >> 12;
    let place = start_info().mfn_list + pfn * 8;
    // SAFETY: The boot contract: mfn_list is an array of nr_pages frame numbers, and va is of the image.
    unsafe { *(place as *const u64) }
}

/// `update_va_mapping`.
#[inline(always)]
pub fn update_va_mapping(va: u64, entry: u64, flags: u64) -> i64 {
    hypercall(HYPERVISOR_UPDATE_VA_MAPPING, [va, entry, flags, 0, 0])
}

/// `mmu_update` with one request, for frames of this domain.
pub fn mmu_update(ptr: u64, val: u64) -> i64 {
    mmu_update_as(ptr, val, u64::from(DOMID_SELF))
}

/// `mmu_update` with one request and a foreign domain.
pub fn mmu_update_as(ptr: u64, val: u64, foreigndom: u64) -> i64 {
    let request = MmuUpdate { ptr, val };
    hypercall(HYPERVISOR_MMU_UPDATE, [&raw const request as u64, 1, 0, foreigndom, 0])
}

/// `mmuext_op` with one operation; `second` is its second argument as a number.
pub fn mmuext(command: u32, first: u64, second: u64) -> i64 {
    let operation = MmuextOp { cmd: command, arg1: first, arg2: second, ..MmuextOp::default() };
    hypercall(HYPERVISOR_MMUEXT_OP, [&raw const operation as u64, 1, 0, u64::from(DOMID_SELF), 0])
}

/// Machine address of the page-table entry that maps `va` (4 KiB) in the boot tables.
#[must_use]
pub fn entry_address(va: u64) -> u64 {
    let mut table = start_info().pt_base;
    for level in [3, 2, 1] {
        let index = (va >> (12 + 9 * level)) & 511;
        let place = table + index * 8;
        // SAFETY: The boot contract maps all of the boot page tables read-only.
        let entry = unsafe { *(place as *const u64) };
        table = va_of(entry >> 12 & 0xff_ffff_ffff);
    }
    (mfn_of(table) << 12) + ((va >> 12) & 511) * 8
}

/// Reads a word of the test's own memory that others may be writing.
#[must_use]
pub fn peek(va: u64) -> u64 {
    // SAFETY: A guest test reads what it has mapped.
    unsafe { (va as *const u64).read_volatile() }
}

/// The page-table entry that maps `va` in the boot tables.
#[must_use]
pub fn entry_of(va: u64) -> u64 {
    let address = entry_address(va);
    // SAFETY: The entry lies in a boot page table, which is mapped read-only.
    unsafe { *((va_of(address >> 12) + (address & 0xfff)) as *const u64) }
}

/// The boot mapping's address of a machine frame of this domain, by the machine-to-physical table.
#[must_use]
pub fn va_of(mfn: u64) -> u64 {
    let place = 0xffff_8000_0000_0000 + mfn * 8;
    // SAFETY: The table is readable for every frame of the machine.
    let pfn = unsafe { *(place as *const u64) };
    VIRT_BASE + (pfn << 12)
}

/// An address in the hypervisor's part of the address space.
pub const HYPERVISOR_ADDRESS: u64 = 0xffff_8300_0000_0000;
/// An address that is not canonical.
pub const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;
