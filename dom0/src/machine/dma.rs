//! Memory that devices reach.
//!
//! A device sees machine addresses, and what lies in a row here may lie anywhere there. So everything that a device is
//! told of comes from regions whose machine frames are in a row.
#![expect(unsafe_code, reason = "the virtio driver library works with addresses")]

use alloc::collections::BTreeMap;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU16;

use pv_guest_kernel::mm::frames::Pages;
use pv_guest_kernel::mm::{self, PAGE_SIZE};
use pv_guest_kernel::platform::pv::foreign::ForeignMapping;
use pv_guest_kernel::platform::pv::memory;
use pv_guest_kernel::sync::IrqLock;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// Addresses that every device of today reaches.
const ADDRESS_BITS: u32 = 44;

/// Pages whose machine frames are in a row.
#[derive(Debug)]
pub(crate) struct DmaRegion {
    pages: Pages,
}

impl DmaRegion {
    /// Takes at least `pages` zeroed pages; none when there is no such memory.
    pub(crate) fn new(pages: usize) -> Option<Self> {
        let order = pages.next_power_of_two().trailing_zeros();
        memory::alloc_contiguous(order, ADDRESS_BITS).ok().map(|pages| Self { pages })
    }

    /// Where devices find it.
    pub(crate) fn machine_address(&self) -> u64 {
        memory::machine_address(self.pages.first())
    }

    /// Its halfwords, which a device may read and write at any time.
    pub(crate) fn halves(&self) -> &[AtomicU16] {
        // SAFETY: the pages are mapped in a row and owned, page-aligned, and atomics may be shared with a device.
        unsafe { core::slice::from_raw_parts(self.pages.addr() as *const AtomicU16, self.pages.len_bytes() / 2) }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the pages are mapped in a row and owned; `&self` keeps others from changing them.
        unsafe { core::slice::from_raw_parts(self.pages.addr() as *const u8, self.pages.len_bytes()) }
    }

    /// Its bytes, to change them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the pages are mapped in a row and owned; `&mut self` makes the borrow unique.
        unsafe { core::slice::from_raw_parts_mut(self.pages.addr() as *mut u8, self.pages.len_bytes()) }
    }
}

/// Regions that the driver library holds by address.
static LENT: IrqLock<BTreeMap<usize, Pages>> = IrqLock::new(BTreeMap::new());

/// How the virtio driver library gets and names memory.
#[derive(Debug)]
pub(crate) struct DmaHal;

// SAFETY: regions are owned, zeroed, page-aligned and in a row in machine memory; device registers are mapped uncached
// and stay mapped; addresses are translated page by page.
unsafe impl Hal for DmaHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let order = pages.next_power_of_two().trailing_zeros();
        let Ok(region) = memory::alloc_contiguous(order, ADDRESS_BITS) else {
            return (0, NonNull::dangling());
        };
        let Some(addr) = NonNull::new(region.addr() as *mut u8) else {
            return (0, NonNull::dangling());
        };
        let machine = memory::machine_address(region.first());
        LENT.lock().insert(region.addr(), region);
        (machine, addr)
    }

    unsafe fn dma_dealloc(_: PhysAddr, addr: NonNull<u8>, _: usize) -> i32 {
        let region = LENT.lock().remove(&(addr.as_ptr() as usize));
        if region.is_some() { 0 } else { -1 }
    }

    unsafe fn mmio_phys_to_virt(start: PhysAddr, size: usize) -> NonNull<u8> {
        let mapping = ForeignMapping::of_device(start, size).expect("the first domain may map device registers");
        let addr = mapping.addr() + start as usize % PAGE_SIZE;
        // Registers stay mapped: a driver lives as long as this domain.
        core::mem::forget(mapping);
        NonNull::new(addr as *mut u8).expect("a mapping is not at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        let start = buffer.as_ptr().cast::<u8>() as usize;
        let first = machine(start);
        let end = start + buffer.len();
        let pages = (start / PAGE_SIZE + 1..end.div_ceil(PAGE_SIZE)).map(|page| page * PAGE_SIZE);
        let in_a_row = pages.into_iter().all(|page| machine(page) == first + (page - start) as u64);
        assert!(in_a_row, "a buffer for a device is in a row in machine memory");
        first
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The machine address behind an address of this domain.
fn machine(addr: usize) -> u64 {
    let pfn = mm::translate(addr).expect("a buffer is mapped");
    memory::machine_address(pfn) + (addr % PAGE_SIZE) as u64
}
