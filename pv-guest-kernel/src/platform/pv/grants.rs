//! Grant tables, version 1: sharing pages with other domains.
//!
//! Words used: the *granter* owns a page and writes an entry of its table; the *grantee* maps or copies it by the entry's
//! index, the [`GrantRef`]. Xen marks an entry while a grantee uses it.
//!
//! Invariant: an entry that Xen marks is never reused: [`end_access`] takes an entry back only by a compare-and-exchange
//! against "permitted and not in use".
//!
//! Source: Xen `public/grant_table.h`.
#![expect(unsafe_code, reason = "grants change who may reach memory")]

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use pv_abi::errno::Errno;
use pv_abi::grant_table as gnttab;
use pv_abi::memory::{AddToPhysmap, XENMAPSPACE_GRANT_TABLE, XENMEM_ADD_TO_PHYSMAP};
use pv_abi::xen::{self, MmuUpdate};
use pv_abi::{DomId, GrantRef};

use super::foreign::Access;
use super::{hypercall, p2m, paging};
use crate::mm::frames::Pages;
use crate::mm::kernel_map::AddressRange;
use crate::mm::{Entry, EntryFlags, PAGE_SIZE, Pfn};
use crate::sync::IrqLock;

/// Frames of the grant table this kernel asks for: 32 × 512 entries.
const TABLE_FRAMES: usize = 32;

/// The table's entries that are free for use.
static FREE: IrqLock<Vec<u32>> = IrqLock::new(Vec::new());
/// Where the table is mapped; 0 without one.
static TABLE: AtomicUsize = AtomicUsize::new(0);
static TABLE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Why a grant operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrantError {
    /// The table is full, or there is none.
    NoFreeEntry,
    /// The grantee has the page mapped at this moment.
    InUse,
    /// No kernel addresses or page tables for a mapping.
    NoAddresses,
    /// Xen's answer, one of `GNTST_*`.
    Status(i16),
    /// The hypercall itself failed.
    Refused(Errno),
}

/// Sets up the table and maps it. Without one the kernel runs, but cannot share pages.
pub(in crate::platform) fn init() {
    if !crate::platform::is_pv() {
        return use_own_frames();
    }
    let mut frames = [0_u64; TABLE_FRAMES];
    let count = [TABLE_FRAMES, 4, 1].into_iter().find(|count| ask_for_table(&mut frames[..*count]));
    let Some(range) = count.and_then(AddressRange::reserve) else {
        log::warn!("no grant table: this domain cannot share pages");
        return;
    };
    set_table(range.addr(), range.pages());
    // The table keeps its addresses as long as the domain lives.
    core::mem::forget(range);
    map_table();
}

/// The table is at `addr` from now on.
fn set_table(addr: usize, pages: usize) {
    let bytes = pages * PAGE_SIZE;
    TABLE.store(addr, Ordering::Relaxed);
    TABLE_BYTES.store(bytes, Ordering::Relaxed);
    let entries = (bytes / size_of::<gnttab::GrantEntryV1>()) as u32;
    FREE.lock().extend((gnttab::GNTTAB_NR_RESERVED_ENTRIES..entries).rev());
}

/// With hardware assistance the table takes the place of frames of this domain, whose memory goes back to the hypervisor.
fn use_own_frames() {
    let Some(pages) = Pages::alloc(TABLE_FRAMES) else {
        log::warn!("no memory for the grant table: this domain cannot share pages");
        return;
    };
    let put = |page: &usize| {
        let mut argument = AddToPhysmap {
            domid: xen::DOMID_SELF,
            space: XENMAPSPACE_GRANT_TABLE,
            idx: *page as u64,
            gpfn: pages.pfn(*page).0,
            ..AddToPhysmap::default()
        };
        // SAFETY: the frame is this function's, and nothing is in it.
        unsafe { hypercall::operation(xen::HYPERVISOR_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, &mut argument) }.is_ok()
    };
    set_table(pages.addr(), (0..TABLE_FRAMES).take_while(put).count());
    core::mem::forget(pages);
}

/// Maps the table, which is another and empty one in a new domain. Entries that were in use stay with their users, who
/// end them one by one.
pub(super) fn map_table() {
    let mut frames = [0_u64; TABLE_FRAMES];
    let frames = &mut frames[..TABLE_BYTES.load(Ordering::Relaxed) / PAGE_SIZE];
    if frames.is_empty() {
        return;
    }
    assert!(ask_for_table(frames), "the grant table was there before");
    write_table_mapping(|page| Entry::new(Pfn(0), EntryFlags::KERNEL_DATA).bits_with_frame(frames[page]));
}

/// Takes the mapping away: no page table may name a frame of Xen's while the domain is saved.
pub(super) fn unmap_table() {
    write_table_mapping(|_| 0);
    paging::flush_all();
}

fn write_table_mapping(bits: impl Fn(usize) -> u64) {
    let table = TABLE.load(Ordering::Relaxed);
    let pages = TABLE_BYTES.load(Ordering::Relaxed) / PAGE_SIZE;
    let slots = (0..pages).filter_map(|page| AddressRange::slot(table + page * PAGE_SIZE));
    let requests: Vec<_> = slots
        .enumerate()
        .map(|(page, (table, index))| MmuUpdate::normal(paging::entry_address(table, index), bits(page)))
        .collect();
    if !requests.is_empty() {
        paging::mmu_update(&requests, DomId(xen::DOMID_SELF)).expect("the grant table can be mapped");
    }
}

fn ask_for_table(frames: &mut [u64]) -> bool {
    let mut setup = gnttab::GnttabSetupTable {
        dom: xen::DOMID_SELF,
        nr_frames: frames.len() as u32,
        frame_list: frames.as_mut_ptr() as u64,
        ..gnttab::GnttabSetupTable::default()
    };
    let made = operation(gnttab::GNTTABOP_SETUP_TABLE, core::slice::from_mut(&mut setup));
    made.is_ok() && setup.status == gnttab::GNTST_OKAY
}

fn operation<T>(command: u32, batch: &mut [T]) -> Result<(), Errno> {
    let args = [u64::from(command), batch.as_mut_ptr() as u64, batch.len() as u64, 0, 0];
    // SAFETY: each caller passes structs of its command, and owns the memory they name.
    unsafe { hypercall::call(xen::HYPERVISOR_GRANT_TABLE_OP, args) }.map(|_| ())
}

fn entry(grant: GrantRef) -> Option<&'static gnttab::GrantEntryV1Atomic> {
    let table = TABLE.load(Ordering::Relaxed);
    let offset = grant.0 as usize * size_of::<gnttab::GrantEntryV1Atomic>();
    if table == 0 || offset >= TABLE_BYTES.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: within the mapped table, whose entries are atomic.
    Some(unsafe { &*((table + offset) as *const gnttab::GrantEntryV1Atomic) })
}

/// Lets `peer` map or copy one of this domain's frames.
///
/// # Errors
/// [`GrantError::NoFreeEntry`] when the table is full.
pub fn grant_access(peer: DomId, pfn: Pfn, access: Access) -> Result<GrantRef, GrantError> {
    let index = FREE.lock().pop().ok_or(GrantError::NoFreeEntry)?;
    let grant = GrantRef(index);
    permit(grant, peer, pfn, access)?;
    Ok(grant)
}

/// Writes a given entry of the table: for the reserved ones, and for those [`grant_access`] takes.
///
/// # Errors
/// [`GrantError::NoFreeEntry`] without a table.
pub fn permit(grant: GrantRef, peer: DomId, pfn: Pfn, access: Access) -> Result<(), GrantError> {
    let entry = entry(grant).ok_or(GrantError::NoFreeEntry)?;
    let flags = match access {
        Access::Read => gnttab::GTF_PERMIT_ACCESS | gnttab::GTF_READONLY,
        Access::ReadWrite => gnttab::GTF_PERMIT_ACCESS,
    };
    entry.frame.store(p2m::mfn_of(pfn).0 as u32, Ordering::Relaxed);
    let word = u32::from(flags) | u32::from(peer.0) << 16;
    // The frame is there before Xen may look at it.
    entry.flags_and_domid.store(word, Ordering::Release);
    Ok(())
}

/// Takes a grant back if the grantee is not using it.
///
/// # Errors
/// [`GrantError::InUse`] while it is: the page must stay what it is, try again later.
pub fn end_access(grant: GrantRef) -> Result<(), GrantError> {
    let entry = entry(grant).ok_or(GrantError::NoFreeEntry)?;
    let in_use = u32::from(gnttab::GTF_READING | gnttab::GTF_WRITING);
    let mut word = entry.flags_and_domid.load(Ordering::Acquire);
    loop {
        if word & in_use != 0 {
            return Err(GrantError::InUse);
        }
        match entry.flags_and_domid.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(now) => word = now,
        }
    }
    if grant.0 >= gnttab::GNTTAB_NR_RESERVED_ENTRIES {
        FREE.lock().push(grant.0);
    }
    Ok(())
}

/// Free entries of the table.
#[must_use]
pub fn free_entries() -> usize {
    FREE.lock().len()
}

/// A page that another domain granted, mapped here. Dropping it unmaps it.
#[derive(Debug)]
pub struct GrantMapping {
    /// `None` once it is unmapped.
    range: Option<AddressRange>,
    addr: usize,
    handle: u32,
}

impl GrantMapping {
    /// The first byte.
    #[must_use]
    pub fn addr(&self) -> usize {
        self.addr
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        if self.range.is_some() {
            unmap_batch(core::slice::from_mut(self));
        }
    }
}

/// Maps pages that `peer` granted, in one hypercall; one result for each, in order.
pub fn map(peer: DomId, access: Access, grants: &[GrantRef]) -> Vec<Result<GrantMapping, GrantError>> {
    let mut flags = gnttab::GNTMAP_HOST_MAP;
    if access == Access::Read {
        flags |= gnttab::GNTMAP_READONLY;
    }
    let ranges: Vec<_> = grants.iter().map(|_| AddressRange::reserve(1)).collect();
    let mut batch: Vec<_> = grants
        .iter()
        .zip(&ranges)
        .filter_map(|(grant, range)| {
            Some(gnttab::GnttabMapGrantRef {
                host_addr: range.as_ref()?.addr() as u64,
                flags,
                ref_: grant.0,
                dom: peer.0,
                ..gnttab::GnttabMapGrantRef::default()
            })
        })
        .collect();
    let called = operation(gnttab::GNTTABOP_MAP_GRANT_REF, &mut batch);
    let mut answers = batch.iter();
    ranges
        .into_iter()
        .map(|range| {
            let range = range.ok_or(GrantError::NoAddresses)?;
            let answer = answers.next().ok_or(GrantError::NoAddresses)?;
            called.map_err(GrantError::Refused)?;
            match answer.status {
                gnttab::GNTST_OKAY => {
                    Ok(GrantMapping { addr: range.addr(), range: Some(range), handle: answer.handle })
                }
                status => Err(GrantError::Status(status)),
            }
        })
        .collect()
}

/// Unmaps in one hypercall.
pub fn unmap(mut mappings: Vec<GrantMapping>) {
    unmap_batch(&mut mappings);
}

fn unmap_batch(mappings: &mut [GrantMapping]) {
    let mut batch: Vec<_> = mappings
        .iter()
        .map(|mapping| gnttab::GnttabUnmapGrantRef {
            host_addr: mapping.addr() as u64,
            handle: mapping.handle,
            ..gnttab::GnttabUnmapGrantRef::default()
        })
        .collect();
    let called = operation(gnttab::GNTTABOP_UNMAP_GRANT_REF, &mut batch);
    for (mapping, answer) in mappings.iter_mut().zip(&batch) {
        let range = mapping.range.take();
        if called.is_err() || answer.status != gnttab::GNTST_OKAY {
            log::error!("grant handle {} does not unmap: {}", mapping.handle, gnttab::status_message(answer.status));
            // The page may still be there: nothing else must come to these addresses.
            core::mem::forget(range);
        }
    }
}

/// One end of a copy: bytes within one page.
#[derive(Clone, Copy, Debug)]
pub enum CopyEnd {
    /// A frame of this domain.
    Local(Pfn),
    /// A page that a domain granted.
    Granted(DomId, GrantRef),
}

/// A copy between two pages, made by Xen.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// From where.
    pub source: CopyEnd,
    /// Offset in that page.
    pub source_offset: u16,
    /// To where.
    pub dest: CopyEnd,
    /// Offset in that page.
    pub dest_offset: u16,
    /// How many bytes; within the page at both ends.
    pub len: u16,
}

/// Does all copies in one hypercall; one result for each.
pub fn copy(copies: &[Copy]) -> Vec<Result<(), GrantError>> {
    let end = |end: CopyEnd, offset: u16| {
        let (u, domid) = match end {
            CopyEnd::Local(pfn) => (p2m::mfn_of(pfn).0, xen::DOMID_SELF),
            CopyEnd::Granted(domain, grant) => (u64::from(grant.0), domain.0),
        };
        gnttab::GnttabCopyPtr { u, domid, offset, _pad0: 0 }
    };
    let granted = |end: CopyEnd, flag: u16| match end {
        CopyEnd::Local(_) => 0,
        CopyEnd::Granted(..) => flag,
    };
    let mut batch: Vec<_> = copies
        .iter()
        .map(|copy| gnttab::GnttabCopy {
            source: end(copy.source, copy.source_offset),
            dest: end(copy.dest, copy.dest_offset),
            len: copy.len,
            flags: granted(copy.source, gnttab::GNTCOPY_SOURCE_GREF) | granted(copy.dest, gnttab::GNTCOPY_DEST_GREF),
            status: 0,
            _pad0: 0,
        })
        .collect();
    let called = operation(gnttab::GNTTABOP_COPY, &mut batch);
    batch
        .iter()
        .map(|answer| {
            called.map_err(GrantError::Refused)?;
            match answer.status {
                gnttab::GNTST_OKAY => Ok(()),
                status => Err(GrantError::Status(status)),
            }
        })
        .collect()
}
