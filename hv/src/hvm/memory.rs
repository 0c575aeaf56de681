//! What `memory_op` means for a domain with hardware assistance: frames are guest frames.
//!
//! Xen: public/memory.h.

use pv_abi::errno::Errno;
use pv_abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, MEMOP_CMD_MASK, RemoveFromPhysmap, XENMAPIDX_GRANT_TABLE_STATUS,
    XENMAPSPACE_GRANT_TABLE, XENMAPSPACE_SHARED_INFO, XENMEM_ADD_TO_PHYSMAP_BATCH,
};
use pv_abi::{DomId, Mfn};

use super::{HvmDomain, physmap};
use crate::call::Call;
use crate::domain::Domain;
use crate::frames;
use crate::hardware::Machine;
use crate::refusal::{Consequence, Evidence, Refusal};
use crate::rules::hvm as rule;
use crate::{Hypervisor, grant, rules};

/// Where the progress of a batch stands in the command.
const EXTENT_SHIFT: u32 = 6;

/// Puts a block that was just given to the domain at a guest frame; on refusal what did not get there is free again.
pub(crate) fn populate<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    hvm: &HvmDomain,
    (guest_frame, order): (u64, u32),
    mfn: Mfn,
) -> Result<(), Refusal> {
    let outcome = physmap::insert(hv, domain, &hvm.map, guest_frame, mfn, order);
    if outcome.is_err() {
        let unreached = |frame: &u64| hvm.map.lock().find(&hv.machine, guest_frame + frame) != Some(Mfn(mfn.0 + frame));
        (0..1_u64 << order).filter(unreached).for_each(|n| {
            frames::drop_allocation(hv, Mfn(mfn.0 + n));
        });
    }
    outcome
}

/// Refuses a block that could not be put at a guest frame.
pub(crate) fn check_block(guest_frame: u64, order: u32) -> Result<(), Refusal> {
    physmap::check(guest_frame, order)
}

/// Gives the memory at a guest frame back.
///
/// # Errors
/// `ENOENT` where there is none.
pub(crate) fn give<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    hvm: &HvmDomain,
    guest_frame: u64,
) -> Result<(), Refusal> {
    physmap::remove(hv, domain, &hvm.map, guest_frame)
}

/// What a domain has by hardware assistance: PV domains have no physical map to add to.
fn physmap_of(domain: &Domain) -> Result<&HvmDomain, Refusal> {
    domain.hvm.as_ref().ok_or_else(|| Refusal::errno(Errno::Access, rules::memory::NO_PHYSMAP))
}

/// `XENMEM_add_to_physmap`, `XENMEM_add_to_physmap_batch`.
///
/// # Errors
/// `EFAULT`; those of naming a domain; `EACCES` for a PV domain, `EINVAL` for what cannot be put there, `ENOMEM`: in a
/// batch each element has an errno of its own. May ask to be called again.
pub(crate) fn add<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5], done: u64) -> Result<u64, Refusal> {
    if args[0] as u32 & MEMOP_CMD_MASK == XENMEM_ADD_TO_PHYSMAP_BATCH {
        return add_batch(call, args, done);
    }
    let request: AddToPhysmap = call.read(args[1])?;
    let domain = call.target(DomId(request.domid))?;
    add_one(call.hv, &domain, physmap_of(&domain)?, &request).map(|()| 0)
}

fn add_one<M: Machine>(
    hv: &Hypervisor<M>,
    domain: &Domain,
    hvm: &HvmDomain,
    request: &AddToPhysmap,
) -> Result<(), Refusal> {
    let mfn = match request.space {
        XENMAPSPACE_SHARED_INFO if request.idx == 0 => Some(domain.shared_info),
        XENMAPSPACE_GRANT_TABLE => grant_frame(hv, domain, request.idx)?,
        _ => None,
    };
    let mfn =
        mfn.ok_or_else(|| Refusal::errno(Errno::Inval, rule::MAP_SPACE).with(Evidence::Value(request.space.into())))?;
    physmap::insert(hv, domain, &hvm.map, request.gpfn, mfn, 0)
}

/// A frame of the domain's grant table, or of the status words beside one of version 2.
fn grant_frame<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, index: u64) -> Result<Option<Mfn>, Refusal> {
    let Ok(frame) = u32::try_from(index & !XENMAPIDX_GRANT_TABLE_STATUS) else {
        return Ok(None);
    };
    if index & XENMAPIDX_GRANT_TABLE_STATUS == 0 {
        grant::frame(hv, domain, frame)
    } else {
        grant::status_frame(hv, domain, frame)
    }
}

fn add_batch<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5], done: u64) -> Result<u64, Refusal> {
    let asked: AddToPhysmapBatch = call.read(args[1])?;
    let domain = call.target(DomId(asked.domid))?;
    let hvm = physmap_of(&domain)?;
    let resume =
        |index| [u64::from(XENMEM_ADD_TO_PHYSMAP_BATCH) | index << EXTENT_SHIFT, args[1], args[2], args[3], args[4]];
    for index in done..asked.size.into() {
        if index != done && call.should_stop() {
            return Err(call.again(resume(index)));
        }
        let request = AddToPhysmap {
            domid: asked.domid,
            size: 0,
            space: asked.space.into(),
            idx: call.read_element(asked.idxs, index)?,
            gpfn: call.read_element(asked.gpfns, index)?,
        };
        let errno = match add_one(call.hv, &domain, hvm, &request) {
            Ok(()) => 0,
            Err(refusal) if refusal.consequence == Consequence::Continue => {
                return Err(call.again(resume(index)));
            }
            Err(refusal) => refusal.as_errno().map_or(-1, |errno| errno.as_return() as i32),
        };
        call.write_element(asked.errs, index, &errno)?;
    }
    Ok(0)
}

/// `XENMEM_remove_from_physmap`.
///
/// # Errors
/// `EFAULT`; those of naming a domain; `EACCES` for a PV domain, `ENOENT` where there is nothing.
pub(crate) fn remove<M: Machine>(call: &Call<'_, M>, argument: u64) -> Result<u64, Refusal> {
    let request: RemoveFromPhysmap = call.read(argument)?;
    let domain = call.target(DomId(request.domid))?;
    physmap::remove(call.hv, &domain, &physmap_of(&domain)?.map, request.gpfn).map(|()| 0)
}
