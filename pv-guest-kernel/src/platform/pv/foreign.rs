//! Mapping machine frames that are not this domain's: another domain's memory, Xen's, or a device's.
//!
//! A foreign frame has no pfn. Its last-level entries are written with `mmu_update` naming the frames' owner; Xen checks
//! that this domain may.
#![expect(unsafe_code, reason = "maps memory that Rust does not know of")]

use alloc::vec::Vec;

use pv_abi::errno::Errno;
use pv_abi::xen::{self, MmuUpdate};
use pv_abi::{DomId, Mfn};

use super::paging;
use crate::mm::kernel_map::AddressRange;
use crate::mm::{Entry, EntryFlags, PAGE_SIZE, Pfn};

/// Entries changed in one hypercall.
const BATCH: usize = 128;

/// Machine frames mapped in a row. Dropping it unmaps them.
#[derive(Debug)]
pub struct ForeignMapping {
    range: AddressRange,
}

/// What may be done with mapped frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

impl ForeignMapping {
    /// Maps `frames` of `owner`.
    ///
    /// # Errors
    /// `ENOMEM` without addresses or tables; Xen's errno when this domain may not map one of them (nothing stays mapped).
    pub fn new(owner: DomId, frames: &[Mfn], access: Access) -> Result<Self, Errno> {
        let flags = match access {
            Access::Read => EntryFlags::KERNEL_READ_ONLY,
            Access::ReadWrite => EntryFlags::KERNEL_DATA,
        };
        Self::with_flags(owner, frames, flags, MmuUpdate::normal)
    }

    /// Maps frames that the hypervisor keeps for `owner` (`XENMEM_acquire_resource`), which are the machine's whatever
    /// frame numbers `owner` has.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_resource(owner: DomId, frames: &[Mfn]) -> Result<Self, Errno> {
        Self::with_flags(owner, frames, EntryFlags::KERNEL_DATA, MmuUpdate::no_translate)
    }

    /// Maps device memory: `len` bytes from machine address `start`, uncached.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_device(start: u64, len: usize) -> Result<Self, Errno> {
        let first = start >> 12;
        let end = (start + len as u64).div_ceil(PAGE_SIZE as u64);
        let frames: Vec<_> = (first..end).map(Mfn).collect();
        let flags = EntryFlags::KERNEL_DATA | EntryFlags::UNCACHED;
        Self::with_flags(DomId(xen::DOMID_IO), &frames, flags, MmuUpdate::normal)
    }

    fn with_flags(
        owner: DomId,
        frames: &[Mfn],
        flags: EntryFlags,
        update: fn(u64, u64) -> MmuUpdate,
    ) -> Result<Self, Errno> {
        let range = AddressRange::reserve(frames.len()).ok_or(Errno::NoMem)?;
        let mapping = Self { range };
        let requests: Vec<_> = frames
            .iter()
            .enumerate()
            .filter_map(|(page, mfn)| {
                let (table, index) = AddressRange::slot(mapping.addr() + page * PAGE_SIZE)?;
                let bits = Entry::new(Pfn(0), flags).bits_with_frame(mfn.0);
                Some(update(paging::entry_address(table, index), bits))
            })
            .collect();
        for batch in requests.chunks(BATCH) {
            paging::mmu_update(batch, owner)?;
        }
        Ok(mapping)
    }

    /// The first byte.
    #[must_use]
    pub fn addr(&self) -> usize {
        self.range.addr()
    }

    /// Number of bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.range.pages() * PAGE_SIZE
    }

    /// Copies bytes out, from `offset` on.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.len_bytes(), "read beyond a mapping");
        let from = (self.addr() + offset) as *const u8;
        // SAFETY: the range is mapped while `self` lives, and checked above.
        unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes in, from `offset` on.
    pub fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.len_bytes(), "write beyond a mapping");
        let to = (self.addr() + offset) as *mut u8;
        // SAFETY: the range is mapped while `self` lives, and checked above.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
    }

    /// Fills bytes with zeros, from `offset` on.
    pub fn zero(&self, offset: usize, len: usize) {
        assert!(offset + len <= self.len_bytes(), "write beyond a mapping");
        let to = (self.addr() + offset) as *mut u8;
        // SAFETY: the range is mapped while `self` lives, and checked above.
        unsafe { core::ptr::write_bytes(to, 0, len) }
    }
}

impl Drop for ForeignMapping {
    fn drop(&mut self) {
        unmap(&self.range);
    }
}

/// Clears the entries of a range and forgets their translations.
fn unmap(range: &AddressRange) {
    let requests: Vec<_> = (0..range.pages())
        .filter_map(|page| AddressRange::slot(range.addr() + page * PAGE_SIZE))
        .map(|(table, index)| MmuUpdate::normal(paging::entry_address(table, index), 0))
        .collect();
    for batch in requests.chunks(BATCH) {
        paging::mmu_update(batch, DomId(xen::DOMID_SELF))
            .unwrap_or_else(|errno| panic!("a mapping cannot be cleared: {errno:?}"));
    }
    paging::flush_all();
}
