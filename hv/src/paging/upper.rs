//! Changes to checked tables above L1.

use pv_abi::errno::Errno;

use super::entry::{self, is_present};
use super::leaf::Place;
use super::table::{Owners, Stop, Work, check_upper_bits, get_entry, put_entry};
use crate::Hypervisor;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// Writes an entry of a checked table of level 2 to 4, of which the caller holds a type reference.
///
/// Taking the old table apart may be left in [`Work::unfinished`]; the write itself is done then.
///
/// # Errors
/// `EINVAL` for forbidden bits, a hypervisor slot, or a frame that cannot be a table of the level below;
/// [`Stop::Interrupted`] while the new table is being checked, with the entry as it was.
pub(super) fn update_upper<M: Machine>(
    hv: &Hypervisor<M>,
    place: Place,
    level: u8,
    new: u64,
    keep_marks: bool,
    owners: Owners<'_>,
    work: &mut Work,
) -> Result<(), Stop> {
    if level == 4 && entry::is_hypervisor_slot(place.index) {
        return Err(hypervisor_slot(place.index).into());
    }
    if is_present(new) {
        check_upper_bits(level, new)?;
    }
    let mut old = hv.machine.read_word(place.table, place.index);
    let same_table = |old: u64| old & new & entry::PRESENT != 0 && (old ^ new) & !entry::UPPER_HARMLESS == 0;
    while same_table(old) {
        let value = entry::adjust_upper(level, new) | marks(old, keep_marks);
        match hv.machine.compare_exchange_word(place.table, place.index, old, value) {
            Ok(_) => return Ok(()),
            Err(now) => old = now,
        }
    }
    let value = if is_present(new) { get_entry(hv, level, new, owners, work)? } else { new };
    while let Err(now) = hv.machine.compare_exchange_word(place.table, place.index, old, value | marks(old, keep_marks))
    {
        old = now;
    }
    if is_present(old) {
        // What is left of the old table is in `work`.
        let _ = put_entry(hv, level, old, work);
    }
    Ok(())
}

const fn marks(old: u64, keep: bool) -> u64 {
    if keep { old & entry::ACCESSED } else { 0 }
}

#[cold]
fn hypervisor_slot(index: usize) -> Refusal {
    Refusal::errno(Errno::Inval, rules::HYPERVISOR_SLOT).with(Evidence::Value(index as u64))
}
