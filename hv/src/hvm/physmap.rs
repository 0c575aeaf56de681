//! A domain's physical map: which machine frame is behind which guest frame.
//!
//! The map is the nested page table itself: four levels, in frames of the hypervisor's, leaves of 4 KiB and 2 MiB.
//!
//! Invariants:
//! - each frame that the map leads to holds a reference and a type reference as writable memory: it cannot become a page
//!   table or another's while the guest can reach it;
//! - an entry is taken out of the tables before its references are given back; translations of it are forgotten before the
//!   frame is used for something else, as of any other ([`crate::frames`]);
//! - a table is freed only with the whole map.
//!
//! Source: AMD APM 2 §15.25.

use core::sync::atomic::Ordering;

use pv_abi::errno::Errno;
use pv_abi::{DomId, Mfn};

use crate::Hypervisor;
use crate::frames::{self, ClaimedMfn, PageType};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::hvm as rule;

/// Present, writable, for user mode (all of a guest is), accessed, dirty.
const ENTRY: u64 = 0x67;
const PRESENT: u64 = 1;
/// A leaf at level 2.
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Bits of a guest frame's number.
const GUEST_FRAME_BITS: u32 = 36;
/// The order of a large leaf.
pub const LARGE_ORDER: u32 = 9;

/// Tables that there may be where no toolstack said: 1 MiB.
const USUAL_TABLES: u64 = 256;

/// The map.
#[derive(Debug)]
pub struct PhysMap {
    root: Mfn,
    /// One more than the highest guest frame that had something.
    end: u64,
    /// Its tables, and how many there may be: a guest chooses where it puts things, and pays for it from its own pool.
    tables: u64,
    limit: u64,
    /// It is being taken apart: nothing is found in it any more, and nothing put into it.
    closed: bool,
}

/// What was taken out of the map: a frame, or a large block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaf {
    first: Mfn,
    order: u32,
}

const fn index(guest_frame: u64, level: u32) -> usize {
    (guest_frame >> (9 * (level - 1)) & 511) as usize
}

const fn to_frame(entry: u64) -> Mfn {
    Mfn((entry & FRAME) >> 12)
}

impl PhysMap {
    /// An empty map.
    #[must_use]
    pub fn new<M: Machine>(hv: &Hypervisor<M>) -> Option<Self> {
        frames::allocate(hv, 0).map(|root| Self { root, end: 0, tables: 1, limit: USUAL_TABLES, closed: false })
    }

    /// How many tables there may be.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Changes how many tables there may be; false where there are more already.
    pub(super) fn set_limit(&mut self, limit: u64) -> bool {
        if limit >= self.tables {
            self.limit = limit;
        }
        limit >= self.tables
    }

    fn new_table<M: Machine>(&mut self, hv: &Hypervisor<M>) -> Option<Mfn> {
        if self.tables >= self.limit {
            return None;
        }
        let table = frames::allocate(hv, 0)?;
        self.tables += 1;
        Some(table)
    }

    /// The root table.
    #[must_use]
    pub const fn root(&self) -> Mfn {
        self.root
    }

    /// The highest guest frame that had something behind it.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.end.saturating_sub(1)
    }

    /// The frame behind a guest frame.
    #[must_use]
    pub fn find<M: Machine>(&self, machine: &M, guest_frame: u64) -> Option<Mfn> {
        if guest_frame >> GUEST_FRAME_BITS != 0 || self.closed {
            return None;
        }
        let mut table = self.root;
        for level in (1..=4).rev() {
            let entry = machine.read_word(table, index(guest_frame, level));
            if entry & PRESENT == 0 {
                return None;
            }
            table = to_frame(entry);
            if level == 2 && entry & LARGE != 0 {
                return Some(Mfn(table.0 + guest_frame % (1 << LARGE_ORDER)));
            }
        }
        Some(table)
    }

    /// The table and the index of the entry for a guest frame at `level`; missing tables are made.
    fn place<M: Machine>(&mut self, hv: &Hypervisor<M>, guest_frame: u64, level: u32) -> Option<(Mfn, usize)> {
        if self.closed {
            return None;
        }
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            let place = index(guest_frame, above);
            let entry = hv.machine.read_word(table, place);
            table = if entry & PRESENT == 0 {
                let new = self.new_table(hv)?;
                hv.machine.write_word(table, place, new.0 << 12 | ENTRY);
                new
            } else if above == 2 && entry & LARGE != 0 {
                let new = self.new_table(hv)?;
                split(hv, new, entry);
                hv.machine.write_word(table, place, new.0 << 12 | ENTRY);
                new
            } else {
                to_frame(entry)
            };
        }
        Some((table, index(guest_frame, level)))
    }

    /// Puts frames, of which the caller holds what an entry holds, at a guest frame; gives what was there.
    fn set<M: Machine>(&mut self, hv: &Hypervisor<M>, guest_frame: u64, leaf: Leaf) -> Option<Option<Leaf>> {
        let level = if leaf.order == LARGE_ORDER { 2 } else { 1 };
        let (table, place) = self.place(hv, guest_frame, level)?;
        let old = hv.machine.read_word(table, place);
        let large = if level == 2 { LARGE } else { 0 };
        hv.machine.write_word(table, place, leaf.first.0 << 12 | large | ENTRY);
        self.end = self.end.max(guest_frame + (1 << leaf.order));
        Some((old & PRESENT != 0).then_some(Leaf { first: to_frame(old), order: leaf.order }))
    }

    /// Whether a large leaf can be put at a guest frame: nothing is there, not even a table.
    fn takes_large<M: Machine>(&mut self, hv: &Hypervisor<M>, guest_frame: u64) -> bool {
        self.place(hv, guest_frame, 2).is_some_and(|(table, place)| hv.machine.read_word(table, place) & PRESENT == 0)
    }

    /// Takes what is at a guest frame out of the map.
    fn clear<M: Machine>(&mut self, hv: &Hypervisor<M>, guest_frame: u64) -> Option<Leaf> {
        self.find(&hv.machine, guest_frame)?;
        let (table, place) = self.place(hv, guest_frame, 1)?;
        let old = hv.machine.read_word(table, place);
        hv.machine.write_word(table, place, 0);
        (old & PRESENT != 0).then_some(Leaf { first: to_frame(old), order: 0 })
    }

    /// Takes the map apart, until an interrupt waits; whether nothing is left of it. Call it no more then.
    pub(super) fn take_apart<M: Machine>(&mut self, hv: &Hypervisor<M>) -> bool {
        self.closed = true;
        let done = take_table_apart(hv, self.root, 4);
        if done {
            frames::free(hv, self.root, 0);
        }
        done
    }
}

/// Fills a table with what a large leaf says.
fn split<M: Machine>(hv: &Hypervisor<M>, table: Mfn, leaf: u64) {
    for n in 0..512 {
        hv.machine.write_word(table, n, (to_frame(leaf).0 + n as u64) << 12 | ENTRY);
    }
}

fn take_table_apart<M: Machine>(hv: &Hypervisor<M>, table: Mfn, level: u32) -> bool {
    for place in 0..512 {
        let entry = hv.machine.read_word(table, place);
        if entry & PRESENT == 0 {
            continue;
        }
        let is_large = level == 2 && entry & LARGE != 0;
        if level > 1 && !is_large {
            if !take_table_apart(hv, to_frame(entry), level - 1) {
                return false;
            }
            hv.machine.write_word(table, place, 0);
            frames::free(hv, to_frame(entry), 0);
        } else {
            hv.machine.write_word(table, place, 0);
            put(hv, Leaf { first: to_frame(entry), order: if is_large { LARGE_ORDER } else { 0 } });
        }
        if (is_large || place % 64 == 63) && hv.machine.interrupt_waiting() {
            return false;
        }
    }
    true
}

/// Gives back what an entry held.
fn put<M: Machine>(hv: &Hypervisor<M>, leaf: Leaf) {
    (0..1_u64 << leaf.order).for_each(|n| frames::put_typed(hv, Mfn(leaf.first.0 + n)));
}

/// Takes what an entry needs: all of a block or nothing.
fn get<M: Machine>(hv: &Hypervisor<M>, owner: DomId, leaf: Leaf) -> Result<(), Refusal> {
    for n in 0..1_u64 << leaf.order {
        let claimed = ClaimedMfn(leaf.first.0 + n);
        if let Err(refusal) = frames::get_typed(hv, claimed, owner, PageType::Writable) {
            (0..n).for_each(|n| frames::put_typed(hv, Mfn(leaf.first.0 + n)));
            return Err(refusal);
        }
    }
    Ok(())
}

#[cold]
fn no_tables() -> Refusal {
    Refusal::errno(Errno::NoMem, rule::TABLE_MEMORY)
}

/// Refuses guest frames that cannot be.
///
/// # Errors
/// `EINVAL` for a number that is too large, or a block that is not aligned to its size.
pub(super) fn check(guest_frame: u64, order: u32) -> Result<(), Refusal> {
    let last = guest_frame.checked_add((1 << order) - 1);
    if guest_frame.is_multiple_of(1 << order) && last.is_some_and(|last| last >> GUEST_FRAME_BITS == 0) {
        return Ok(());
    }
    Err(Refusal::errno(Errno::Inval, rule::GUEST_FRAME_RANGE).with(Evidence::Value(guest_frame)))
}

/// Puts 2^`order` frames of a domain at a guest frame. Memory of the domain that was there is given up.
///
/// # Errors
/// `EINVAL` for guest frames that cannot be, or a frame that is not the domain's or in use as something else; `ENOMEM`
/// without memory for tables. Frames before one that is refused stay.
pub(super) fn insert<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &crate::domain::Domain,
    map: &spin::Mutex<PhysMap>,
    guest_frame: u64,
    mfn: Mfn,
    order: u32,
) -> Result<(), Refusal> {
    check(guest_frame, order)?;
    let step = if order == LARGE_ORDER && map.lock().takes_large(hv, guest_frame) { LARGE_ORDER } else { 0 };
    for n in (0..1_u64 << order).step_by(1 << step) {
        let leaf = Leaf { first: Mfn(mfn.0 + n), order: step };
        get(hv, domain.id, leaf)?;
        let Some(replaced) = map.lock().set(hv, guest_frame + n, leaf) else {
            put(hv, leaf);
            return Err(no_tables());
        };
        (0..1_u64 << step).for_each(|k| hv.machine.set_m2p(Mfn(leaf.first.0 + k), guest_frame + n + k));
        if let Some(old) = replaced {
            give_up(hv, domain, old);
        }
    }
    Ok(())
}

/// Takes what is at a guest frame away; memory of the domain is given up.
///
/// # Errors
/// `ENOENT` where there is nothing.
pub(super) fn remove<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &crate::domain::Domain,
    map: &spin::Mutex<PhysMap>,
    guest_frame: u64,
) -> Result<(), Refusal> {
    let taken = map.lock().clear(hv, guest_frame);
    let leaf =
        taken.ok_or_else(|| Refusal::errno(Errno::NoEnt, rule::GUEST_FRAME).with(Evidence::Value(guest_frame)))?;
    give_up(hv, domain, leaf);
    Ok(())
}

/// Ends what the map held on a frame, once no CPU reaches it any more, and the domain's own hold on it.
fn give_up<M: Machine>(hv: &Hypervisor<M>, domain: &crate::domain::Domain, leaf: Leaf) {
    if let Some(hvm) = &domain.hvm {
        hvm.changes.fetch_add(1, Ordering::SeqCst);
    }
    frames::flush(hv, domain.loaded());
    hv.machine.set_m2p(leaf.first, frames::INVALID_M2P);
    frames::drop_allocation(hv, leaf.first);
    put(hv, leaf);
}
