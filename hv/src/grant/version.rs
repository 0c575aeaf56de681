//! Changing the form of a table's entries.
//!
//! The first eight entries are the toolstack's: they keep their meaning, and may be in use. All others are gone
//! afterwards, so none of them may be in use. The status words of version 2 have frames of their own, which are there
//! just while the version is 2.

use alloc::vec::Vec;

use pv_abi::Mfn;
use pv_abi::errno::Errno;
use pv_abi::grant_table::{
    GNTTAB_NR_RESERVED_ENTRIES, GTF_PERMIT_ACCESS, GTF_READING, GTF_TRANSITIVE, GTF_TYPE_MASK, GTF_WRITING,
};

use super::table::{FRAMES_PER_STATUS, GrantTable, Version};
use crate::Hypervisor;
use crate::domain::Domain;
use crate::frames;
use crate::hardware::Machine;
use crate::refusal::{Consequence, Evidence, Refusal};
use crate::rules::grant as rule;

/// The hypervisor's bits in an entry of version 1.
const BITS: u64 = (GTF_READING | GTF_WRITING) as u64;
/// Flags and domain.
const HEADER: u64 = 0xffff_ffff;

/// Gives a domain's table entries of another form. It has one frame afterwards, and is to grow to what it was.
///
/// # Errors
/// That of a call that is made again where the table grew or another vCPU switched meanwhile;
/// `ENOSYS` where the toolstack does not let it; `EBUSY` where an entry is in use that would be lost, or the domain has a
/// status frame mapped that would; `ERANGE` where a reserved entry means what version 1 cannot say; `ENOMEM`.
pub(super) fn switch<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, to: Version) -> Result<(), Refusal> {
    let (from, max_version, size) = {
        let table = domain.grants.lock();
        (table.version, table.max_version, table.frames.len())
    };
    if to > max_version {
        let evidence = Evidence::Limit { asked: to.number().into(), limit: max_version.number().into() };
        return Err(Refusal::errno(Errno::NoSys, rule::VERSION_OFFERED).with(evidence));
    }
    if from == to {
        return Ok(());
    }
    let needed = if to == Version::Two { size.div_ceil(FRAMES_PER_STATUS as usize) } else { 0 };
    let mut spare = Vec::new();
    let outcome = allocate(hv, domain, needed, &mut spare).and_then(|()| {
        let mut table = domain.grants.lock();
        if table.version != from || table.frames.len() != size {
            return Err(Refusal::again());
        }
        change(hv, domain, &mut table, to, &mut spare)
    });
    for mfn in spare {
        frames::free_shared(hv, mfn);
    }
    outcome
}

fn allocate<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, count: usize, into: &mut Vec<Mfn>) -> Result<(), Refusal> {
    for _ in 0..count {
        let mfn = into.try_reserve(1).ok().and_then(|()| frames::allocate_shared(hv, domain));
        into.push(mfn.ok_or_else(|| Refusal::errno(Errno::NoMem, rule::NO_STATUS_MEMORY))?);
    }
    Ok(())
}

/// Changes the form; leaves in `spare` the frames that are to be freed.
fn change<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    table: &mut GrantTable,
    to: Version,
    spare: &mut Vec<Mfn>,
) -> Result<(), Refusal> {
    if let Some(used) = table.pinned_from(GNTTAB_NR_RESERVED_ENTRIES) {
        return Err(Refusal::errno(Errno::Busy, rule::VERSION_IN_USE).with(Evidence::Value(used.into())));
    }
    let mut kept = [0; GNTTAB_NR_RESERVED_ENTRIES as usize];
    for (reference, entry) in (0..).zip(&mut kept) {
        *entry = keep(hv, table, reference)?;
    }
    if to == Version::One {
        take_status(hv, domain, table)?;
    }
    core::mem::swap(&mut table.status, spare);
    table.cleared = table.frames.len().min(1) as u32;
    for mfn in table.frames.iter().take(1) {
        hv.machine.clear_frame(*mfn);
    }
    table.version = to;
    for (reference, entry) in (0..).zip(kept) {
        restore(hv, table, reference, entry);
    }
    Ok(())
}

/// A reserved entry as one of version 1, with the hypervisor's bits; 0 where the table is not that large.
fn keep<M: Machine>(hv: &Hypervisor<M>, table: &GrantTable, reference: u32) -> Result<u64, Refusal> {
    let Some(place) = table.entry(reference) else {
        return Ok(0);
    };
    let header = place.read(&hv.machine);
    if place.version == Version::One {
        return Ok(header.0);
    }
    let frame = hv.machine.read_word(place.mfn, place.word + 1);
    let is_representable = match header.flags() & GTF_TYPE_MASK {
        GTF_PERMIT_ACCESS => frame >> 32 == 0,
        GTF_TRANSITIVE => false,
        _ => true,
    };
    if !is_representable {
        return Err(Refusal {
            consequence: Consequence::Errno(Errno::Range),
            ..header.refuse(reference, rule::VERSION_RESERVED)
        });
    }
    Ok(header.0 & HEADER | u64::from(place.bits.read(&hv.machine)) | frame << 32)
}

/// Writes a reserved entry that was kept.
fn restore<M: Machine>(hv: &Hypervisor<M>, table: &GrantTable, reference: u32, kept: u64) {
    let Some(place) = table.entry(reference) else {
        return;
    };
    if place.version == Version::One {
        hv.machine.write_word(place.mfn, place.word, kept);
        return;
    }
    place.bits.set(&hv.machine, (kept & BITS) as u16);
    hv.machine.write_word(place.mfn, place.word + 1, kept >> 32);
    hv.machine.write_word(place.mfn, place.word, kept & HEADER & !BITS);
}

/// Takes the status frames from the domain, unless it has one of them mapped.
fn take_status<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, table: &GrantTable) -> Result<(), Refusal> {
    let Some(used) = table.status.iter().position(|mfn| !frames::take_shared(hv, *mfn, domain.id)) else {
        return Ok(());
    };
    for mfn in &table.status[..used] {
        frames::share_again(hv, *mfn, domain.id);
    }
    let evidence = frames::evidence(hv, table.status[used].into());
    Err(Refusal::errno(Errno::Busy, rule::STATUS_MAPPED).with(evidence))
}

/// Swaps two entries that nobody uses.
pub(super) fn swap<M: Machine>(hv: &Hypervisor<M>, table: &GrantTable, a: u32, b: u32) {
    let (Some(a), Some(b)) = (table.entry(a), table.entry(b)) else {
        return;
    };
    let machine = &hv.machine;
    let words = if a.version == Version::One { 1 } else { 2 };
    for word in 0..words {
        let first = machine.read_word(a.mfn, a.word + word);
        machine.write_word(a.mfn, a.word + word, machine.read_word(b.mfn, b.word + word));
        machine.write_word(b.mfn, b.word + word, first);
    }
    if a.version == Version::Two {
        let (bits_a, bits_b) = (a.bits.read(machine), b.bits.read(machine));
        for (place, bits) in [(a, bits_b), (b, bits_a)] {
            place.bits.clear(machine, !bits);
            place.bits.set(machine, bits);
        }
    }
}
