//! Frames of the hypervisor that belong to a domain, for its toolstack to map: the grant table and its status words.
//!
//! Xen: `XENMEM_acquire_resource`.

use pv_abi::DomId;
use pv_abi::errno::Errno;
use pv_abi::memory::{
    MemAcquireResource, XENMEM_ACQUIRE_RESOURCE, XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED,
    XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS, XENMEM_RESOURCE_IOREQ_SERVER,
};

use super::EXTENT_SHIFT;
use crate::call::Call;
use crate::domain::Domain;
use crate::grant;
use crate::hardware::Machine;
use crate::hvm::ioreq;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rules, memory as rules};

/// `XENMEM_acquire_resource`: tells the frames of a resource, or, with a null list, how many there can be.
///
/// # Errors
/// `EFAULT`; `EINVAL` for a resource that is not there or a range outside it; `ESRCH`; `EPERM` for the caller itself or
/// an unprivileged caller.
pub(super) fn acquire<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5], before: u64) -> Result<u64, Refusal> {
    let argument = args[1];
    let asked: MemAcquireResource = call.read(argument)?;
    let end = asked.frame.checked_add(asked.nr_frames.into());
    if asked.pad != 0 || end.is_none_or(|end| end >> 32 != 0) {
        return Err(bad_range(asked.frame));
    }
    let named = DomId(asked.domid);
    if named == call.domain().id {
        return Err(Refusal::errno(Errno::Perm, rules::RESOURCE_SELF));
    }
    let Some(domain) = call.hv.domains.get(named) else {
        let refusal = Refusal::errno(Errno::Srch, core_rules::NO_SUCH_DOMAIN);
        return Err(refusal.with(Evidence::Value(named.0.into())));
    };
    call.privileged()?;
    let most = size(&domain, &asked);
    if asked.type_ == XENMEM_RESOURCE_IOREQ_SERVER && most != 0 && asked.frame_list != 0 {
        ioreq::check(&domain, call.domain().id, asked.id)?;
    }
    if most == 0 {
        return Err(Refusal::errno(Errno::Inval, rules::RESOURCE).with(Evidence::Value(asked.type_.into())));
    }
    if asked.frame_list == 0 {
        if asked.nr_frames != 0 || before != 0 {
            return Err(bad_range(asked.frame));
        }
        call.write(argument, &MemAcquireResource { nr_frames: most, ..asked })?;
        return Ok(0);
    }
    list(call, args, &asked, &domain, before)
}

fn size(domain: &Domain, asked: &MemAcquireResource) -> u32 {
    match (asked.type_, asked.id) {
        (XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED) => domain.grants.lock().max_size(),
        (XENMEM_RESOURCE_GRANT_TABLE, XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS) => domain.grants.lock().max_status_size(),
        (XENMEM_RESOURCE_IOREQ_SERVER, _) if domain.hvm.is_some() => ioreq::FRAMES,
        _ => 0,
    }
}

#[cold]
fn bad_range(frame: u64) -> Refusal {
    Refusal::errno(Errno::Inval, rules::RESOURCE_RANGE).with(Evidence::Value(frame))
}

fn list<M: Machine>(
    call: &mut Call<'_, M>,
    args: [u64; 5],
    asked: &MemAcquireResource,
    domain: &Domain,
    before: u64,
) -> Result<u64, Refusal> {
    if before >= asked.nr_frames.into() || asked.nr_frames > u32::MAX >> EXTENT_SHIFT {
        return Err(bad_range(before));
    }
    for index in before..asked.nr_frames.into() {
        if index != before && call.should_stop() {
            let command = u64::from(XENMEM_ACQUIRE_RESOURCE) | index << EXTENT_SHIFT;
            return Err(call.again([command, args[1], args[2], args[3], args[4]]));
        }
        let number = (asked.frame + index) as u32;
        let mfn = match asked.id {
            _ if asked.type_ == XENMEM_RESOURCE_IOREQ_SERVER => ioreq::frame(domain, asked.id, number)?,
            XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS => grant::status_frame(call.hv, domain, number)?,
            _ => grant::frame(call.hv, domain, number)?,
        };
        let mfn = mfn.ok_or_else(|| bad_range(number.into()))?;
        call.write_element(asked.frame_list, index, &mfn.0)?;
    }
    Ok(0)
}
