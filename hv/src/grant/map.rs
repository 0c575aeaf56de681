//! Mapping granted frames, and unmapping them.

use core::cell::Cell;

use pv_abi::MachineAddr;
use pv_abi::grant_table::{
    GNTMAP_CONTAINS_PTE, GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP, GNTMAP_READONLY, GNTST_BAD_DEV_ADDR, GNTST_BAD_GNTREF,
    GNTST_BAD_HANDLE, GNTST_GENERAL_ERROR, GNTTABOP_MAP_GRANT_REF, GNTTABOP_UNMAP_AND_REPLACE,
    GNTTABOP_UNMAP_GRANT_REF, GnttabMapGrantRef, GnttabUnmapAndReplace, GnttabUnmapGrantRef,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::table::Mapping;
use super::{Batch, domain_of, pin, status, with_status};
use crate::call::Call;
use crate::domain::Domain;
use crate::frames;
use crate::hardware::Machine;
use crate::paging::{self, GrantPlace};
use crate::refusal::{Evidence, Refusal};
use crate::rules::grant as rule;

/// `GNTTABOP_map_grant_ref`, one element.
pub(super) fn map<M: Machine>(call: &mut Call<'_, M>, request: &mut GnttabMapGrantRef) {
    let arguments = [
        GNTTABOP_MAP_GRANT_REF.into(),
        request.dom.into(),
        request.ref_.into(),
        request.flags.into(),
        request.host_addr,
    ];
    let outcome = map_one(call, request);
    request.status = status(call, arguments, outcome);
}

fn map_one<M: Machine>(call: &Call<'_, M>, request: &mut GnttabMapGrantRef) -> Result<(), Refusal> {
    let flags = request.flags;
    if flags & (GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP) == 0 {
        return Err(Refusal::status(GNTST_BAD_GNTREF, rule::NO_MODE).with(Evidence::Value(flags.into())));
    }
    if call.domain().hvm.is_some() {
        return Err(Refusal::status(GNTST_GENERAL_ERROR, crate::rules::hvm::NO_GRANT_MAPPING));
    }
    let granter = domain_of(call, request.dom)?;
    let handle = call.domain().grants.lock().reserve()?;
    match map_reserved(call, request, &granter) {
        Ok(mapping) => {
            call.domain().grants.lock().set_mapping(handle, mapping);
            request.handle = handle;
            request.dev_bus_addr = mapping.mfn.address().0;
            Ok(())
        }
        Err(refusal) => {
            call.domain().grants.lock().release(handle);
            Err(refusal)
        }
    }
}

/// Pins and maps; nothing is left of either where one fails.
fn map_reserved<M: Machine>(
    call: &Call<'_, M>,
    request: &GnttabMapGrantRef,
    granter: &Domain,
) -> Result<Mapping, Refusal> {
    let flags = request.flags;
    let mut mapping = Mapping {
        granter: granter.id,
        reference: request.ref_,
        mfn: pv_abi::Mfn(0),
        readonly: flags & GNTMAP_READONLY != 0,
        by_entry: flags & GNTMAP_CONTAINS_PTE != 0,
        host: flags & GNTMAP_HOST_MAP != 0,
        device: flags & GNTMAP_DEVICE_MAP != 0,
        claims: 0,
    };
    mapping.mfn = pin::pin(call.hv, granter, request.ref_, call.domain().id, !mapping.readonly)?;
    if mapping.host {
        let place = place(&mapping, request.host_addr);
        paging::create_grant_mapping(call.hv, call.running, place, mapping.mfn, mapping.readonly, flags).map_err(
            |refusal| {
                pin::unpin(call.hv, Some(granter), mapping.reference, mapping.mfn, !mapping.readonly);
                with_status(&refusal, GNTST_GENERAL_ERROR)
            },
        )?;
    }
    Ok(mapping)
}

const fn place(mapping: &Mapping, address: u64) -> GrantPlace {
    if mapping.by_entry { GrantPlace::Pte(MachineAddr(address)) } else { GrantPlace::Va(address) }
}

/// Does an unmapping operation on each element of a batch, and forgets translations once where an element needs it.
pub(super) fn unmap_batch<M, T>(
    call: &mut Call<'_, M>,
    batch: &Batch,
    one: impl Fn(&Call<'_, M>, &mut T) -> bool,
) -> Result<u64, Refusal>
where
    M: Machine,
    T: FromBytes + IntoBytes + Immutable,
{
    let flush = Cell::new(false);
    let result = batch.run(call, |call, element| flush.set(one(call, element) | flush.get()));
    if flush.get() {
        frames::flush(call.hv, call.domain().loaded());
    }
    result
}

/// `GNTTABOP_unmap_grant_ref`, one element; whether translations are to be forgotten.
pub(super) fn unmap<M: Machine>(call: &Call<'_, M>, request: &mut GnttabUnmapGrantRef) -> bool {
    let arguments =
        [GNTTABOP_UNMAP_GRANT_REF.into(), request.handle.into(), request.host_addr, request.dev_bus_addr, 0];
    let outcome = unmap_one(call, request.handle, request.host_addr, request.dev_bus_addr, None);
    let flush = outcome == Ok(true);
    request.status = status(call, arguments, outcome.map(drop));
    flush
}

/// `GNTTABOP_unmap_and_replace`, one element; whether translations are to be forgotten.
pub(super) fn unmap_and_replace<M: Machine>(call: &Call<'_, M>, request: &mut GnttabUnmapAndReplace) -> bool {
    let arguments = [GNTTABOP_UNMAP_AND_REPLACE.into(), request.handle.into(), request.host_addr, request.new_addr, 0];
    let outcome = unmap_one(call, request.handle, request.host_addr, 0, Some(request.new_addr));
    let flush = outcome == Ok(true);
    request.status = status(call, arguments, outcome.map(drop));
    flush
}

/// Removes what of a mapping is named: the CPU's by its address, the devices' by theirs. Whether translations remain that
/// the page tables did not forget.
fn unmap_one<M: Machine>(
    call: &Call<'_, M>,
    handle: u32,
    host_addr: u64,
    device_addr: u64,
    replace_with: Option<u64>,
) -> Result<bool, Refusal> {
    let mapping = claim(call, handle, host_addr, device_addr)?;
    if mapping.host {
        let place = place(&mapping, host_addr);
        let replaced =
            paging::destroy_grant_mapping(call.hv, call.running, place, mapping.mfn, mapping.readonly, replace_with);
        if let Err(refusal) = replaced {
            give_back(call.domain(), handle, &mapping);
            return Err(with_status(&refusal, GNTST_GENERAL_ERROR));
        }
    }
    finish(call, handle, &mapping);
    Ok(mapping.host && mapping.by_entry)
}

/// Takes those modes of a mapping that are to be removed, so that no other vCPU removes them too; the mapping stays until
/// [`give_back`] or [`finish`].
fn claim<M: Machine>(call: &Call<'_, M>, handle: u32, host_addr: u64, device_addr: u64) -> Result<Mapping, Refusal> {
    let mut table = call.domain().grants.lock();
    let bad_handle = || Refusal::status(GNTST_BAD_HANDLE, rule::BAD_HANDLE).with(Evidence::Value(handle.into()));
    // One of which all is claimed is as good as gone.
    let mapping = table.mapping(handle).filter(|mapping| mapping.host || mapping.device).ok_or_else(bad_handle)?;
    if device_addr != 0 && mapping.device && device_addr != mapping.mfn.address().0 {
        return Err(Refusal::status(GNTST_BAD_DEV_ADDR, rule::DEVICE_ADDRESS).with(Evidence::Value(device_addr)));
    }
    let claimed =
        Mapping { host: mapping.host && host_addr != 0, device: mapping.device && device_addr != 0, ..*mapping };
    mapping.host &= !claimed.host;
    mapping.device &= !claimed.device;
    mapping.claims += 1;
    Ok(claimed)
}

/// Undoes [`claim`].
fn give_back(domain: &Domain, handle: u32, claimed: &Mapping) {
    if let Some(mapping) = domain.grants.lock().mapping(handle) {
        mapping.host |= claimed.host;
        mapping.device |= claimed.device;
        mapping.claims -= 1;
    }
}

/// Ends a mapping of which nothing is left, and its pin.
fn finish<M: Machine>(call: &Call<'_, M>, handle: u32, claimed: &Mapping) {
    {
        let mut table = call.domain().grants.lock();
        let Some(left) = table.mapping(handle) else {
            return;
        };
        left.claims -= 1;
        if left.host || left.device || left.claims != 0 {
            return;
        }
        table.release(handle);
    }
    let own = call.domain();
    let other = if claimed.granter == own.id { None } else { call.hv.domains.get(claimed.granter) };
    let granter = if claimed.granter == own.id { Some(own) } else { other.as_deref() };
    pin::unpin(call.hv, granter, claimed.reference, claimed.mfn, !claimed.readonly);
}
