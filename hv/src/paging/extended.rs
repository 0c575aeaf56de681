//! `mmuext_op`: pins, root tables, flushes, the local descriptor table, whole frames.
//!
//! Xen: public/xen.h, `HYPERVISOR_mmuext_op`, `MMUEXT_*`.

use alloc::sync::Arc;

use pv_abi::errno::Errno;
use pv_abi::xen::{
    HYPERVISOR_MMUEXT_OP, MMUEXT_CLEAR_PAGE, MMUEXT_COPY_PAGE, MMUEXT_FLUSH_CACHE, MMUEXT_FLUSH_CACHE_GLOBAL,
    MMUEXT_INVLPG_ALL, MMUEXT_INVLPG_LOCAL, MMUEXT_INVLPG_MULTI, MMUEXT_MARK_SUPER, MMUEXT_NEW_BASEPTR,
    MMUEXT_NEW_USER_BASEPTR, MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE,
    MMUEXT_SET_LDT, MMUEXT_TLB_FLUSH_ALL, MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_TLB_FLUSH_MULTI, MMUEXT_UNMARK_SUPER,
    MMUEXT_UNPIN_TABLE, MmuextOp,
};

use super::flush::{Where, flush};
use super::foreign::PageOwner;
use super::roots::{change_kernel_root, change_user_root};
use super::table::{Stop, Work, get_table, put_table};
use super::{batch, device, entry, ldt};
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::Domain;
use crate::frames::{self, ClaimedMfn, PageType};
use crate::hardware::{Flush, Machine};
use crate::refusal::{Evidence, Refusal};
use crate::rules::paging as rules;

/// `mmuext_op(requests, count, done, foreigndom)`.
///
/// # Errors
/// `ESRCH` for a domain that does not exist, `EPERM` for one the caller may not name or a command that works on the
/// caller only, `EINVAL` for a frame or argument that is not allowed, `EACCES` for a cache flush without a device,
/// `EOPNOTSUPP` for superpage marks, `ENOSYS` for an unknown command.
pub fn mmuext_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    batch::run(call, args, HYPERVISOR_MMUEXT_OP, prepare, one)
}

/// The domain that the requests are about, where that is not the caller.
fn prepare<M: Machine>(call: &Call<'_, M>, foreign: u32) -> Result<Option<Arc<Domain>>, Refusal> {
    let owner = PageOwner::named(call, foreign as u16)?;
    owner.permitted(call)?;
    match owner {
        PageOwner::Own => Ok(None),
        PageOwner::Other(domain) => Ok(Some(domain)),
        PageOwner::Io | PageOwner::Hypervisor => {
            Err(Refusal::errno(Errno::Inval, rules::FOREIGN_SELF).with(Evidence::Value(foreign.into())))
        }
    }
}

fn one<M: Machine>(
    call: &mut Call<'_, M>,
    other: &Option<Arc<Domain>>,
    request: MmuextOp,
    work: &mut Work,
) -> Result<(), Stop> {
    let claimed = ClaimedMfn(request.arg1);
    let domain = other.as_deref().unwrap_or(&call.running.vcpu.domain);
    match request.cmd {
        MMUEXT_PIN_L1_TABLE | MMUEXT_PIN_L2_TABLE | MMUEXT_PIN_L3_TABLE | MMUEXT_PIN_L4_TABLE => {
            let level = (request.cmd - MMUEXT_PIN_L1_TABLE) as u8 + 1;
            pin(call.hv, claimed, level, domain, work)
        }
        MMUEXT_UNPIN_TABLE => Ok(unpin(call.hv, claimed, domain, work)?),
        MMUEXT_CLEAR_PAGE => Ok(clear_page(call.hv, claimed, domain)?),
        MMUEXT_COPY_PAGE => Ok(copy_page(call.hv, claimed, ClaimedMfn(request.arg2), domain)?),
        MMUEXT_MARK_SUPER | MMUEXT_UNMARK_SUPER => {
            Err(Refusal::errno(Errno::OpNotSupp, rules::NO_SUPERPAGE_MARKS).into())
        }
        MMUEXT_NEW_BASEPTR..=MMUEXT_SET_LDT | MMUEXT_NEW_USER_BASEPTR | MMUEXT_FLUSH_CACHE_GLOBAL => {
            if other.is_some() {
                return Err(Refusal::errno(Errno::Perm, rules::EXTENDED_FOREIGN).into());
            }
            own(call, request, work)
        }
        command => Err(unknown(command).into()),
    }
}

/// A command that works on the caller only.
fn own<M: Machine>(call: &mut Call<'_, M>, request: MmuextOp, work: &mut Work) -> Result<(), Stop> {
    let address = request.arg1;
    let page = Flush::Page(address);
    let mapped = entry::is_guest_address(address);
    match request.cmd {
        MMUEXT_NEW_BASEPTR => change_kernel_root(call.hv, call.running, ClaimedMfn(request.arg1), work)?,
        MMUEXT_NEW_USER_BASEPTR => {
            let root = (request.arg1 != 0).then_some(ClaimedMfn(request.arg1));
            change_user_root(call.hv, call.running, root, work)?;
        }
        MMUEXT_TLB_FLUSH_LOCAL => flush(call, Flush::All, Where::Here)?,
        MMUEXT_TLB_FLUSH_MULTI => flush_multi(call, Flush::All, request.arg2)?,
        MMUEXT_TLB_FLUSH_ALL => flush(call, Flush::All, Where::Everywhere)?,
        MMUEXT_INVLPG_LOCAL if mapped => flush(call, page, Where::Here)?,
        MMUEXT_INVLPG_MULTI if mapped => flush_multi(call, page, request.arg2)?,
        MMUEXT_INVLPG_ALL if mapped => flush(call, page, Where::Everywhere)?,
        MMUEXT_INVLPG_LOCAL | MMUEXT_INVLPG_MULTI | MMUEXT_INVLPG_ALL => {}
        MMUEXT_FLUSH_CACHE | MMUEXT_FLUSH_CACHE_GLOBAL => flush_caches(call)?,
        MMUEXT_SET_LDT => ldt::set(call.hv, &mut call.running.state, address, request.arg2 as u32)?,
        command => return Err(unknown(command).into()),
    }
    Ok(())
}

#[cold]
fn unknown(command: u32) -> Refusal {
    Refusal::errno(Errno::NoSys, rules::EXTENDED_COMMAND).with(Evidence::Value(command.into()))
}

fn flush_multi<M: Machine>(call: &Call<'_, M>, what: Flush, bitmap: u64) -> Result<(), Refusal> {
    flush(call, what, Where::Bitmap(bitmap))
        .map_err(|refusal| Refusal::errno(Errno::Inval, refusal.rule).with(refusal.evidence))
}

fn flush_caches<M: Machine>(call: &Call<'_, M>) -> Result<(), Refusal> {
    if !device::has_devices(call.domain()) {
        return Err(Refusal::errno(Errno::Access, rules::CACHE_FLUSH));
    }
    call.hv.machine.flush_caches();
    Ok(())
}

fn pin<M: Machine>(
    hv: &Hypervisor<M>,
    claimed: ClaimedMfn,
    level: u8,
    domain: &Domain,
    work: &mut Work,
) -> Result<(), Stop> {
    let mfn = get_table(hv, claimed, level, domain, work)?;
    let record = hv.frames.record(mfn);
    if !record.pin() {
        let refusal = Refusal::errno(Errno::Inval, rules::ALREADY_PINNED).with(frames::evidence(hv, claimed));
        // What is left of the table, where ours was the last use after all, is in `work`.
        let _ = put_table(hv, mfn, work);
        return Err(refusal.into());
    }
    if domain.memory.lock().closed && record.unpin() {
        let _ = put_table(hv, mfn, work);
    }
    Ok(())
}

fn unpin<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn, domain: &Domain, work: &mut Work) -> Result<(), Refusal> {
    let mfn = frames::get(hv, claimed, domain.id)?;
    let outcome = if hv.frames.record(mfn).unpin() {
        // What is left of the table is in `work`.
        let _ = put_table(hv, mfn, work);
        Ok(())
    } else {
        Err(Refusal::errno(Errno::Inval, rules::NOT_PINNED).with(frames::evidence(hv, claimed)))
    };
    frames::put(hv, mfn);
    outcome
}

fn clear_page<M: Machine>(hv: &Hypervisor<M>, claimed: ClaimedMfn, domain: &Domain) -> Result<(), Refusal> {
    let mfn = frames::get_typed(hv, claimed, domain.id, PageType::Writable)?;
    hv.machine.clear_frame(mfn);
    frames::put_typed(hv, mfn);
    Ok(())
}

fn copy_page<M: Machine>(hv: &Hypervisor<M>, to: ClaimedMfn, from: ClaimedMfn, domain: &Domain) -> Result<(), Refusal> {
    let from = frames::get(hv, from, domain.id)?;
    let outcome = frames::get_typed(hv, to, domain.id, PageType::Writable).map(|to| {
        hv.machine.copy_bytes(to, 0, from, 0, 4096);
        frames::put_typed(hv, to);
    });
    frames::put(hv, from);
    outcome
}
