//! Taking an entry for use, and giving it back.

use pv_abi::grant_table::{
    GNTST_BAD_PAGE, GNTST_GENERAL_ERROR, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TYPE_MASK,
    GTF_WRITING,
};
use pv_abi::{DomId, Mfn};

use super::table::{GrantTable, Pinned};
use super::{reference_range, with_status};
use crate::Hypervisor;
use crate::domain::Domain;
use crate::frames::{self, ClaimedMfn, PageType};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::grant as rule;

/// How often an entry is read again that changes while it is being taken.
const TRIES: u32 = 5;

/// How often an entry may be pinned.
const MAX_PINS: u32 = 65_535;

/// An entry of version 1 as one word: flags, domain, frame.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    const fn flags(self) -> u16 {
        self.0 as u16
    }

    const fn granted_to(self) -> DomId {
        DomId((self.0 >> 16) as u16)
    }

    const fn frame(self) -> u64 {
        self.0 >> 32
    }

    const fn evidence(self, reference: u32) -> Evidence {
        Evidence::Grant { reference, flags: self.flags(), granted_to: self.granted_to().0 }
    }
}

/// Pins an entry of `granter` for `by`, with a reference on its frame, and for writing a type reference.
///
/// # Errors
/// As the status of an operation: `GNTST_bad_gntref` outside the table, `GNTST_bad_page` for a frame that is not the
/// granter's, `GNTST_general_error` for all else.
pub(super) fn pin<M: Machine>(
    hv: &Hypervisor<M>,
    granter: &Domain,
    reference: u32,
    by: DomId,
    writable: bool,
) -> Result<Mfn, Refusal> {
    if granter.is_dying() {
        return Err(Refusal::status(GNTST_GENERAL_ERROR, rule::DYING).with(Evidence::Value(granter.id.0.into())));
    }
    let mfn = mark(hv, &mut granter.grants.lock(), reference, by, writable)?;
    let held = hold(hv, granter, mfn, writable);
    if held.is_err() {
        unmark(hv, &mut granter.grants.lock(), reference, writable);
    }
    held.map(|()| mfn)
}

/// Takes the references of a pin.
fn hold<M: Machine>(hv: &Hypervisor<M>, granter: &Domain, mfn: Mfn, writable: bool) -> Result<(), Refusal> {
    frames::get(hv, ClaimedMfn(mfn.0), granter.id)
        .map_err(|refusal| Refusal::status(GNTST_BAD_PAGE, rule::BAD_FRAME).with(refusal.evidence))?;
    if !writable {
        return Ok(());
    }
    frames::take_type(hv, mfn, PageType::Writable).map_err(|refusal| {
        frames::put(hv, mfn);
        Refusal::status(GNTST_GENERAL_ERROR, rule::FRAME_IN_USE).with(refusal.evidence)
    })
}

/// Gives a pin's references back, and the pin where its granter is still there.
pub(super) fn unpin<M: Machine>(
    hv: &Hypervisor<M>,
    granter: Option<&Domain>,
    reference: u32,
    mfn: Mfn,
    writable: bool,
) {
    if let Some(granter) = granter {
        unmark(hv, &mut granter.grants.lock(), reference, writable);
    }
    if writable {
        frames::put_typed(hv, mfn);
    } else {
        frames::put(hv, mfn);
    }
}

/// Counts a pin, and sets the bits in the entry that it changes; gives the entry's frame.
fn mark<M: Machine>(
    hv: &Hypervisor<M>,
    table: &mut GrantTable,
    reference: u32,
    by: DomId,
    writable: bool,
) -> Result<Mfn, Refusal> {
    let place = table.entry(reference).ok_or_else(|| reference_range(reference))?;
    let before = table.pinned().get(&reference).copied();
    if let Some(pinned) = before
        && (pinned.by != by || pinned.readers + pinned.writers >= MAX_PINS)
    {
        let uses = (pinned.readers + pinned.writers) as u16;
        let evidence = Evidence::Grant { reference, flags: uses, granted_to: pinned.by.0 };
        return Err(Refusal::status(GNTST_GENERAL_ERROR, rule::OTHERS_PIN).with(evidence));
    }
    let is_marked = before.is_some_and(|pinned| !writable || pinned.writers != 0);
    let marked = if is_marked { None } else { Some(set_bits(hv, place, reference, by, writable)?) };
    let first = || Pinned { by, mfn: Mfn(marked.unwrap_or_default()), readers: 0, writers: 0 };
    let pinned = table.pinned().entry(reference).or_insert_with(first);
    if writable {
        pinned.writers += 1;
    } else {
        pinned.readers += 1;
    }
    Ok(pinned.mfn)
}

/// Sets the hypervisor's bits in an entry that permits what is asked; gives the frame that it names.
fn set_bits<M: Machine>(
    hv: &Hypervisor<M>,
    place: (Mfn, usize),
    reference: u32,
    by: DomId,
    writable: bool,
) -> Result<u64, Refusal> {
    let bits = if writable { GTF_READING | GTF_WRITING } else { GTF_READING };
    let mut seen = hv.machine.read_word(place.0, place.1);
    for _ in 0..TRIES {
        let entry = Entry(seen);
        let refuse = |rule| Err(Refusal::status(GNTST_GENERAL_ERROR, rule).with(entry.evidence(reference)));
        if entry.flags() & (GTF_TYPE_MASK | GTF_SUB_PAGE) != GTF_PERMIT_ACCESS || entry.granted_to() != by {
            return refuse(rule::NOT_GRANTED);
        }
        if writable && entry.flags() & GTF_READONLY != 0 {
            return refuse(rule::READ_ONLY);
        }
        match hv.machine.compare_exchange_word(place.0, place.1, seen, seen | u64::from(bits)) {
            Ok(_) => return Ok(entry.frame()),
            Err(now) => seen = now,
        }
    }
    Err(Refusal::status(GNTST_GENERAL_ERROR, rule::UNSTABLE).with(Entry(seen).evidence(reference)))
}

/// Counts a pin less, and clears the bits in the entry that nobody needs any more.
fn unmark<M: Machine>(hv: &Hypervisor<M>, table: &mut GrantTable, reference: u32, writable: bool) {
    let Some(pinned) = table.pinned().get_mut(&reference) else {
        return;
    };
    let count = if writable { &mut pinned.writers } else { &mut pinned.readers };
    *count = count.saturating_sub(1);
    let (readers, writers) = (pinned.readers, pinned.writers);
    let mut cleared = if writable && writers == 0 { GTF_WRITING } else { 0 };
    if readers + writers == 0 {
        cleared |= GTF_READING;
        table.pinned().remove(&reference);
    }
    if cleared != 0
        && let Some((mfn, word)) = table.entry(reference)
    {
        hv.machine.fetch_and_word(mfn, word, !u64::from(cleared));
    }
}

/// A frame of the caller, for a copy: with a reference, and for writing a type reference.
pub(super) fn hold_own<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    frame: u64,
    writable: bool,
) -> Result<Mfn, Refusal> {
    let claimed = ClaimedMfn(frame);
    let mfn = frames::get(hv, claimed, domain.id)
        .map_err(|refusal| Refusal::status(GNTST_BAD_PAGE, rule::COPY_FRAME).with(refusal.evidence))?;
    if writable {
        frames::take_type(hv, mfn, PageType::Writable).map_err(|refusal| {
            frames::put(hv, mfn);
            with_status(&refusal, GNTST_GENERAL_ERROR)
        })?;
    }
    Ok(mfn)
}
