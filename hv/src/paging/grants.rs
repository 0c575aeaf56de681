//! Mappings that exist by a grant: made and removed by the grant table, not by the guest's own updates.
//!
//! The entry holds its references as any other; the grant table holds its own for as long as the grant is in use.
//! Xen: public/grant_table.h, `GNTMAP_host_map`, `GNTMAP_contains_pte`.

use pv_abi::errno::Errno;
use pv_abi::{MachineAddr, Mfn};

use super::entry::{self, is_present};
use super::leaf::{Place, put_l1_entry};
use super::walk::HeldL1;
use crate::Hypervisor;
use crate::domain::Running;
use crate::frames::{self, PageType};
use crate::hardware::{Flush, Machine};
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// Where a grant is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantPlace {
    /// At this address of the caller.
    Va(u64),
    /// By the entry at this machine address, in an L1 table of the caller.
    Pte(MachineAddr),
}

/// `GNTMAP_application_map`: the mapping is for guest-user mode.
const APPLICATION_MAP: u32 = 1 << 3;
/// Where the guest's three available bits are in the flags of a mapping.
const AVAILABLE_SHIFT: u32 = 16;

/// Maps a granted frame, of which the caller holds a reference, for the running domain; what was mapped there goes.
///
/// `flags` are those of `GNTTABOP_map_grant_ref`: user access and the available bits are taken from them.
///
/// # Errors
/// `EINVAL` where the place is no entry of an L1 table of the domain, or the frame cannot be mapped writable.
pub fn create_grant_mapping<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    place: GrantPlace,
    frame: Mfn,
    readonly: bool,
    flags: u32,
) -> Result<(), Refusal> {
    let held = hold(hv, running, place)?;
    frames::get_again(hv, frame);
    if !readonly && let Err(refusal) = frames::take_type(hv, frame, PageType::Writable) {
        frames::put(hv, frame);
        return Err(refusal);
    }
    if !readonly {
        hv.frames.record(frame).set_foreign();
    }
    let old = swap(hv, held.place, new_entry(frame, readonly, flags));
    put_l1_entry(hv, old);
    Ok(())
}

/// Removes the mapping of a granted frame, and puts in its place what is mapped at `replace_with`, which then is not
/// mapped there any more.
///
/// # Errors
/// `EINVAL` where the place does not map the frame with these rights, or where `replace_with` has no L1 table.
pub fn destroy_grant_mapping<M: Machine>(
    hv: &Hypervisor<M>,
    running: &Running,
    place: GrantPlace,
    frame: Mfn,
    readonly: bool,
    replace_with: Option<u64>,
) -> Result<(), Refusal> {
    let held = hold(hv, running, place)?;
    let replacement = match replace_with {
        Some(address) => Some((hold(hv, running, GrantPlace::Va(address))?, address)),
        None => None,
    };
    let old = hv.machine.read_word(held.place.table, held.place.index);
    if !maps(old, frame, readonly) || replacement.as_ref().is_some_and(|(other, _)| other.place == held.place) {
        return Err(Refusal::errno(Errno::Inval, rules::GRANT_ENTRY).with(Evidence::Entry { value: old, level: 1 }));
    }
    let new = replacement.as_ref().map_or(0, |(other, _)| swap(hv, other.place, 0));
    let old = swap(hv, held.place, new);
    put_l1_entry(hv, old);
    for address in [replace_with, address_of(place)].into_iter().flatten() {
        hv.machine.flush_tlb_on(running.vcpu.domain.loaded(), Flush::Page(address));
    }
    Ok(())
}

const fn address_of(place: GrantPlace) -> Option<u64> {
    match place {
        GrantPlace::Va(address) => Some(address),
        GrantPlace::Pte(_) => None,
    }
}

fn hold<'a, M: Machine>(hv: &'a Hypervisor<M>, running: &Running, place: GrantPlace) -> Result<HeldL1<'a, M>, Refusal> {
    let owner = running.vcpu.domain.id;
    let held = match place {
        GrantPlace::Va(address) => running.state.kernel_root.and_then(|root| HeldL1::at(hv, root, address, owner)),
        GrantPlace::Pte(address) if address.0.is_multiple_of(8) && hv.frames.find(address.mfn().into()).is_some() => {
            let place = Place { table: address.mfn(), index: address.page_offset() / 8 };
            HeldL1::hold(hv, place, owner)
        }
        GrantPlace::Pte(_) => None,
    };
    held.ok_or_else(|| no_place(place))
}

#[cold]
fn no_place(place: GrantPlace) -> Refusal {
    let (GrantPlace::Va(address) | GrantPlace::Pte(MachineAddr(address))) = place;
    Refusal::errno(Errno::Inval, rules::GRANT_PLACE).with(Evidence::Value(address))
}

const fn new_entry(frame: Mfn, readonly: bool, flags: u32) -> u64 {
    let base = frame.0 << 12 | entry::PRESENT | entry::ACCESSED | entry::DIRTY | entry::NO_EXECUTE;
    let user = if flags & APPLICATION_MAP != 0 { entry::USER } else { 0 };
    let writable = if readonly { 0 } else { entry::WRITABLE };
    let available = (flags as u64 >> AVAILABLE_SHIFT) << 9 & entry::AVAILABLE;
    entry::adjust_l1(base | user | writable | available)
}

/// Whether an entry maps the frame with these rights.
const fn maps(seen: u64, frame: Mfn, readonly: bool) -> bool {
    is_present(seen) && entry::frame(seen).0 == frame.0 && (seen & entry::WRITABLE == 0) == readonly
}

/// Writes an entry; gives what was there at that moment.
fn swap<M: Machine>(hv: &Hypervisor<M>, place: Place, new: u64) -> u64 {
    let mut old = hv.machine.read_word(place.table, place.index);
    while let Err(now) = hv.machine.compare_exchange_word(place.table, place.index, old, new) {
        old = now;
    }
    old
}
