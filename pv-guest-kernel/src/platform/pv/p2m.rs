//! pfn ↔ mfn.
//!
//! The p2m list is this domain's: Xen or the domain builder filled it, this kernel keeps it true when it exchanges frames.
//! The m2p table is Xen's, read-only, for all machine frames, at a fixed address. A machine frame is ours exactly when both
//! agree.
#![expect(unsafe_code, reason = "reads the tables that Xen maps for the domain")]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pv_abi::Mfn;
use pv_abi::arch::{MACH2PHYS_VIRT_START, xen_pfn_to_cr3};

use super::shared;
use crate::mm::frames::Pages;
use crate::mm::{DIRECT_MAP, PAGE_SIZE, Pfn};
use crate::sync::IrqLock;

/// A pfn without memory.
pub const INVALID: u64 = u64::MAX;

static P2M: AtomicUsize = AtomicUsize::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static MACHINE_FRAMES: AtomicU64 = AtomicU64::new(0);

/// Where the list is (0: there is none), how long it is, and how many machine frames the m2p table covers.
pub(in crate::platform) fn init(list: usize, frames: u64, machine_frames: u64) {
    P2M.store(list, Ordering::Relaxed);
    FRAMES.store(frames, Ordering::Relaxed);
    MACHINE_FRAMES.store(machine_frames, Ordering::Relaxed);
}

/// Number of pfns.
#[must_use]
pub fn frames() -> u64 {
    FRAMES.load(Ordering::Relaxed)
}

/// Without a list every pfn is its own machine frame, as far as this domain knows: with hardware assistance another table
/// stands behind.
fn is_identity() -> bool {
    P2M.load(Ordering::Relaxed) == 0
}

fn slot(pfn: Pfn) -> Option<*mut u64> {
    let list = P2M.load(Ordering::Relaxed) as *mut u64;
    // SAFETY: the list has an entry for each pfn below `frames`.
    (pfn.0 < frames()).then(|| unsafe { list.add(pfn.0 as usize) })
}

/// The machine frame of a pfn.
///
/// # Panics
/// When the pfn has no memory behind it: the caller invented it.
#[must_use]
pub fn mfn_of(pfn: Pfn) -> Mfn {
    try_mfn_of(pfn).unwrap_or_else(|| panic!("pfn {pfn} has no machine frame"))
}

/// The machine frame of a pfn, if it has one.
#[must_use]
pub fn try_mfn_of(pfn: Pfn) -> Option<Mfn> {
    if is_identity() {
        return Some(Mfn(pfn.0));
    }
    // SAFETY: `slot` points into the list.
    let mfn = unsafe { slot(pfn)?.read_volatile() };
    (mfn != INVALID).then_some(Mfn(mfn))
}

/// The pfn of a machine frame, if the frame is this domain's.
#[must_use]
pub fn pfn_of(mfn: Mfn) -> Option<Pfn> {
    if is_identity() {
        return Some(Pfn(mfn.0));
    }
    if mfn.0 >= MACHINE_FRAMES.load(Ordering::Relaxed) {
        return None;
    }
    let entry = MACH2PHYS_VIRT_START + mfn.0 * 8;
    // SAFETY: the m2p table covers all frames below the number that Xen named.
    let pfn = Pfn(unsafe { (entry as *const u64).read_volatile() });
    (try_mfn_of(pfn) == Some(mfn)).then_some(pfn)
}

/// `pfn` has another machine frame now ([`INVALID`]: none).
pub(super) fn set(pfn: Pfn, mfn: Mfn) {
    let Some(slot) = slot(pfn).filter(|_| !is_identity()) else { return };
    // Odd while the list changes: a toolstack that reads it then reads again.
    let generation = &shared::shared_info().p2m_generation;
    generation.fetch_add(1, Ordering::AcqRel);
    // SAFETY: `slot` points into the list, which only this kernel writes.
    unsafe { slot.write_volatile(mfn.0) };
    generation.fetch_add(1, Ordering::AcqRel);
}

/// The frames of the list, by number, for those who cannot follow an address: up to 512 lists and one list of them.
struct FrameLists {
    top: Pages,
    lists: Pages,
}

static LISTS: IrqLock<Option<FrameLists>> = IrqLock::new(None);

/// Tells the toolstack where the list is: by its address and the page table for it, and by the machine frames it lies in. What
/// saves or moves a domain reads one or the other.
pub(super) fn publish() {
    let list = P2M.load(Ordering::Relaxed);
    let pages = frames().div_ceil(PER_PAGE);
    let mut kept = LISTS.lock();
    if kept.is_none() {
        *kept = Pages::alloc(1)
            .zip(Pages::alloc(pages.div_ceil(PER_PAGE) as usize))
            .map(|(top, lists)| FrameLists { top, lists });
    }
    let Some(kept) = kept.as_ref() else {
        log::warn!("no memory for the list of the p2m list: this domain cannot be saved by it");
        return;
    };
    let first = Pfn(((list - DIRECT_MAP) / PAGE_SIZE) as u64);
    for page in 0..pages {
        kept.lists.write(page as usize * 8, &mfn_of(Pfn(first.0 + page)).0.to_le_bytes());
    }
    for page in 0..kept.lists.count() {
        kept.top.write(page * 8, &mfn_of(kept.lists.pfn(page)).0.to_le_bytes());
    }
    let shared = shared::shared_info();
    shared.max_pfn.store(frames(), Ordering::Relaxed);
    shared.pfn_to_mfn_frame_list_list.store(mfn_of(kept.top.first()).0, Ordering::Relaxed);
    shared.p2m_generation.store(0, Ordering::Relaxed);
    shared.p2m_vaddr.store(list as u64, Ordering::Relaxed);
    let root = mfn_of(super::paging::kernel_root());
    shared.p2m_cr3.store(xen_pfn_to_cr3(root.0), Ordering::Release);
}

/// Entries of a page of any of these lists.
const PER_PAGE: u64 = (PAGE_SIZE / 8) as u64;
