//! A domain as a whole: made, paused, given its size, started, destroyed.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::arch::XEN_X86_EMU_PIT;
use pv_abi::domctl::{
    Domctl, DomctlAddressSize, DomctlCreatedomain, DomctlHypercallInit, DomctlMaxMem, DomctlMaxVcpus,
    DomctlSetdomainhandle, DomctlSettimeoffset, XEN_DOMCTL_CDF_OOS_OFF, XEN_DOMCTL_CDF_S3_INTEGRITY,
    XEN_DOMCTL_CDF_XS_DOMAIN, XEN_DOMCTL_GRANT_VERSION_MASK,
};
use pv_abi::errno::Errno;
use pv_abi::{DomId, hypercall_page};

use super::{Answer, assisted};
use crate::call::Call;
use crate::control::{Settings, destroy as taking_apart};
use crate::domain::{Domain, DomainConfig, add_vcpus};
use crate::frames::{self, ClaimedMfn, PageType};
use crate::grant::Version;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::control as rule;
use crate::{sched, time};

/// Flags that a PV domain may have.
const FLAGS: u32 = XEN_DOMCTL_CDF_S3_INTEGRITY | XEN_DOMCTL_CDF_OOS_OFF | XEN_DOMCTL_CDF_XS_DOMAIN;
/// Pauses by a toolstack at once.
const MOST_PAUSES: u32 = 255;

/// `XEN_DOMCTL_createdomain`: the number is the frame's, or a free one where that is 0.
pub(super) fn create<M: Machine>(call: &Call<'_, M>, frame: &mut Domctl) -> Result<Answer, Refusal> {
    let request: DomctlCreatedomain = frame.payload();
    let hvm = assisted::devices(call, &request)?;
    check(&request, hvm.is_some())?;
    let wanted = DomId(frame.domain);
    let id = if wanted.0 == 0 || wanted >= DomId::FIRST_RESERVED {
        call.hv.domains.free_number().ok_or_else(|| Refusal::errno(Errno::NoMem, rule::NO_MEMORY_FOR_DOMAIN))?
    } else {
        wanted
    };
    let or_usual = |wanted: i32, usual| u32::try_from(wanted).unwrap_or(usual);
    let usual = DomainConfig::default();
    let config = DomainConfig {
        hvm,
        handle: request.handle,
        max_event_port: request.max_evtchn_port,
        max_grant_frames: or_usual(request.max_grant_frames, usual.max_grant_frames),
        max_maptrack_frames: or_usual(request.max_maptrack_frames, usual.max_maptrack_frames),
        max_grant_version: match request.grant_opts & XEN_DOMCTL_GRANT_VERSION_MASK {
            1 => Version::One,
            _ => Version::Two,
        },
        settings: Settings::from_request(&request),
        ..usual
    };
    let domain = Domain::new(call.hv, id, config)?;
    time::update_wallclock(call.hv, &domain);
    frame.domain = id.0;
    Ok(Answer::Changed)
}

fn check(request: &DomctlCreatedomain, hvm: bool) -> Result<(), Refusal> {
    let (flags, emulation) = if hvm { (FLAGS | assisted::FLAGS, !0) } else { (FLAGS, XEN_X86_EMU_PIT) };
    let kind = request.flags & !flags != 0
        || request.iommu_opts != 0
        || request.vmtrace_size != 0
        || request.cpupool_id != 0
        || request.arch.emulation_flags & !emulation != 0;
    if kind {
        let evidence = Evidence::Value(request.flags.into());
        return Err(Refusal::errno(Errno::Inval, rule::DOMAIN_KIND).with(evidence));
    }
    if request.max_vcpus == 0 || request.max_vcpus > pv_abi::xen::XEN_LEGACY_MAX_VCPUS {
        let evidence =
            Evidence::Limit { asked: request.max_vcpus.into(), limit: pv_abi::xen::XEN_LEGACY_MAX_VCPUS.into() };
        return Err(Refusal::errno(Errno::Inval, rule::VCPU_COUNT).with(evidence));
    }
    let version = request.grant_opts & XEN_DOMCTL_GRANT_VERSION_MASK;
    if !matches!(version, 1 | 2) || request.grant_opts & !XEN_DOMCTL_GRANT_VERSION_MASK != 0 {
        let evidence = Evidence::Value(request.grant_opts.into());
        return Err(Refusal::errno(Errno::Inval, rule::GRANT_VERSION).with(evidence));
    }
    Ok(())
}

/// Passes only a domain that is not the caller's own.
pub(super) fn not_own<M: Machine>(call: &Call<'_, M>, domain: &Domain) -> Result<(), Refusal> {
    if domain.id == call.domain().id {
        return Err(Refusal::errno(Errno::Inval, rule::DESTROY_SELF).with(Evidence::Value(domain.id.0.into())));
    }
    Ok(())
}

/// `XEN_DOMCTL_destroydomain`: goes on until nothing is left.
pub(super) fn destroy<M: Machine>(call: &mut Call<'_, M>, domain: &Arc<Domain>) -> Result<Answer, Refusal> {
    not_own(call, domain)?;
    taking_apart::destroy(call.hv, domain)?;
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_pausedomain`.
pub(super) fn pause<M: Machine>(call: &Call<'_, M>, domain: &Domain) -> Result<Answer, Refusal> {
    not_own(call, domain)?;
    let mut lifecycle = domain.lifecycle.lock();
    if lifecycle.paused_by_control {
        if lifecycle.further_pauses + 1 >= MOST_PAUSES {
            return Err(Refusal::errno(Errno::Overflow, rule::TOO_MANY_PAUSES));
        }
        lifecycle.further_pauses += 1;
        return Ok(Answer::Done);
    }
    lifecycle.paused_by_control = true;
    drop(lifecycle);
    sched::pause(call.hv, domain);
    domain.vcpus.get().into_iter().flatten().for_each(|vcpu| sched::wait_until_stopped(call.hv, vcpu));
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_unpausedomain`.
pub(super) fn unpause<M: Machine>(call: &Call<'_, M>, domain: &Domain) -> Result<Answer, Refusal> {
    let mut lifecycle = domain.lifecycle.lock();
    if !lifecycle.paused_by_control {
        return Err(Refusal::errno(Errno::Inval, rule::NOT_PAUSED));
    }
    if lifecycle.further_pauses > 0 {
        lifecycle.further_pauses -= 1;
        return Ok(Answer::Done);
    }
    lifecycle.paused_by_control = false;
    drop(lifecycle);
    domain.settings.lock().started = true;
    sched::unpause(call.hv, domain);
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_resumedomain`: lets a domain go on that shut down.
pub(super) fn resume<M: Machine>(call: &Call<'_, M>, domain: &Domain) -> Result<Answer, Refusal> {
    not_own(call, domain)?;
    sched::resume(call.hv, domain);
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_max_mem`.
pub(super) fn max_memory(domain: &Domain, request: &DomctlMaxMem) -> Answer {
    domain.memory.lock().max = (request.max_memkb >> 2).min(u32::MAX.into());
    Answer::Done
}

/// `XEN_DOMCTL_max_vcpus`: the number that the domain was made for.
pub(super) fn max_vcpus<M: Machine>(
    call: &Call<'_, M>,
    domain: &Arc<Domain>,
    request: &DomctlMaxVcpus,
) -> Result<Answer, Refusal> {
    not_own(call, domain)?;
    let made_for = domain.settings.lock().max_vcpus;
    if request.max != made_for {
        let evidence = Evidence::Limit { asked: request.max.into(), limit: made_for.into() };
        return Err(Refusal::errno(Errno::Inval, rule::VCPU_COUNT).with(evidence));
    }
    add_vcpus(call.hv, domain, request.max)?;
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_setdomainhandle`.
pub(super) fn set_handle(domain: &Domain, request: &DomctlSetdomainhandle) -> Answer {
    *domain.handle.lock() = request.handle;
    Answer::Done
}

/// `XEN_DOMCTL_settimeoffset`.
pub(super) fn set_time_offset<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlSettimeoffset,
) -> Answer {
    domain.settings.lock().time_offset_seconds = request.time_offset_seconds;
    time::update_wallclock(call.hv, domain);
    Answer::Done
}

/// `XEN_DOMCTL_hypercall_init`: fills a frame of the domain with hypercall stubs.
pub(super) fn hypercall_page<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlHypercallInit,
) -> Result<Answer, Refusal> {
    let mfn = frames::get_typed(call.hv, ClaimedMfn(request.gmfn), domain.id, PageType::Writable)
        .map_err(|refusal| Refusal::errno(Errno::Inval, rule::HYPERCALL_PAGE_FRAME).with(refusal.evidence))?;
    let mut stubs = Box::new([0; 4096]);
    hypercall_page::fill(&mut stubs);
    call.hv.machine.write_bytes(mfn, 0, &*stubs);
    frames::put_typed(call.hv, mfn);
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_set_address_size`.
pub(super) fn set_address_size(request: &DomctlAddressSize) -> Result<Answer, Refusal> {
    if request.size == 64 {
        return Ok(Answer::Done);
    }
    Err(Refusal::errno(Errno::Inval, rule::ADDRESS_SIZE).with(Evidence::Value(request.size.into())))
}

/// The domain's weight and how it may be seen to run.
pub(super) fn weight(domain: &Domain) -> u16 {
    domain.weight.load(Ordering::Relaxed) as u16
}
