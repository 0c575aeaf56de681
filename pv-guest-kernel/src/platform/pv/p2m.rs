//! pfn ↔ mfn.
//!
//! The p2m list is this domain's: Xen or the domain builder filled it, this kernel keeps it true when it exchanges frames.
//! The m2p table is Xen's, read-only, for all machine frames, at a fixed address. A machine frame is ours exactly when both
//! agree.
#![expect(unsafe_code, reason = "reads the tables that Xen maps for the domain")]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pv_abi::Mfn;
use pv_abi::arch::MACH2PHYS_VIRT_START;

use crate::mm::Pfn;

/// A pfn without memory.
pub const INVALID: u64 = u64::MAX;

static P2M: AtomicUsize = AtomicUsize::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static MACHINE_FRAMES: AtomicU64 = AtomicU64::new(0);

/// Where the list is, how long it is, and how many machine frames the m2p table covers.
pub(super) fn init(list: usize, frames: u64, machine_frames: u64) {
    P2M.store(list, Ordering::Relaxed);
    FRAMES.store(frames, Ordering::Relaxed);
    MACHINE_FRAMES.store(machine_frames, Ordering::Relaxed);
}

/// Number of pfns.
#[must_use]
pub fn frames() -> u64 {
    FRAMES.load(Ordering::Relaxed)
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
    // SAFETY: `slot` points into the list.
    let mfn = unsafe { slot(pfn)?.read_volatile() };
    (mfn != INVALID).then_some(Mfn(mfn))
}

/// The pfn of a machine frame, if the frame is this domain's.
#[must_use]
pub fn pfn_of(mfn: Mfn) -> Option<Pfn> {
    if mfn.0 >= MACHINE_FRAMES.load(Ordering::Relaxed) {
        return None;
    }
    let entry = MACH2PHYS_VIRT_START + mfn.0 * 8;
    // SAFETY: the m2p table covers all frames below the number that Xen named.
    let pfn = Pfn(unsafe { (entry as *const u64).read_volatile() });
    (try_mfn_of(pfn) == Some(mfn)).then_some(pfn)
}

/// `pfn` has another machine frame now.
pub(super) fn set(pfn: Pfn, mfn: Mfn) {
    if let Some(slot) = slot(pfn) {
        // SAFETY: `slot` points into the list, which only this kernel writes.
        unsafe { slot.write_volatile(mfn.0) };
    }
}
