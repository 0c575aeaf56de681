//! Machine frames: owner, reference and type counts; the allocator.
//!
//! Everything that keeps domains apart rests on three rules, kept here and in [`crate::paging`]:
//!
//! 1. whoever can reach a frame, by a mapping or by holding its number, holds a *reference*, and only the frame's owner
//!    (or one the owner granted it to, or a privileged domain that names the owner) gets one;
//! 2. whoever relies on what is in a frame (a page table above it, a writable mapping, a descriptor table) holds a *type
//!    reference*, and a frame has one type at a time;
//! 3. before a frame gets another type or another owner, translations that may still be cached are forgotten, and
//!    before another owner it is cleared.
//!
//! Words: to *get* is to take a reference, to *put* is to give it back; a frame whose last reference is put is free.
//! The functions here take frames that a guest named ([`ClaimedMfn`]) and give frames that are proven ([`Mfn`]).

mod block;
mod buddy;
mod descriptor;
mod domain_memory;
mod record;
mod relinquish;
mod table;

use core::ops::Range;

use pv_abi::errno::Errno;
use pv_abi::{DomId, Mfn};

pub use block::{Block, NoBlock, allocate_domain_block, allocate_domain_frame};
pub(crate) use block::{adopt, free_block, give_back, take_block};
pub use buddy::{Allocator, MAX_ORDER};
pub use descriptor::check_descriptor;
pub use domain_memory::DomainMemory;
pub(crate) use record::{Acquired, Released};
pub use record::{CountWord, Frame, NOBODY, PageType, TypeWord};
pub use relinquish::relinquish;
pub(crate) use table::flush;
pub use table::{FlushClock, FrameTable, flush_all};

use crate::Hypervisor;
use crate::domain::Domain;
use crate::hardware::{CpuSet, Machine};
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// What the machine-to-physical table says of a frame that is nobody's.
pub const INVALID_M2P: u64 = u64::MAX;

/// A frame number that a guest named. It may not exist or may be another's: [`get`] proves both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimedMfn(pub u64);

impl From<Mfn> for ClaimedMfn {
    fn from(mfn: Mfn) -> Self {
        Self(mfn.0)
    }
}

/// Takes a reference to a frame of `owner`.
///
/// # Errors
/// `EINVAL` where there is no such frame or it is not `owner`'s.
#[inline]
pub fn get<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn, owner: DomId) -> Result<Mfn, Refusal> {
    if try_get(hv, claimed, owner) { Ok(Mfn(claimed.0)) } else { Err(not_owned(hv, claimed)) }
}

/// Takes a reference to a frame of `owner`; false where there is no such frame or it is not `owner`'s.
#[inline]
#[must_use]
pub(crate) fn try_get<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn, owner: DomId) -> bool {
    hv.frames.find(claimed).is_some_and(|record| record.get(owner))
}

/// Takes one more reference to a frame of which the caller holds one.
#[inline]
pub fn get_again<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) {
    hv.frames.record(mfn).hold();
}

/// Gives a reference back; frees the frame with the last.
#[inline]
pub fn put<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) {
    put_record(hv, mfn, hv.frames.record(mfn));
}

/// [`put`] for a frame whose record is at hand.
#[inline]
pub(crate) fn put_record<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, record: &Frame) {
    let before = record.put();
    if before.count() == 1 {
        release(hv, mfn, before);
    }
}

/// Takes a reference and a type reference to a frame of `owner`: [`PageType::Writable`], or [`PageType::Descriptor`],
/// for which all its descriptors are checked. Page tables go through [`crate::paging`].
///
/// # Errors
/// `EINVAL` where there is no such frame, it is not `owner`'s, or it is in use as something else.
pub fn get_typed<M: Machine>(
    hv: &Hypervisor<M>,
    claimed: ClaimedMfn,
    owner: DomId,
    kind: PageType,
) -> Result<Mfn, Refusal> {
    let mfn = get(hv, claimed, owner)?;
    match take_type(hv, mfn, kind) {
        Ok(()) => Ok(mfn),
        Err(refusal) => {
            put(hv, mfn);
            Err(refusal)
        }
    }
}

/// Takes a type reference to a frame of which the caller holds a reference.
///
/// # Errors
/// `EINVAL` where the frame is in use as something else or, for a descriptor page, holds a forbidden descriptor.
#[inline]
pub(crate) fn take_type<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, kind: PageType) -> Result<(), Refusal> {
    debug_assert!(kind.level().is_none(), "page tables are checked in `paging`");
    match acquire(hv, mfn, kind) {
        Acquired::Ready => Ok(()),
        Acquired::Check { .. } => check_descriptors(hv, mfn),
        _ => Err(type_conflict(hv, mfn)),
    }
}

/// Asks for a type, having stale translations forgotten where they are in the way. Never [`Acquired::Changed`].
///
/// For a plain type it waits while another CPU has them forgotten, or checks descriptors: both end soon.
#[inline]
pub(crate) fn acquire<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, kind: PageType) -> Acquired {
    let record = hv.frames.record(mfn);
    loop {
        match record.acquire_type(kind) {
            Acquired::Changed { foreign } => {
                forget_stale(hv, record, foreign);
                if kind.is_checked() {
                    return Acquired::Check { from: 0, resumed: false };
                }
                record.set_validated();
                return Acquired::Ready;
            }
            Acquired::Busy if kind.level().is_none() => core::hint::spin_loop(),
            acquired => return acquired,
        }
    }
}

/// Has translations forgotten by which a frame was used as what it no longer is.
///
/// Only the owner's CPUs can hold them, unless another domain had the frame mapped writable.
#[inline]
fn forget_stale<M: Machine>(hv: &Hypervisor<M>, record: &Frame, foreign: bool) {
    let stale = hv.frames.clock().stale(record.stamp());
    if stale.is_empty() {
        return;
    }
    let holders = match hv.domains.get(record.count_word().owner()) {
        Some(owner) if !foreign && stale != CpuSet::of(hv.machine.cpu()) => stale & owner.loaded(),
        _ => stale,
    };
    if !holders.is_empty() {
        flush(hv, holders);
    }
}

/// Gives a type reference that is no page table's back.
#[inline]
pub(crate) fn put_type<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) {
    let released = hv.frames.record(mfn).release_type(hv.frames.now());
    debug_assert_eq!(released, Released::Done);
}

/// Gives a reference and a type reference that is no page table's back.
pub fn put_typed<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) {
    put_type(hv, mfn);
    put(hv, mfn);
}

/// Checks a page that is about to be part of a descriptor table: every descriptor must be one a guest may have, and is
/// given the privilege level of guests.
fn check_descriptors<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) -> Result<(), Refusal> {
    for index in 0..512 {
        let seen = hv.machine.read_word(mfn, index);
        match check_descriptor(seen) {
            Some(allowed) if allowed == seen => {}
            Some(allowed) => hv.machine.write_word(mfn, index, allowed),
            None => {
                hv.frames.record(mfn).forget_type(hv.frames.now());
                return Err(Refusal::errno(Errno::Inval, rules::DESCRIPTOR).with(Evidence::Value(seen)));
            }
        }
    }
    hv.frames.record(mfn).set_validated();
    Ok(())
}

/// Whose a frame is, if it is anybody's.
#[must_use]
pub fn owner<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn) -> Option<DomId> {
    let word = hv.frames.find(claimed)?.count_word();
    (word.count() != 0 && word.owner() != NOBODY).then(|| word.owner())
}

/// What the frame table knows of a frame, for the log.
#[cold]
#[must_use]
pub fn evidence<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn) -> Evidence {
    let (count, type_info) =
        hv.frames.find(claimed).map_or((0, 0), |record| (record.count_word().0, record.type_word().0));
    Evidence::Frame { mfn: Mfn(claimed.0), owner: owner(hv, claimed), count, type_info }
}

#[cold]
pub(crate) fn not_owned<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn) -> Refusal {
    Refusal::errno(Errno::Inval, rules::FRAME_OWNER).with(evidence(hv, claimed))
}

#[cold]
pub(crate) fn type_conflict<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) -> Refusal {
    Refusal::errno(Errno::Inval, rules::TYPE_CONFLICT).with(evidence(hv, mfn.into()))
}

/// Makes frames that were in no use free.
pub fn add_free<M: Machine>(hv: &Hypervisor<M>, frames: Range<u64>) {
    hv.allocator.lock().add_range(&hv.frames, frames);
}

/// Takes 2^`order` frames for the hypervisor itself, all zero.
#[must_use]
pub fn allocate<M: Machine>(hv: &Hypervisor<M>, order: u32) -> Option<Mfn> {
    let first = take_unclaimed(hv, &mut hv.allocator.lock(), order)?;
    (0..1_u64 << order).for_each(|n| prepare(hv, Mfn(first.0 + n), true));
    Some(first)
}

/// Takes 2^`order` frames for the heap, with anything in them. The caller may hold any lock: where free frames cannot be
/// reached soon, there are none.
#[must_use]
pub fn allocate_for_heap<M: Machine>(hv: &Hypervisor<M>, order: u32) -> Option<Mfn> {
    const TRIES: u32 = 1000;
    let mut allocator = (0..TRIES).find_map(|_| hv.allocator.try_lock())?;
    let first = take_unclaimed(hv, &mut allocator, order)?;
    drop(allocator);
    (0..1_u64 << order).for_each(|n| prepare(hv, Mfn(first.0 + n), false));
    Some(first)
}

fn take_unclaimed<M: Machine>(hv: &Hypervisor<M>, allocator: &mut Allocator, order: u32) -> Option<Mfn> {
    (allocator.unclaimed_count() >= 1 << order).then(|| allocator.allocate(&hv.frames, order))?
}

/// Gives 2^`order` frames of the hypervisor itself back.
pub fn free<M: Machine>(hv: &Hypervisor<M>, first: Mfn, order: u32) {
    (0..1_u64 << order).for_each(|n| scrub(hv, Mfn(first.0 + n)));
    hv.allocator.lock().free(&hv.frames, first, order);
}

/// Makes a frame that was free ready for its next owner: nothing cached, nothing left in it, no type.
pub(crate) fn prepare<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, clear: bool) {
    let record = hv.frames.record(mfn);
    let stale = hv.frames.clock().stale(record.stamp());
    if !stale.is_empty() {
        flush(hv, stale);
    }
    if clear && !record.is_clean() {
        hv.machine.clear_frame(mfn);
    }
    record.reset_type(PageType::None);
}

/// Clears a frame that is about to be free.
fn scrub<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) {
    let record = hv.frames.record(mfn);
    hv.machine.clear_frame(mfn);
    hv.machine.set_m2p(mfn, INVALID_M2P);
    record.set_stamp(hv.frames.now());
    record.set_clean();
}

/// Frees a frame whose last reference was put.
#[cold]
fn release<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, before: CountWord) {
    debug_assert_eq!(hv.frames.record(mfn).type_word().count(), 0, "a type reference outlived its reference");
    if before.has(CountWord::LISTED) && before.owner() != NOBODY {
        let Some(domain) = hv.domains.get(before.owner()) else {
            log::error!("frame {mfn} of {} is on the list of a domain that is gone", before.owner());
            return;
        };
        domain.memory.lock().unlink(&hv.frames, mfn);
    }
    scrub(hv, mfn);
    hv.allocator.lock().free(&hv.frames, mfn, 0);
}

/// Takes a zeroed frame of the hypervisor that a domain may map, also writable: shared info, grant tables.
///
/// The frame is not counted as the domain's and the domain cannot give it away; [`free_shared`] ends it.
#[must_use]
pub fn allocate_shared<M: Machine>(hv: &Hypervisor<M>, domain: &Domain) -> Option<Mfn> {
    allocate_shared_for(hv, domain.id)
}

/// [`allocate_shared`] for a domain that is still being made.
#[must_use]
pub fn allocate_shared_for<M: Machine>(hv: &Hypervisor<M>, owner: DomId) -> Option<Mfn> {
    let mfn = allocate(hv, 0)?;
    share(hv, mfn, owner, PageType::Writable);
    Some(mfn)
}

/// Lets `owner` map a frame of the hypervisor: with [`PageType::Writable`] as it likes, with [`PageType::Shared`]
/// read-only. `DOMID_XEN` as the owner means any privileged domain.
pub fn share<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, owner: DomId, kind: PageType) {
    let record = hv.frames.record(mfn);
    record.reset_type(kind);
    record.assign(owner, 1, CountWord::SHARED);
}

/// Takes a frame of [`allocate_shared`] from its domain; it is free once the domain no longer maps it.
pub fn free_shared<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) {
    hv.frames.record(mfn).disown();
    put_typed(hv, mfn);
}

/// Takes a frame of [`allocate_shared`] from its domain, unless the domain has it mapped; then nothing changes. Ends with
/// [`free_shared`] or [`share_again`].
#[must_use]
pub(crate) fn take_shared<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, owner: DomId) -> bool {
    hv.frames.record(mfn).disown_unused(owner)
}

/// Undoes [`take_shared`].
pub(crate) fn share_again<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, owner: DomId) {
    hv.frames.record(mfn).assign(owner, 1, CountWord::SHARED);
}

/// Promises a domain free memory: it will own `pages` in the end. 0 ends the promise.
///
/// # Errors
/// `EINVAL` where it has a promise already, owns as much, or may not own so much; `ENOMEM` where there is too little.
pub fn claim<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, pages: u64) -> Result<(), Refusal> {
    let mut memory = domain.memory.lock();
    let mut allocator = hv.allocator.lock();
    if pages == 0 {
        allocator.claimed -= core::mem::take(&mut memory.claimed);
        return Ok(());
    }
    if memory.claimed != 0 || pages <= memory.total || pages > memory.max {
        let evidence = Evidence::Limit { asked: pages, limit: memory.max };
        return Err(Refusal::errno(Errno::Inval, crate::rules::memory::CLAIM).with(evidence));
    }
    let claim = pages - memory.total;
    if claim > allocator.unclaimed_count() {
        let evidence = Evidence::Limit { asked: claim, limit: allocator.unclaimed_count() };
        return Err(Refusal::errno(Errno::NoMem, crate::rules::memory::NO_MEMORY).with(evidence));
    }
    memory.claimed = claim;
    allocator.claimed += claim;
    Ok(())
}

/// Lets the owner's own reference go, where it still has it: the frame is free once nobody uses it.
///
/// Whether it had.
pub(crate) fn drop_allocation<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) -> bool {
    let had = hv.frames.record(mfn).clear_count_flag(CountWord::ALLOCATED);
    if had {
        put(hv, mfn);
    }
    had
}

/// Takes a frame from a domain that nobody uses but the domain itself, to give it to the allocator or another domain.
/// The caller holds one reference, which is gone afterwards; the frame is nobody's.
#[must_use]
pub(crate) fn steal<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, mfn: Mfn) -> bool {
    let stolen = hv.frames.record(mfn).steal(domain.id);
    if stolen {
        domain.memory.lock().unlink(&hv.frames, mfn);
    }
    stolen
}

/// Frees a frame of [`steal`]; it is cleared when it is next used.
pub(crate) fn free_stolen<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn) {
    let record = hv.frames.record(mfn);
    hv.machine.set_m2p(mfn, INVALID_M2P);
    record.set_stamp(hv.frames.now());
    record.reset_type(PageType::None);
    hv.allocator.lock().free(&hv.frames, mfn, 0);
}

#[cfg(test)]
mod tests;
