//! Page tables gain and lose their type.
//!
//! A frame becomes a page table when all its entries were found good: each present entry then holds a reference (and a
//! type reference) on what it points to. The work is done entry by entry from the first, and undone from the last, so at
//! any moment the entries before some index, and no others, hold references. Where the work has to stop, that index is
//! kept in the frame ([`crate::frames::TypeWord::PARTIAL`]) and whoever comes next goes on there. Levels only go down,
//! so the recursion is at most four deep.
//!
//! A caller keeps its own reference to the frame it passes, whatever the outcome.

use pv_abi::errno::Errno;
use pv_abi::{DomId, Mfn};

use super::entry::{self, is_present};
use crate::Hypervisor;
use crate::domain::Domain;
use crate::frames::{self, Acquired, NOBODY, PageType, Released};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// Entries in a table.
pub(super) const ENTRIES: usize = 512;
/// How many L1 entries are handled between two questions whether to stop; empty ones take next to no time.
const L1_STEP: usize = 32;
/// Entries that are looked at together. Divides [`ENTRIES`].
const GROUP: usize = 16;

/// Why work on a table ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Stop {
    /// Something else waits: go on later. What was done is kept.
    Interrupted,
    /// A rule was broken. What was done is undone, or will be ([`Work::unfinished`]).
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A table that nobody wants any more and that is still partly held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    mfn: Mfn,
    kind: PageType,
    owner: DomId,
}

/// A piece of work on tables: whether it may stop, and what it left behind.
#[derive(Debug)]
pub struct Work {
    preemptible: bool,
    /// A table that is to be taken apart before the next work.
    pub unfinished: Option<Unfinished>,
}

impl Work {
    /// Work that may stop when something else waits.
    #[must_use]
    pub const fn preemptible() -> Self {
        Self { preemptible: true, unfinished: None }
    }

    /// Work that goes on to its end: only for what no running guest waits for.
    #[must_use]
    pub const fn whole() -> Self {
        Self { preemptible: false, unfinished: None }
    }

    fn should_stop<M: Machine>(&self, hv: &Hypervisor<M>) -> bool {
        self.preemptible && hv.machine.interrupt_waiting()
    }

    /// Whether to stop before the next entry, with `done` present ones handled this time.
    #[inline]
    fn stops_at<M: Machine>(&self, hv: &Hypervisor<M>, level: u8, done: usize) -> bool {
        done != 0 && (level > 1 || done.is_multiple_of(L1_STEP)) && self.should_stop(hv)
    }

    fn leave<M: Machine>(&mut self, hv: &Hypervisor<M>, mfn: Mfn, level: u8) {
        let owner = hv.frames.record(mfn).count_word().owner();
        self.unfinished = Some(Unfinished { mfn, kind: PageType::table(level), owner });
    }
}

/// Whose tables, and whose frames.
#[derive(Clone, Copy)]
pub struct Owners<'a> {
    /// The domain the tables belong to.
    pub table: &'a Domain,
    /// The domain that L1 entries point into: the table's, or the one a privileged caller named.
    pub page: DomId,
    /// The domain whose access to devices counts besides the table's.
    pub device: &'a Domain,
}

impl<'a> Owners<'a> {
    /// Tables and frames of one domain.
    #[must_use]
    pub const fn of(domain: &'a Domain) -> Self {
        Self { table: domain, page: domain.id, device: domain }
    }
}

/// Makes a frame, of which the caller holds a reference, a page table of this level and takes a type reference.
///
/// # Errors
/// `EINVAL` where it is in use as something else; what the check of its entries gave.
pub(crate) fn take_table<M: Machine>(
    hv: &Hypervisor<M>,
    mfn: Mfn,
    level: u8,
    domain: &Domain,
    work: &mut Work,
) -> Result<(), Stop> {
    match frames::acquire(hv, mfn, PageType::table(level)) {
        Acquired::Ready => Ok(()),
        Acquired::Check { from, resumed } => {
            if resumed {
                frames::put(hv, mfn);
            }
            check(hv, mfn, level, from, domain, work)
        }
        Acquired::Busy => Err(Stop::Interrupted),
        Acquired::Conflict | Acquired::Changed { .. } => Err(conflict(hv, mfn, level).into()),
    }
}

/// Takes a reference to a frame of `domain` and makes it a page table of this level.
///
/// # Errors
/// `EINVAL` where there is no such frame or it is not `domain`'s; those of [`take_table`].
pub(crate) fn get_table<M: Machine>(
    hv: &Hypervisor<M>,
    claimed: frames::ClaimedMfn,
    level: u8,
    domain: &Domain,
    work: &mut Work,
) -> Result<Mfn, Stop> {
    let mfn = frames::get(hv, claimed, domain.id)?;
    if hv.frames.record(mfn).acquire_type_in_use(PageType::table(level)) {
        return Ok(mfn);
    }
    get_new_table(hv, mfn, level, domain, work)
}

/// [`get_table`] of a frame that is no such table yet; its reference is given back where it does not become one.
#[inline(never)]
fn get_new_table<M: Machine>(
    hv: &Hypervisor<M>,
    mfn: Mfn,
    level: u8,
    domain: &Domain,
    work: &mut Work,
) -> Result<Mfn, Stop> {
    match take_table(hv, mfn, level, domain, work) {
        Ok(()) => Ok(mfn),
        Err(stop) => {
            frames::put(hv, mfn);
            Err(stop)
        }
    }
}

#[cold]
fn conflict<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, level: u8) -> Refusal {
    let seen = hv.frames.record(mfn).type_word();
    if seen.kind().level() == Some(level + 1) {
        return Refusal::errno(Errno::Inval, rules::LINEAR).with(frames::evidence(hv, mfn.into()));
    }
    frames::type_conflict(hv, mfn)
}

/// Checks the entries of an unchecked table from `from` on; the caller holds its only type reference.
fn check<M: Machine>(
    hv: &Hypervisor<M>,
    mfn: Mfn,
    level: u8,
    from: usize,
    domain: &Domain,
    work: &mut Work,
) -> Result<(), Stop> {
    let owners = Owners::of(domain);
    let mut done = 0;
    let mut next = from;
    while let Some((index, seen)) = first_present(hv, mfn, level, next) {
        if work.stops_at(hv, level, done) {
            return Err(stop_at(hv, mfn, index));
        }
        done += 1;
        next = index + 1;
        match get_entry(hv, level, seen, owners, work) {
            Ok(adjusted) if adjusted == seen => {}
            Ok(adjusted) => hv.machine.write_word(mfn, index, adjusted),
            Err(Stop::Interrupted) => return Err(stop_at(hv, mfn, index)),
            Err(Stop::Refused(refusal)) => {
                if take_apart(hv, mfn, level, index, work).is_err() {
                    work.leave(hv, mfn, level);
                }
                return Err(Stop::Refused(refusal));
            }
        }
    }
    if level == 4 {
        hv.machine.fill_hypervisor_slots(mfn);
    }
    hv.frames.record(mfn).set_validated();
    Ok(())
}

/// The first present entry from `from` on that is the guest's, and its index. Of most tables most entries are empty.
#[inline(always)]
fn first_present<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, level: u8, from: usize) -> Option<(usize, u64)> {
    let mut index = from;
    while index < ENTRIES {
        if index.is_multiple_of(GROUP) && is_empty_group(hv, mfn, index) {
            index += GROUP;
            continue;
        }
        let seen = hv.machine.read_word(mfn, index);
        if is_held(level, index, seen) {
            return Some((index, seen));
        }
        index += 1;
    }
    None
}

/// [`first_present`] from the other side: the last before `end`.
#[inline(always)]
fn last_present<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, level: u8, end: usize) -> Option<(usize, u64)> {
    let mut index = end;
    while index > 0 {
        if index.is_multiple_of(GROUP) && is_empty_group(hv, mfn, index - GROUP) {
            index -= GROUP;
            continue;
        }
        index -= 1;
        let seen = hv.machine.read_word(mfn, index);
        if is_held(level, index, seen) {
            return Some((index, seen));
        }
    }
    None
}

#[inline(always)]
fn is_empty_group<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, first: usize) -> bool {
    !is_present((0..GROUP).fold(0, |all, n| all | hv.machine.read_word(mfn, first + n)))
}

/// Whether an entry holds references once it is checked.
#[inline(always)]
const fn is_held(level: u8, index: usize, seen: u64) -> bool {
    is_present(seen) && !(level == 4 && entry::is_hypervisor_slot(index))
}

/// Leaves a table with the first `prefix` entries holding references.
fn stop_at<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, prefix: usize) -> Stop {
    let record = hv.frames.record(mfn);
    record.hold();
    record.set_partial(prefix);
    Stop::Interrupted
}

/// Gives the references of the first `prefix` entries back; the caller holds the only type reference, which is gone
/// afterwards.
fn take_apart<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, level: u8, prefix: usize, work: &mut Work) -> Result<(), Stop> {
    if finish_child(hv, mfn, level, prefix, work).is_err() {
        return Err(stop_at(hv, mfn, prefix));
    }
    let mut done = 0;
    let mut end = prefix;
    while let Some((index, seen)) = last_present(hv, mfn, level, end) {
        if work.stops_at(hv, level, done) {
            return Err(stop_at(hv, mfn, index + 1));
        }
        done += 1;
        end = index;
        if put_entry(hv, level, seen, work).is_err() {
            return Err(stop_at(hv, mfn, index));
        }
    }
    hv.frames.record(mfn).forget_type(hv.frames.now());
    Ok(())
}

/// Finishes the table below entry `index`, where work on it stopped half-way: nobody else would.
fn finish_child<M: Machine>(
    hv: &Hypervisor<M>,
    mfn: Mfn,
    level: u8,
    index: usize,
    work: &mut Work,
) -> Result<(), Stop> {
    if level == 1 || index >= ENTRIES || (level == 4 && entry::is_hypervisor_slot(index)) {
        return Ok(());
    }
    let seen = hv.machine.read_word(mfn, index);
    let Some(child) = hv.frames.find(entry::claimed(seen)).filter(|_| is_present(seen)) else {
        return Ok(());
    };
    let owner = child.count_word().owner();
    if owner != NOBODY && owner != hv.frames.record(mfn).count_word().owner() {
        return Ok(());
    }
    finish(hv, entry::frame(seen), level - 1, work)
}

/// Takes a partial table apart; its state's own reference goes with it.
fn finish<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, level: u8, work: &mut Work) -> Result<(), Stop> {
    let Some(prefix) = hv.frames.record(mfn).take_partial(PageType::table(level)) else {
        return Ok(());
    };
    let outcome = take_apart(hv, mfn, level, prefix, work);
    frames::put(hv, mfn);
    outcome
}

/// Takes a table apart that an earlier piece of work left.
///
/// # Errors
/// [`Stop::Interrupted`], with the rest in [`Work::unfinished`].
pub(crate) fn finish_unfinished<M: Machine>(
    hv: &Hypervisor<M>,
    unfinished: Unfinished,
    work: &mut Work,
) -> Result<(), Stop> {
    let Some(level) = unfinished.kind.level() else {
        return Ok(());
    };
    if hv.frames.record(unfinished.mfn).count_word().owner() != unfinished.owner {
        return Ok(());
    }
    let outcome = finish(hv, unfinished.mfn, level, work);
    if outcome.is_err() {
        work.unfinished = Some(unfinished);
    }
    outcome
}

/// Takes a partial table of any level apart.
///
/// # Errors
/// [`Stop::Interrupted`]; the table is still partial.
pub(crate) fn finish_partial<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, work: &mut Work) -> Result<(), Stop> {
    match hv.frames.record(mfn).type_word().kind().level() {
        Some(level) => finish(hv, mfn, level, work),
        None => Ok(()),
    }
}

/// Gives a reference and a type reference of a page table back.
///
/// # Errors
/// [`Stop::Interrupted`]: both are given back, but the table, not needed any more, is still partly held; it is in
/// [`Work::unfinished`].
pub(crate) fn put_table<M: Machine>(hv: &Hypervisor<M>, mfn: Mfn, work: &mut Work) -> Result<(), Stop> {
    let outcome = match hv.frames.record(mfn).release_type(hv.frames.now()) {
        Released::Done => Ok(()),
        Released::TakeApart(level) => {
            let outcome = take_apart(hv, mfn, level, ENTRIES, work);
            if outcome.is_err() {
                work.leave(hv, mfn, level);
            }
            outcome
        }
    };
    frames::put(hv, mfn);
    outcome
}

/// Takes the references that an entry of a table of this level needs; the entry as it will stand in the table.
pub(super) fn get_entry<M: Machine>(
    hv: &Hypervisor<M>,
    level: u8,
    seen: u64,
    owners: Owners<'_>,
    work: &mut Work,
) -> Result<u64, Stop> {
    if level == 1 {
        return Ok(super::leaf::get_l1_entry(hv, seen, owners)?);
    }
    check_upper_bits(level, seen)?;
    get_table(hv, entry::claimed(seen), level - 1, owners.table, work)?;
    Ok(entry::adjust_upper(level, seen))
}

/// Checks the bits of an entry above L1.
#[inline]
pub(super) fn check_upper_bits(level: u8, seen: u64) -> Result<(), Refusal> {
    if seen & entry::UPPER_FORBIDDEN == 0 {
        return Ok(());
    }
    let rule = if seen & entry::LARGE != 0 { rules::SUPERPAGE } else { rules::ENTRY_BITS };
    Err(Refusal::errno(Errno::Inval, rule).with(Evidence::Entry { value: seen, level }))
}

/// Gives the references of an entry back that stood in a checked table of this level.
pub(super) fn put_entry<M: Machine>(hv: &Hypervisor<M>, level: u8, seen: u64, work: &mut Work) -> Result<(), Stop> {
    if level == 1 {
        super::leaf::put_l1_entry(hv, seen);
        return Ok(());
    }
    put_table(hv, entry::frame(seen), work)
}
