//! Taking an entry for use, and giving it back.

use alloc::sync::Arc;
use core::ops::Range;

use pv_abi::grant_table::{GNTST_BAD_PAGE, GNTST_GENERAL_ERROR, GTF_READING, GTF_WRITING};
use pv_abi::{DomId, Mfn};

use super::entry::{Granted, Place, Purpose};
use super::table::{Pinned, Version};
use super::{reference_range, with_status};
use crate::Hypervisor;
use crate::domain::Domain;
use crate::frames::{self, ClaimedMfn, PageType};
use crate::hardware::Machine;
use crate::hvm;
use crate::refusal::{Evidence, Refusal};
use crate::rules::grant as rule;

/// How often an entry is read again that changes while it is being taken.
const TRIES: u32 = 5;

/// How often an entry may be pinned.
const MAX_PINS: u32 = 65_535;

/// Pins an entry of `granter` for mapping by `by`, with a reference on its frame, and for writing a type reference.
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
    let granted = mark(hv, granter, reference, by, writable, Purpose::Map)?;
    hold_part(hv, granter, reference, granted, writable).map(|held| held.mfn)
}

/// What a copy holds of an entry.
pub(super) struct Held {
    pub(super) mfn: Mfn,
    /// The bytes of the frame that are granted.
    pub(super) bytes: Range<usize>,
    /// The entry that the granter's entry leads to.
    through: Option<(Arc<Domain>, u32)>,
}

/// Pins an entry of `granter` for a copy by `by`, as [`pin`], and the entry that it leads to.
///
/// # Errors
/// As [`pin`].
pub(super) fn pin_for_copy<M: Machine>(
    hv: &Hypervisor<M>,
    granter: &Domain,
    reference: u32,
    by: DomId,
    writable: bool,
) -> Result<Held, Refusal> {
    let granted = mark(hv, granter, reference, by, writable, Purpose::Copy)?;
    if let Granted::Through { domain, reference: next } = granted {
        return pin_through(hv, granter.id, domain, next, writable)
            .inspect_err(|_| unmark(hv, granter, reference, writable));
    }
    hold_part(hv, granter, reference, granted, writable)
}

/// Pins the entry that an entry of `granter` leads to; from there it goes no further.
fn pin_through<M: Machine>(
    hv: &Hypervisor<M>,
    granter: DomId,
    domain: DomId,
    reference: u32,
    writable: bool,
) -> Result<Held, Refusal> {
    let evidence = Evidence::Grant { reference, flags: 0, granted_to: domain.0 };
    let refuse = |rule| Refusal::status(GNTST_GENERAL_ERROR, rule).with(evidence);
    if domain == granter {
        return Err(refuse(rule::THROUGH_ONESELF));
    }
    let next = hv.domains.get(domain).ok_or_else(|| refuse(rule::THROUGH_NOBODY))?;
    let granted = mark(hv, &next, reference, granter, writable, Purpose::Copy)?;
    let held = hold_part(hv, &next, reference, granted, writable)?;
    Ok(Held { through: Some((next, reference)), ..held })
}

/// Takes the references of a pin on what an entry grants by itself; none, and no pin, where it leads to another.
fn hold_part<M: Machine>(
    hv: &Hypervisor<M>,
    granter: &Domain,
    reference: u32,
    granted: Granted,
    writable: bool,
) -> Result<Held, Refusal> {
    let (mfn, bytes) = match granted {
        Granted::Page(mfn) => (mfn, 0..4096),
        Granted::Part { mfn, start, length } => (mfn, start.into()..usize::from(start) + usize::from(length)),
        Granted::Through { .. } => {
            unmark(hv, granter, reference, writable);
            let evidence = Evidence::Value(reference.into());
            return Err(Refusal::status(GNTST_GENERAL_ERROR, rule::THROUGH_TWICE).with(evidence));
        }
    };
    match hold(hv, granter, mfn, writable) {
        Ok(()) => Ok(Held { mfn, bytes, through: None }),
        Err(refusal) => {
            unmark(hv, granter, reference, writable);
            Err(refusal)
        }
    }
}

/// Gives back what a copy held.
pub(super) fn unpin_after_copy<M: Machine>(
    hv: &Hypervisor<M>,
    granter: &Domain,
    reference: u32,
    held: &Held,
    writable: bool,
) {
    unpin(hv, Some(granter), reference, held.mfn, writable);
    if let Some((next, reference)) = &held.through {
        unmark(hv, next, *reference, writable);
    }
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
        unmark(hv, granter, reference, writable);
    }
    if writable {
        frames::put_typed(hv, mfn);
    } else {
        frames::put(hv, mfn);
    }
}

/// Counts a pin, and sets the bits in the entry that it changes; gives what the entry granted when it was first pinned.
fn mark<M: Machine>(
    hv: &Hypervisor<M>,
    granter: &Domain,
    reference: u32,
    by: DomId,
    writable: bool,
    purpose: Purpose,
) -> Result<Granted, Refusal> {
    if granter.is_dying() {
        return Err(Refusal::status(GNTST_GENERAL_ERROR, rule::DYING).with(Evidence::Value(granter.id.0.into())));
    }
    let mut table = granter.grants.lock();
    let place = table.entry(reference).ok_or_else(|| reference_range(reference))?;
    let before = table.pinned(reference);
    match before {
        Some(pinned) => check_pinned(&pinned, reference, by, purpose)?,
        None => table.make_room()?,
    }
    let is_marked = before.is_some_and(|pinned| !writable || pinned.writers != 0);
    let marked = match before {
        Some(pinned) if is_marked => pinned.granted,
        _ => {
            let asked = Asked { reference, by, writable, purpose };
            let read = match place.version {
                Version::One => set_bits_in_entry(hv, place, &asked)?,
                Version::Two => set_bits_apart(hv, place, &asked, before.is_some())?,
            };
            before.map_or_else(|| in_machine(hv, granter, read), |pinned| pinned.granted)
        }
    };
    table.count(reference, Pinned { by, granted: marked, readers: 0, writers: 0 }, writable);
    Ok(marked)
}

/// What is granted, by the machine's frames: a guest with hardware assistance names its own.
fn in_machine<M: Machine>(hv: &Hypervisor<M>, granter: &Domain, granted: Granted) -> Granted {
    let named = |frame: Mfn| Mfn(hvm::named(hv, granter, frame.0).0);
    match granted {
        Granted::Page(frame) => Granted::Page(named(frame)),
        Granted::Part { mfn, start, length } => Granted::Part { mfn: named(mfn), start, length },
        through @ Granted::Through { .. } => through,
    }
}

/// Passes a further use of an entry in use.
fn check_pinned(pinned: &Pinned, reference: u32, by: DomId, purpose: Purpose) -> Result<(), Refusal> {
    let uses = pinned.readers + pinned.writers;
    let is_part = purpose == Purpose::Map && !matches!(pinned.granted, Granted::Page(_));
    if pinned.by == by && uses < MAX_PINS && !is_part {
        return Ok(());
    }
    let evidence = Evidence::Grant { reference, flags: uses as u16, granted_to: pinned.by.0 };
    Err(Refusal::status(GNTST_GENERAL_ERROR, rule::OTHERS_PIN).with(evidence))
}

/// What is asked of an entry.
struct Asked {
    reference: u32,
    by: DomId,
    writable: bool,
    purpose: Purpose,
}

impl Asked {
    /// The hypervisor's bits that tell of the use.
    const fn bits(&self) -> u16 {
        if self.writable { GTF_READING | GTF_WRITING } else { GTF_READING }
    }
}

/// Sets the hypervisor's bits in an entry of version 1 that permits what is asked, by exchanging the very word that
/// permits it.
fn set_bits_in_entry<M: Machine>(hv: &Hypervisor<M>, place: Place, asked: &Asked) -> Result<Granted, Refusal> {
    let mut seen = place.read(&hv.machine);
    for _ in 0..TRIES {
        seen.check(place.version, asked.reference, asked.by, asked.writable, asked.purpose)?;
        let marked = seen.0 | u64::from(asked.bits());
        match hv.machine.compare_exchange_word(place.mfn, place.word, seen.0, marked) {
            Ok(_) => return Ok(place.granted(&hv.machine, seen)),
            Err(now) => seen.0 = now,
        }
    }
    Err(seen.refuse(asked.reference, rule::UNSTABLE))
}

/// Sets the hypervisor's bits of an entry of version 2 and looks then whether it still permits what is asked: a granter
/// that ends a grant looks at the bits afterwards.
fn set_bits_apart<M: Machine>(
    hv: &Hypervisor<M>,
    place: Place,
    asked: &Asked,
    is_pinned: bool,
) -> Result<Granted, Refusal> {
    let check = || {
        let header = place.read(&hv.machine);
        header.check(place.version, asked.reference, asked.by, asked.writable, asked.purpose).map(|()| header)
    };
    check()?;
    place.bits.set(&hv.machine, asked.bits());
    match check() {
        Ok(header) => Ok(place.granted(&hv.machine, header)),
        Err(refusal) => {
            place.bits.clear(&hv.machine, if is_pinned { GTF_WRITING } else { GTF_READING | GTF_WRITING });
            Err(Refusal { rule: rule::UNSTABLE, ..refusal })
        }
    }
}

/// Counts a pin less, and clears the bits in the entry that nobody needs any more.
fn unmark<M: Machine>(hv: &Hypervisor<M>, granter: &Domain, reference: u32, writable: bool) {
    let mut table = granter.grants.lock();
    let cleared = table.count_less(reference, writable);
    if cleared != 0
        && let Some(place) = table.entry(reference)
    {
        place.bits.clear(&hv.machine, cleared);
    }
}

/// A frame of the caller, for a copy: with a reference, and for writing a type reference.
pub(super) fn hold_own<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    frame: u64,
    writable: bool,
) -> Result<Mfn, Refusal> {
    let claimed = hvm::named(hv, domain, frame);
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
