//! Frames for devices: in a row in machine memory, and below an address a device can reach.
//!
//! pfns in a row are machine frames anywhere. A device sees machine addresses, so memory for DMA is exchanged for a row of
//! machine frames (`XENMEM_exchange`), and the direct map and p2m list follow.
//!
//! Source: Xen `public/memory.h`.
#![expect(unsafe_code, reason = "exchanges the memory behind addresses")]

use alloc::vec::Vec;

use pv_abi::errno::Errno;
use pv_abi::memory::{MemoryExchange, MemoryReservation, XENMEM_EXCHANGE};
use pv_abi::xen;
use pv_abi::{Mfn, PAGE_SHIFT};

use super::{hypercall, p2m, paging};
use crate::mm::frames::Pages;
use crate::mm::{Entry, EntryFlags, Pfn, direct};

/// The machine address of byte 0 of a frame of this domain.
#[must_use]
pub fn machine_address(pfn: Pfn) -> u64 {
    p2m::mfn_of(pfn).0 << PAGE_SHIFT
}

/// Takes `1 << order` zeroed frames whose machine frames are in a row and below 2^`address_bits` bytes.
///
/// # Errors
/// `ENOMEM` when this domain or Xen has none.
pub fn alloc_contiguous(order: u32, address_bits: u32) -> Result<Pages, Errno> {
    let count = 1 << order;
    let pages = Pages::alloc(count).ok_or(Errno::NoMem)?;
    if !is_contiguous(&pages, address_bits) {
        exchange(&pages, order, address_bits)?;
    }
    Ok(pages)
}

fn is_contiguous(pages: &Pages, address_bits: u32) -> bool {
    let first = p2m::mfn_of(pages.first()).0;
    let limit = 1_u64 << (address_bits - PAGE_SHIFT);
    first + pages.count() as u64 <= limit
        && (0..pages.count()).all(|page| p2m::mfn_of(pages.pfn(page)).0 == first + page as u64)
}

fn exchange(pages: &Pages, order: u32, address_bits: u32) -> Result<(), Errno> {
    let old: Vec<u64> = (0..pages.count()).map(|page| p2m::mfn_of(pages.pfn(page)).0).collect();
    for page in 0..pages.count() {
        paging::update_va_mapping(direct(pages.pfn(page)), 0, paging::everywhere())?;
    }
    let mut new = pages.first().0;
    let reservation = |extents: u64, count: u64, order: u32, bits: u32| MemoryReservation {
        extent_start: extents,
        nr_extents: count,
        extent_order: order,
        mem_flags: bits,
        domid: xen::DOMID_SELF,
        ..MemoryReservation::default()
    };
    let mut argument = MemoryExchange {
        in_: reservation(old.as_ptr() as u64, old.len() as u64, 0, 0),
        out: reservation(&raw mut new as u64, 1, order, address_bits),
        nr_exchanged: 0,
    };
    // SAFETY: the frames are unmapped and this function's; Xen reads `old` and writes `new`.
    let result = unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, XENMEM_EXCHANGE, &mut argument) };
    let exchanged = result.is_ok() && argument.nr_exchanged == old.len() as u64;
    for page in 0..pages.count() {
        let pfn = pages.pfn(page);
        if exchanged {
            p2m::set(pfn, Mfn(new + page as u64));
        }
        let entry = Entry::new(pfn, EntryFlags::KERNEL_DATA);
        let bits = entry.bits_with_frame(p2m::mfn_of(pfn).0);
        paging::update_va_mapping(direct(pfn), bits, xen::UVMF_INVLPG)?;
        crate::mm::phys::zero(pfn);
    }
    if exchanged { Ok(()) } else { result.and(Err(Errno::NoMem)) }
}
