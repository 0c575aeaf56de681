//! From an address to the entry that maps it, through a guest's own tables.

use pv_abi::{DomId, Mfn};

use super::entry::{self, is_present};
use super::leaf::Place;
use crate::Hypervisor;
use crate::frames::{self, Frame, PageType};
use crate::hardware::Machine;

/// The L1 table below `root` that an address belongs to, its index there, and the entry; none where a level is missing
/// or the address is not a guest's.
#[must_use]
pub fn walk<M: Machine>(hv: &Hypervisor<M>, root: Mfn, address: u64) -> Option<(Mfn, usize, u64)> {
    let place = find(hv, root, address)?;
    Some((place.table, place.index, hv.machine.read_word(place.table, place.index)))
}

/// [`walk`] without reading the last entry.
fn find<M: Machine>(hv: &Hypervisor<M>, root: Mfn, address: u64) -> Option<Place> {
    if is_alone(hv) { find_by::<M, true>(hv, root, address) } else { find_by::<M, false>(hv, root, address) }
}

#[inline(always)]
fn find_by<M: Machine, const ALONE: bool>(hv: &Hypervisor<M>, root: Mfn, address: u64) -> Option<Place> {
    if !entry::is_guest_address(address) {
        return None;
    }
    let table = below::<M, ALONE>(hv, root, entry::index(4, address))?;
    let table = below::<M, ALONE>(hv, table, entry::index(3, address))?;
    let table = below::<M, ALONE>(hv, table, entry::index(2, address))?;
    Some(Place { table, index: entry::index(1, address) })
}

#[inline(always)]
fn below<M: Machine, const ALONE: bool>(hv: &Hypervisor<M>, table: Mfn, index: usize) -> Option<Mfn> {
    let seen = hv.machine.read_word(table, index);
    // Another CPU may just be taking the table apart: then what is read here is followed only to memory in use.
    let known = is_present(seen) && (ALONE || hv.frames.find(entry::claimed(seen)).is_some_and(Frame::is_owned));
    known.then(|| entry::frame(seen))
}

/// Whether nobody else changes tables at the same time.
#[inline]
pub(super) fn is_alone<M: Machine>(hv: &Hypervisor<M>) -> bool {
    hv.machine.cpu_count() == 1
}

/// An L1 table that is in use, held so that it stays one.
///
/// On a machine of one CPU what uses it as a table goes on to do so while an entry is changed; on others it is held by
/// references.
pub(super) struct HeldL1<'a, M: Machine> {
    hv: &'a Hypervisor<M>,
    pub(super) place: Place,
    has_references: bool,
}

impl<'a, M: Machine> HeldL1<'a, M> {
    /// Holds the L1 table of `owner` that an address belongs to, in tables that `owner` runs on.
    #[inline(always)]
    pub(super) fn at(hv: &'a Hypervisor<M>, root: Mfn, address: u64, owner: DomId) -> Option<Self> {
        if is_alone(hv) {
            let place = find_by::<M, true>(hv, root, address)?;
            return Some(Self { hv, place, has_references: false });
        }
        Self::at_shared(hv, root, address, owner)
    }

    #[inline(never)]
    fn at_shared(hv: &'a Hypervisor<M>, root: Mfn, address: u64, owner: DomId) -> Option<Self> {
        Self::hold_shared(hv, find_by::<M, false>(hv, root, address)?, owner)
    }

    /// Holds a table of `owner`, if it is an L1 table in use.
    #[inline]
    pub(super) fn hold(hv: &'a Hypervisor<M>, place: Place, owner: DomId) -> Option<Self> {
        if is_alone(hv) {
            return Self::is_held(hv, place, owner).then_some(Self { hv, place, has_references: false });
        }
        Self::hold_shared(hv, place, owner)
    }

    /// Whether it is an L1 table of `owner` in use, and so stays one where nobody else changes tables ([`is_alone`]).
    #[inline(always)]
    pub(super) fn is_held(hv: &Hypervisor<M>, place: Place, owner: DomId) -> bool {
        hv.frames.find(place.table.into()).is_some_and(|record| record.is_in_use(owner, PageType::L1))
    }

    #[inline(never)]
    fn hold_shared(hv: &'a Hypervisor<M>, place: Place, owner: DomId) -> Option<Self> {
        if !frames::try_get(hv, place.table.into(), owner) {
            return None;
        }
        if !hv.frames.record(place.table).acquire_type_in_use(PageType::L1) {
            frames::put(hv, place.table);
            return None;
        }
        Some(Self { hv, place, has_references: true })
    }
}

impl<M: Machine> Drop for HeldL1<'_, M> {
    #[inline]
    fn drop(&mut self) {
        if self.has_references {
            super::release(self.hv, self.place.table);
        }
    }
}
