//! L1 entries: which frames a guest may map, and how.
//!
//! A present L1 entry holds a reference on its frame, and, where it is writable, a type reference as writable memory.
//! Entries to device memory hold nothing; the frame table has no record, or an empty one, for device memory, so the
//! entry itself tells which it is.

use pv_abi::Mfn;
use pv_abi::errno::Errno;

use super::entry::{self, CACHING, PAT, PCD, PWT, WRITABLE, is_present};
use super::table::Owners;
use crate::Hypervisor;
use crate::frames::{self, Acquired, ClaimedMfn, CountWord, PageType};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// An L1 table and an index in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) table: Mfn,
    pub(super) index: usize,
}

/// The most physical-address bits that a frame number in an entry can have.
const ALL_FRAMES: u64 = entry::FRAME >> 12;

/// Takes the references that a present L1 entry needs; the entry as it will stand in the table.
///
/// # Errors
/// `EINVAL` for forbidden bits, `EBUSY` for a frame that is another's or in use as a table, `EPERM` for device memory
/// without permission, `EACCES` for special caching of the hypervisor's shared frames.
#[inline]
pub(super) fn get_l1_entry<M: Machine>(hv: &Hypervisor<M>, seen: u64, owners: Owners<'_>) -> Result<u64, Refusal> {
    if seen & entry::L1_FORBIDDEN != 0 {
        check_caching(hv, seen, owners)?;
    }
    let Some(record) = hv.frames.find(entry::claimed(seen)).filter(|record| record.get(owners.page)) else {
        return get_unowned(hv, seen, owners);
    };
    if seen & WRITABLE != 0 {
        // The second is for frames that another domain had written to: what their owner's builder loaded, for example.
        if !record.acquire_writable_again() && !record.acquire_type_in_use(PageType::Writable) {
            take_writable(hv, seen)?;
        }
        if owners.page != owners.table.id {
            record.set_foreign();
        }
    }
    Ok(entry::adjust_l1(seen))
}

/// Takes the type reference of a writable mapping; on refusal the reference is given back.
fn take_writable<M: Machine>(hv: &Hypervisor<M>, seen: u64) -> Result<(), Refusal> {
    let mfn = entry::frame(seen);
    if frames::acquire(hv, mfn, PageType::Writable) == Acquired::Ready {
        return Ok(());
    }
    let refusal = not_mappable(hv, entry::claimed(seen));
    frames::put(hv, mfn);
    Err(refusal)
}

#[cold]
fn not_mappable<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn) -> Refusal {
    Refusal::errno(Errno::Busy, rules::L1_TARGET).with(frames::evidence(hv, claimed))
}

/// Caching bits are for those who have devices, and not for what the hypervisor shares.
#[cold]
fn check_caching<M: Machine>(hv: &Hypervisor<M>, seen: u64, owners: Owners<'_>) -> Result<(), Refusal> {
    if !super::device::has_devices(owners.table) {
        return Err(Refusal::errno(Errno::Inval, rules::ENTRY_BITS).with(Evidence::Entry { value: seen, level: 1 }));
    }
    let shared = hv.frames.find(entry::claimed(seen)).is_some_and(|record| record.count_word().has(CountWord::SHARED));
    if shared {
        return Err(
            Refusal::errno(Errno::Access, rules::CACHE_OF_SHARED).with(Evidence::Entry { value: seen, level: 1 })
        );
    }
    Ok(())
}

/// A frame that is not the domain's: device memory, or refused.
#[cold]
fn get_unowned<M: Machine>(hv: &Hypervisor<M>, seen: u64, owners: Owners<'_>) -> Result<u64, Refusal> {
    let claimed = entry::claimed(seen);
    let mfn = Mfn(claimed.0);
    let record = hv.frames.find(claimed);
    if record.is_some_and(|record| record.is_owned() || !hv.machine.is_device_memory(mfn.address())) {
        return Err(not_mappable(hv, claimed));
    }
    let allowed = super::device::may_map(hv, owners.table, mfn) && super::device::may_map(hv, owners.device, mfn);
    if !allowed {
        let errno = if claimed.0 == ALL_FRAMES { Errno::Inval } else { Errno::Perm };
        return Err(Refusal::errno(errno, rules::DEVICE_MEMORY).with(Evidence::Entry { value: seen, level: 1 }));
    }
    Ok(entry::adjust_l1(uncached(seen)))
}

/// An entry to device memory is not cached: caching modes that cache become "uncacheable" (the page-attribute table is
/// 0x0000_0501_0007_0406: entries 0 write-back, 1 write-through, 5 write-protect).
const fn uncached(seen: u64) -> u64 {
    let mode = (seen & PWT != 0) as u8 | ((seen & PCD != 0) as u8) << 1 | ((seen & PAT != 0) as u8) << 2;
    match mode {
        0 | 1 | 5 => seen & !CACHING | PCD | PWT,
        _ => seen,
    }
}

/// Gives the references of an L1 entry back that stood in a checked table.
#[inline]
pub(super) fn put_l1_entry<M: Machine>(hv: &Hypervisor<M>, seen: u64) {
    if !is_present(seen) {
        return;
    }
    let Some(record) = hv.frames.find(entry::claimed(seen)).filter(|record| record.is_owned()) else {
        return;
    };
    if seen & WRITABLE != 0 {
        record.release_writable(hv.frames.now());
    }
    frames::put_record(hv, entry::frame(seen), record);
}

/// Writes an L1 entry of a checked table, of which the caller holds a type reference.
///
/// With `keep_marks` the accessed and dirty bits that the CPU set stay set.
///
/// # Errors
/// Those of [`get_l1_entry`]; the entry is as it was.
#[inline(always)]
pub(super) fn update_l1<M: Machine>(
    hv: &Hypervisor<M>,
    place: Place,
    new: u64,
    keep_marks: bool,
    owners: Owners<'_>,
) -> Result<(), Refusal> {
    let old = hv.machine.read_word(place.table, place.index);
    if try_update_l1(hv, place, old, new, keep_marks, owners)? {
        return Ok(());
    }
    update_l1_again(hv, place, new, keep_marks, owners)
}

/// The entry changed at the same moment.
#[cold]
fn update_l1_again<M: Machine>(
    hv: &Hypervisor<M>,
    place: Place,
    new: u64,
    keep_marks: bool,
    owners: Owners<'_>,
) -> Result<(), Refusal> {
    loop {
        let old = hv.machine.read_word(place.table, place.index);
        if try_update_l1(hv, place, old, new, keep_marks, owners)? {
            return Ok(());
        }
    }
}

/// [`update_l1`], if the entry still is `old`; whether it was.
///
/// # Errors
/// Those of [`get_l1_entry`]; the entry is as it was.
#[inline(always)]
pub(super) fn try_update_l1<M: Machine>(
    hv: &Hypervisor<M>,
    place: Place,
    old: u64,
    new: u64,
    keep_marks: bool,
    owners: Owners<'_>,
) -> Result<bool, Refusal> {
    let changed = old ^ new;
    let same_frame = old & new & entry::PRESENT != 0 && changed & !(entry::HARMLESS | WRITABLE) == 0;
    if !same_frame || changed & new & WRITABLE != 0 {
        return replace(hv, place, old, new, keep_marks, owners);
    }
    let value = entry::adjust_l1(new) | marks(old, keep_marks);
    let done = value == old || exchange(hv, place, old, value);
    if done && changed & WRITABLE != 0 {
        put_writable(hv, old);
    }
    Ok(done)
}

#[inline]
fn exchange<M: Machine>(hv: &Hypervisor<M>, place: Place, old: u64, value: u64) -> bool {
    hv.machine.compare_exchange_word(place.table, place.index, old, value).is_ok()
}

#[inline]
const fn marks(old: u64, keep: bool) -> u64 {
    if keep { old & (entry::ACCESSED | entry::DIRTY) } else { 0 }
}

/// A mapping is no longer writable: it keeps its reference and gives the type reference back.
#[inline]
fn put_writable<M: Machine>(hv: &Hypervisor<M>, old: u64) {
    if let Some(record) = hv.frames.find(entry::claimed(old)).filter(|record| record.is_owned()) {
        record.release_writable(hv.frames.now());
    }
}

/// Another frame, more rights, or none: takes what the new entry needs, then gives back what the old one had.
#[inline(never)]
fn replace<M: Machine>(
    hv: &Hypervisor<M>,
    place: Place,
    old: u64,
    new: u64,
    keep_marks: bool,
    owners: Owners<'_>,
) -> Result<bool, Refusal> {
    let value = if is_present(new) { get_l1_entry(hv, new, owners)? } else { new };
    let done = exchange(hv, place, old, value | marks(old, keep_marks));
    put_l1_entry(hv, if done { old } else { value });
    Ok(done)
}
