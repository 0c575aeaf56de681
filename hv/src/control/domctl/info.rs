//! What a toolstack asks about a domain, and the small things it sets.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::DomId;
use pv_abi::arch::ArchDomainconfig;
use pv_abi::domctl::{
    self as abi, Domctl, DomctlGetdomaininfo, DomctlGetpageframeinfo3, DomctlSchedCredit2, DomctlSchedulerOp,
    DomctlSchedulerOpV, DomctlSetVirqHandler, DomctlTscInfo,
};
use pv_abi::errno::Errno;

use super::{Answer, lifecycle};
use crate::call::{Call, resume, resumed_at};
use crate::control::TscSettings;
use crate::control::destroy::Step;
use crate::domain::{Domain, Vcpu, stopped};
use crate::frames::{self, ClaimedMfn, PageType, TypeWord};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{control as rule, core as core_rule};
use crate::{Hypervisor, sched};

/// Frames that are asked about at once.
const MOST_FRAMES: u64 = 1024;
/// Frames that are answered between two looks at whether to stop.
const BATCH: u64 = 32;
/// `XEN_DOMCTL_getdomaininfo`: of the first domain whose number is not lower.
pub(super) fn get<M: Machine>(call: &Call<'_, M>, frame: &mut Domctl) -> Result<Answer, Refusal> {
    let from = DomId(frame.domain);
    let domain =
        call.hv.domains.from(from).into_iter().next().ok_or_else(|| {
            Refusal::errno(Errno::Srch, core_rule::NO_SUCH_DOMAIN).with(Evidence::Value(from.0.into()))
        })?;
    frame.domain = domain.id.0;
    frame.set_payload(&describe(call.hv, &domain));
    Ok(Answer::Changed)
}

/// What `getdomaininfo` shows of a domain.
pub(crate) fn describe<M: Machine>(hv: &Hypervisor<M>, domain: &Arc<Domain>) -> DomctlGetdomaininfo {
    let lifecycle = *domain.lifecycle.lock();
    let mut info = DomctlGetdomaininfo { domain: domain.id.0, ..DomctlGetdomaininfo::default() };
    let set = |on, bit| if on { bit } else { 0 };
    info.flags = set(domain.settings.lock().destroy_step == Step::Gone, abi::XEN_DOMINF_DYING)
        | set(lifecycle.paused_by_control, abi::XEN_DOMINF_PAUSED)
        | set(domain.hvm.is_some(), abi::XEN_DOMINF_HVM_GUEST | abi::XEN_DOMINF_HAP)
        | lifecycle.shutdown.map_or(0, |reason| {
            abi::XEN_DOMINF_SHUTDOWN | (reason & abi::XEN_DOMINF_SHUTDOWNMASK) << abi::XEN_DOMINF_SHUTDOWNSHIFT
        });
    {
        let memory = domain.memory.lock();
        info.tot_pages = memory.total;
        info.max_pages = memory.max;
        info.outstanding_pages = memory.claimed;
    }
    info.shared_info_frame = domain.shared_info.0;
    info.handle = *domain.handle.lock();
    {
        let settings = domain.settings.lock();
        info.ssidref = settings.security_label;
        info.flags |= set(settings.flags & abi::XEN_DOMCTL_CDF_XS_DOMAIN != 0, abi::XEN_DOMINF_XS_DOMAIN);
        info.arch_config =
            ArchDomainconfig { emulation_flags: settings.emulation_flags, misc_flags: settings.relaxed_msrs.into() };
    }
    describe_vcpus(hv, domain, &mut info);
    info
}

fn describe_vcpus<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, info: &mut DomctlGetdomaininfo) {
    info.max_vcpu_id = abi::XEN_INVALID_MAX_VCPU_ID;
    info.flags |= abi::XEN_DOMINF_BLOCKED;
    for vcpu in domain.vcpus.get().into_iter().flatten() {
        info.max_vcpu_id = vcpu.id.0;
        info.cpu_time += sched::cpu_time(hv, vcpu);
        let why = vcpu.stopped.load(Ordering::Acquire);
        if why & stopped::DOWN != 0 {
            continue;
        }
        info.nr_online_vcpus += 1;
        if why & (stopped::BLOCKED | stopped::POLLING | stopped::ASKING) == 0 {
            info.flags &= !abi::XEN_DOMINF_BLOCKED;
        }
        if is_running(vcpu) {
            info.flags |= abi::XEN_DOMINF_RUNNING;
        }
    }
}

/// Whether a CPU runs the vCPU now.
pub(super) fn is_running(vcpu: &Vcpu) -> bool {
    vcpu.is_runnable() && vcpu.state.try_lock().is_none_or(|state| state.is_none())
}

/// `XEN_DOMCTL_scheduler_op`: the weight of a domain.
pub(super) fn scheduler(domain: &Domain, frame: &mut Domctl) -> Result<Answer, Refusal> {
    let mut request: DomctlSchedulerOp = frame.payload();
    if request.sched_id != abi::XEN_SCHEDULER_CREDIT2 {
        let evidence = Evidence::Value(request.sched_id.into());
        return Err(Refusal::errno(Errno::Inval, rule::SCHEDULER).with(evidence));
    }
    match request.cmd {
        abi::XEN_DOMCTL_SCHEDOP_PUTINFO => {
            let weight = u16::from_le_bytes([request.u[0], request.u[1]]);
            if weight != 0 {
                domain.weight.store(weight.into(), Ordering::Relaxed);
            }
            Ok(Answer::Done)
        }
        abi::XEN_DOMCTL_SCHEDOP_GETINFO => {
            let shown = DomctlSchedCredit2 { weight: lifecycle::weight(domain), cap: 0 };
            request.u[..2].copy_from_slice(&shown.weight.to_le_bytes());
            request.u[2..4].copy_from_slice(&shown.cap.to_le_bytes());
            frame.set_payload(&request);
            Ok(Answer::Changed)
        }
        abi::XEN_DOMCTL_SCHEDOP_PUTVCPUINFO | abi::XEN_DOMCTL_SCHEDOP_GETVCPUINFO => {
            let evidence = Evidence::Value(size_of::<DomctlSchedulerOpV>() as u64);
            Err(Refusal::errno(Errno::Inval, rule::SCHEDULER).with(evidence))
        }
        other => Err(Refusal::errno(Errno::Inval, rule::SCHEDULER).with(Evidence::Value(other.into()))),
    }
}

/// `XEN_DOMCTL_gettscinfo`.
pub(super) fn get_tsc<M: Machine>(call: &Call<'_, M>, domain: &Domain, frame: &mut Domctl) -> Answer {
    let tsc = domain.settings.lock().tsc;
    let machine_khz = call.hv.machine.time_scale().khz;
    frame.set_payload(&DomctlTscInfo {
        tsc_mode: tsc.mode,
        gtsc_khz: if tsc.khz == 0 { machine_khz } else { tsc.khz },
        incarnation: tsc.incarnation,
        pad: 0,
        elapsed_nsec: call.hv.machine.now(),
    });
    Answer::Changed
}

/// `XEN_DOMCTL_settscinfo`: remembered; the counter stays the machine's.
pub(super) fn set_tsc(domain: &Domain, request: &DomctlTscInfo) -> Answer {
    domain.settings.lock().tsc = TscSettings {
        mode: request.tsc_mode,
        incarnation: request.incarnation,
        khz: request.gtsc_khz,
        elapsed_ns: request.elapsed_nsec,
    };
    Answer::Done
}

/// `XEN_DOMCTL_getpageframeinfo3`: what each of these frames is in use as. Where it stops in its middle, its second
/// argument says how many were answered.
pub(super) fn page_frames<M: Machine>(
    call: &mut Call<'_, M>,
    domain: &Domain,
    request: &DomctlGetpageframeinfo3,
    [place, progress, ..]: [u64; 5],
) -> Result<Answer, Refusal> {
    if request.num > MOST_FRAMES {
        let evidence = Evidence::Limit { asked: request.num, limit: MOST_FRAMES };
        return Err(Refusal::errno(Errno::TooBig, rule::PAGE_INFO_COUNT).with(evidence));
    }
    let answered = resumed_at(progress).into();
    for index in answered..request.num {
        if index > answered && index % BATCH == 0 && call.should_stop() {
            return Err(call.again(resume(place, index as u32)));
        }
        let frame: u64 = call.read_element(request.array, index)?;
        call.write_element(request.array, index, &u64::from(kind(call.hv, domain, ClaimedMfn(frame))))?;
    }
    Ok(Answer::Done)
}

/// What a frame is in use as (`XEN_DOMCTL_PFINFO_*`).
fn kind<M: Machine>(hv: &Hypervisor<M>, domain: &Domain, claimed: ClaimedMfn) -> u32 {
    if frames::owner(hv, claimed) != Some(domain.id) {
        return abi::XEN_DOMCTL_PFINFO_XTAB;
    }
    let Some(word) = hv.frames.find(claimed).map(|record| record.type_word()) else {
        return abi::XEN_DOMCTL_PFINFO_XTAB;
    };
    let table = match word.kind() {
        _ if word.count() == 0 => abi::XEN_DOMCTL_PFINFO_NOTAB,
        PageType::L1 => abi::XEN_DOMCTL_PFINFO_L1TAB,
        PageType::L2 => abi::XEN_DOMCTL_PFINFO_L2TAB,
        PageType::L3 => abi::XEN_DOMCTL_PFINFO_L3TAB,
        PageType::L4 => abi::XEN_DOMCTL_PFINFO_L4TAB,
        _ => abi::XEN_DOMCTL_PFINFO_NOTAB,
    };
    table | if word.has(TypeWord::PINNED) { abi::XEN_DOMCTL_PFINFO_LPINTAB } else { 0 }
}

/// `XEN_DOMCTL_set_virq_handler`: a global virtual interrupt goes to dom0, which may be said.
pub(super) fn set_virq_handler(domain: &Domain, request: &DomctlSetVirqHandler) -> Result<Answer, Refusal> {
    if domain.id == DomId::DOM0 && request.virq < pv_abi::xen::NR_VIRQS {
        return Ok(Answer::Done);
    }
    Err(Refusal::errno(Errno::Inval, rule::VIRQ_HANDLER).with(Evidence::Value(request.virq.into())))
}
