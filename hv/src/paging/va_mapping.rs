//! `update_va_mapping`: one L1 entry, named by the address it maps in the tables the caller runs on.
//!
//! Xen: public/xen.h, `HYPERVISOR_update_va_mapping`, `UVMF_*`.

use pv_abi::errno::Errno;
use pv_abi::xen::{UVMF_ALL, UVMF_FLUSHTYPE_MASK, UVMF_INVLPG, UVMF_LOCAL, UVMF_TLB_FLUSH};

use super::batch::finish_left;
use super::flush::{Where, flush, flush_here};
use super::foreign::PageOwner;
use super::leaf::update_l1;
use super::table::Owners;
use super::walk::HeldL1;
use crate::call::Call;
use crate::hardware::{Flush, Machine};
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// `update_va_mapping(address, entry, flags)`.
///
/// # Errors
/// `EINVAL` where the address has no L1 table or the entry has forbidden bits, `EBUSY` for a frame that is another's or
/// in use as a table, `EPERM` for device memory without permission, `EFAULT` for a bad bitmap of vCPUs.
#[inline]
pub fn update_va_mapping<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [address, entry, flags, ..] = args;
    let owners = Owners::of(call.domain());
    write(call, address, entry, owners)?;
    flush_for(call, address, flags)?;
    Ok(0)
}

/// `update_va_mapping_otherdomain(address, entry, flags, domain)`: the entry maps another domain's frame.
///
/// # Errors
/// Those of [`update_va_mapping`]; `ESRCH` for a domain that does not exist, `EPERM` for one the caller may not name.
pub fn update_va_mapping_otherdomain<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    finish_left(call, args)?;
    let [address, entry, flags, domain, _] = args;
    let owner = PageOwner::named(call, domain as u16)?;
    owner.permitted(call)?;
    let caller = call.domain();
    let entry = owner.machine_entry(call.hv, entry);
    write(call, address, entry, owner.with_table(caller, caller))?;
    flush_for(call, address, flags)?;
    Ok(0)
}

#[inline]
fn write<M: Machine>(call: &Call<'_, M>, address: u64, entry: u64, owners: Owners<'_>) -> Result<(), Refusal> {
    let held = call.running.state.kernel_root.and_then(|root| HeldL1::at(call.hv, root, address, owners.table.id));
    match held {
        Some(held) => update_l1(call.hv, held.place, entry, false, owners),
        None => Err(no_l1(address)),
    }
}

#[cold]
fn no_l1(address: u64) -> Refusal {
    Refusal::errno(Errno::Inval, rules::NO_L1).with(Evidence::Value(address))
}

#[inline]
fn flush_for<M: Machine>(call: &Call<'_, M>, address: u64, flags: u64) -> Result<(), Refusal> {
    let what = match flags & UVMF_FLUSHTYPE_MASK {
        UVMF_TLB_FLUSH => Flush::All,
        UVMF_INVLPG if super::entry::is_guest_address(address) => Flush::Page(address),
        _ => return Ok(()),
    };
    let place = match flags & !UVMF_FLUSHTYPE_MASK {
        UVMF_LOCAL => {
            flush_here(call, what);
            return Ok(());
        }
        UVMF_ALL => Where::Everywhere,
        bitmap => Where::Bitmap(bitmap),
    };
    flush(call, what, place)
}
