//! One vCPU of a domain, as a toolstack reads and sets it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::VcpuId;
use pv_abi::arch::VcpuGuestContext;
use pv_abi::domctl::{
    Domctl, DomctlExtVcpucontext, DomctlGetvcpuinfo, DomctlSendtrigger, DomctlVcpuMsr, DomctlVcpuMsrs,
    DomctlVcpuaffinity, DomctlVcpucontext, DomctlVcpuextstate, XEN_DOMCTL_SENDTRIGGER_NMI,
    XEN_DOMCTL_SENDTRIGGER_POWER, XEN_DOMCTL_SENDTRIGGER_SLEEP, XEN_VCPUAFFINITY_HARD, XEN_VCPUAFFINITY_SOFT,
};
use pv_abi::errno::Errno;
use zerocopy::{FromZeros, IntoBytes};

use super::{Answer, info, lifecycle, read_bits, write_bits};
use crate::call::Call;
use crate::domain::{Callback, Domain, FPU_AREA_BYTES, Vcpu, VcpuState, context, stopped};
use crate::hardware::{CpuSet, Machine};
use crate::refusal::{Evidence, Refusal};
use crate::rules::control as rule;
use crate::sched;
use crate::time;
use crate::traps::{cpuid, is_canonical, privileged};

/// Bytes before the XSAVE area: XCR0, and all components that were ever on.
const STATE_HEADER: usize = 16;
/// The fields of an extended context that must be there.
const EXTENDED_SIZE: usize = core::mem::offset_of!(DomctlExtVcpucontext, mcg_cap);

fn find(domain: &Domain, id: u32) -> Result<&Arc<Vcpu>, Refusal> {
    find_or(domain, id, Errno::Inval)
}

fn find_or(domain: &Domain, id: u32, errno: Errno) -> Result<&Arc<Vcpu>, Refusal> {
    domain.vcpu(VcpuId(id)).ok_or_else(|| Refusal::errno(errno, rule::NO_SUCH_VCPU).with(Evidence::Value(id.into())))
}

#[cold]
fn runs(vcpu: &Vcpu) -> Refusal {
    Refusal::errno(Errno::Busy, rule::VCPU_RUNS).with(Evidence::Value(vcpu.id.0.into()))
}

/// Passes a vCPU that is not the caller, whose registers change as it goes on.
fn not_caller<M: Machine>(call: &Call<'_, M>, vcpu: &Arc<Vcpu>, errno: Errno) -> Result<(), Refusal> {
    if Arc::ptr_eq(vcpu, &call.running.vcpu) {
        return Err(Refusal::errno(errno, rule::VCPU_RUNS).with(Evidence::Value(vcpu.id.0.into())));
    }
    Ok(())
}

/// Does something while a vCPU of another domain does not run.
fn while_stopped<M: Machine, T>(call: &Call<'_, M>, vcpu: &Vcpu, act: impl FnOnce() -> T) -> T {
    if vcpu.domain.id == call.domain().id {
        return act();
    }
    sched::pause(call.hv, &vcpu.domain);
    sched::wait_until_stopped(call.hv, vcpu);
    let result = act();
    sched::unpause(call.hv, &vcpu.domain);
    result
}

/// Does something with the state of a vCPU that does not run meanwhile.
fn with_state<M: Machine, T>(
    call: &Call<'_, M>,
    vcpu: &Vcpu,
    act: impl FnOnce(&mut VcpuState) -> T,
) -> Result<T, Refusal> {
    while_stopped(call, vcpu, || vcpu.state.lock().as_deref_mut().map(act).ok_or_else(|| runs(vcpu)))
}

/// `XEN_DOMCTL_setvcpucontext`: a null context takes the vCPU down.
pub(super) fn set_context<M: Machine>(
    call: &mut Call<'_, M>,
    domain: &Domain,
    request: &DomctlVcpucontext,
) -> Result<Answer, Refusal> {
    lifecycle::not_own(call, domain)?;
    let vcpu = find(domain, request.vcpu)?;
    if request.ctxt == 0 {
        vcpu.stopped.fetch_or(stopped::DOWN, Ordering::AcqRel);
        return Ok(Answer::Done);
    }
    let mut new = Box::new(VcpuGuestContext::new_zeroed());
    call.read_bytes(request.ctxt, new.as_mut_bytes())?;
    while_stopped(call, vcpu, || context::apply(call.hv, vcpu, &new))?;
    if request.vcpu == 0 {
        // A toolstack writes the shared page before it gives the first vCPU its context; the wall clock lies in there.
        time::update_wallclock(call.hv, domain);
    }
    sched::wake(call.hv, vcpu);
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_getvcpucontext`.
pub(super) fn get_context<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlVcpucontext,
) -> Result<Answer, Refusal> {
    lifecycle::not_own(call, domain)?;
    let vcpu = find(domain, request.vcpu)?;
    if !vcpu.initialised.load(Ordering::Acquire) {
        return Err(Refusal::errno(Errno::NoData, rule::VCPU_WITHOUT_CONTEXT));
    }
    let now = while_stopped(call, vcpu, || context::describe(vcpu))?;
    call.write(request.ctxt, &*now)?;
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_getvcpuinfo`.
pub(super) fn get_info<M: Machine>(call: &Call<'_, M>, domain: &Domain, frame: &mut Domctl) -> Result<Answer, Refusal> {
    let request: DomctlGetvcpuinfo = frame.payload();
    let vcpu = find(domain, request.vcpu)?;
    let why = vcpu.stopped.load(Ordering::Acquire);
    frame.set_payload(&DomctlGetvcpuinfo {
        online: (why & stopped::DOWN == 0).into(),
        blocked: (why & (stopped::BLOCKED | stopped::POLLING | stopped::ASKING) != 0).into(),
        running: info::is_running(vcpu).into(),
        cpu_time: sched::cpu_time(call.hv, vcpu),
        cpu: vcpu.cpu.load(Ordering::Relaxed),
        ..request
    });
    Ok(Answer::Changed)
}

/// The CPUs that there are, a bit each.
fn cpus<M: Machine>(call: &Call<'_, M>) -> u64 {
    CpuSet::first(call.hv.machine.cpu_count()).0
}

/// `XEN_DOMCTL_setvcpuaffinity`: what of it there is, is written back.
pub(super) fn set_affinity<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlVcpuaffinity,
) -> Result<Answer, Refusal> {
    let vcpu = find(domain, request.vcpu)?;
    let (CpuSet(mut hard), CpuSet(mut soft)) = sched::affinity(vcpu);
    let usable = cpus(call);
    let (wants_hard, wants_soft) =
        (request.flags & XEN_VCPUAFFINITY_HARD != 0, request.flags & XEN_VCPUAFFINITY_SOFT != 0);
    if wants_hard {
        hard = read_bits(call, &request.cpumap_hard)?;
    }
    if wants_soft {
        soft = read_bits(call, &request.cpumap_soft)?;
    }
    if !wants_hard && !wants_soft || hard & usable == 0 {
        return Err(Refusal::errno(Errno::Inval, rule::AFFINITY).with(Evidence::Value(hard)));
    }
    sched::set_affinity(call.hv, vcpu, CpuSet(hard), CpuSet(soft));
    if wants_hard {
        write_bits(call, &request.cpumap_hard, hard & usable)?;
    }
    if wants_soft {
        write_bits(call, &request.cpumap_soft, soft & hard & usable)?;
    }
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_getvcpuaffinity`.
pub(super) fn get_affinity<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlVcpuaffinity,
) -> Result<Answer, Refusal> {
    let (CpuSet(hard), CpuSet(soft)) = sched::affinity(find(domain, request.vcpu)?);
    if request.flags & XEN_VCPUAFFINITY_HARD != 0 {
        write_bits(call, &request.cpumap_hard, hard)?;
    }
    if request.flags & XEN_VCPUAFFINITY_SOFT != 0 {
        write_bits(call, &request.cpumap_soft, soft)?;
    }
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_sendtrigger`.
pub(super) fn send_trigger<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlSendtrigger,
) -> Result<Answer, Refusal> {
    let vcpu = find_or(domain, request.vcpu, Errno::Srch)?;
    if request.trigger != XEN_DOMCTL_SENDTRIGGER_NMI {
        let of_hvm = matches!(request.trigger, XEN_DOMCTL_SENDTRIGGER_POWER | XEN_DOMCTL_SENDTRIGGER_SLEEP);
        let errno = if of_hvm { Errno::Inval } else { Errno::NoSys };
        return Err(Refusal::errno(errno, rule::TRIGGER).with(Evidence::Value(request.trigger.into())));
    }
    sched::kick_for_nmi(call.hv, vcpu);
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_set_ext_vcpucontext`: the callbacks of 32-bit system calls.
pub(super) fn set_extended<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlExtVcpucontext,
) -> Result<Answer, Refusal> {
    let vcpu = find_or(domain, request.vcpu, Errno::Srch)?;
    not_caller(call, vcpu, Errno::Srch)?;
    let canonical = is_canonical(request.syscall32_callback_eip) && is_canonical(request.sysenter_callback_eip);
    if (request.size as usize) < EXTENDED_SIZE || !canonical {
        let evidence = Evidence::Value(request.size.into());
        return Err(Refusal::errno(Errno::Inval, rule::EXTENDED_CONTEXT).with(evidence));
    }
    with_state(call, vcpu, |state| {
        let callbacks = &mut state.callbacks;
        callbacks.syscall32 =
            Callback { address: request.syscall32_callback_eip, masks_events: request.syscall32_disables_events != 0 };
        callbacks.sysenter =
            Callback { address: request.sysenter_callback_eip, masks_events: request.sysenter_disables_events != 0 };
    })?;
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_get_ext_vcpucontext`.
pub(super) fn get_extended<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    frame: &mut Domctl,
) -> Result<Answer, Refusal> {
    let request: DomctlExtVcpucontext = frame.payload();
    let vcpu = find_or(domain, request.vcpu, Errno::Srch)?;
    not_caller(call, vcpu, Errno::Srch)?;
    let callbacks = with_state(call, vcpu, |state| state.callbacks)?;
    frame.set_payload(&DomctlExtVcpucontext {
        vcpu: request.vcpu,
        size: size_of::<DomctlExtVcpucontext>() as u32,
        syscall32_callback_eip: callbacks.syscall32.address,
        sysenter_callback_eip: callbacks.sysenter.address,
        syscall32_disables_events: callbacks.syscall32.masks_events.into(),
        sysenter_disables_events: callbacks.sysenter.masks_events.into(),
        ..DomctlExtVcpucontext::default()
    });
    Ok(Answer::Changed)
}

/// Bytes of a vCPU's extended state with these components on.
fn state_size<M: Machine>(call: &Call<'_, M>, components: u64) -> usize {
    STATE_HEADER + call.hv.machine.fpu_state_size(components).min(FPU_AREA_BYTES)
}

fn has_xsave<M: Machine>(call: &Call<'_, M>) -> bool {
    call.hv.machine.cpuid(1, 0).ecx & cpuid::XSAVE != 0
}

/// `XEN_DOMCTL_getvcpuextstate`: a size of 0 asks for the size.
pub(super) fn get_state<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    frame: &mut Domctl,
) -> Result<Answer, Refusal> {
    let mut request: DomctlVcpuextstate = frame.payload();
    let vcpu = find(domain, request.vcpu)?;
    not_caller(call, vcpu, Errno::Inval)?;
    let (xcr0, fpu) = with_state(call, vcpu, |state| (state.xcr0, state.fpu.clone()))?;
    let size = if has_xsave(call) { state_size(call, xcr0) } else { 0 };
    if request.size == 0 {
        request.size = size as u64;
        request.xfeature_mask = cpuid::xcr0_mask(&call.hv.machine);
        frame.set_payload(&request);
        return Ok(Answer::Changed);
    }
    if request.size != size as u64 {
        return Err(bad_state(request.size, size));
    }
    call.write_element(request.buffer, 0, &xcr0)?;
    call.write_element(request.buffer, 1, &xcr0)?;
    call.write(request.buffer + STATE_HEADER as u64, &fpu.0[..size - STATE_HEADER])?;
    frame.set_payload(&request);
    Ok(Answer::Changed)
}

#[cold]
fn bad_state(asked: u64, size: usize) -> Refusal {
    Refusal::errno(Errno::Inval, rule::EXTENDED_STATE).with(Evidence::Limit { asked, limit: size as u64 })
}

/// `XEN_DOMCTL_setvcpuextstate`.
pub(super) fn set_state<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlVcpuextstate,
) -> Result<Answer, Refusal> {
    const COMPONENTS: core::ops::Range<usize> = 512..520;
    let vcpu = find(domain, request.vcpu)?;
    not_caller(call, vcpu, Errno::Inval)?;
    let mask = cpuid::xcr0_mask(&call.hv.machine);
    let most = state_size(call, mask);
    if request.size == 0 && !has_xsave(call) {
        return Ok(Answer::Done);
    }
    if request.size < STATE_HEADER as u64 || request.size > most as u64 {
        return Err(bad_state(request.size, most));
    }
    let xcr0: u64 = call.read_element(request.buffer, 0)?;
    if !privileged::valid_xcr0(xcr0, mask) {
        return Err(bad_state(xcr0, most));
    }
    let len = request.size as usize - STATE_HEADER;
    if len == 0 {
        return Ok(Answer::Done);
    }
    let mut area = with_state(call, vcpu, |state| state.fpu.clone())?;
    call.read_bytes(request.buffer + STATE_HEADER as u64, &mut area.0[..len])?;
    let mut word = [0; 8];
    word.copy_from_slice(&area.0[COMPONENTS]);
    let components = u64::from_le_bytes(word);
    let header_is_clean = area.0[520..576].iter().all(|byte| *byte == 0);
    if len < 576 || components & !xcr0 != 0 || !header_is_clean || area.0[26..28] != [0, 0] {
        return Err(bad_state(components, most));
    }
    with_state(call, vcpu, |state| {
        state.xcr0 = xcr0;
        state.fpu = area;
    })?;
    Ok(Answer::Done)
}

/// `XEN_DOMCTL_get_vcpu_msrs`: PV guests have none that must be carried over.
pub(super) fn get_msrs<M: Machine>(call: &Call<'_, M>, domain: &Domain, frame: &mut Domctl) -> Result<Answer, Refusal> {
    let request: DomctlVcpuMsrs = frame.payload();
    not_caller(call, find(domain, request.vcpu)?, Errno::Inval)?;
    frame.set_payload(&DomctlVcpuMsrs { msr_count: 0, ..request });
    Ok(Answer::Changed)
}

/// `XEN_DOMCTL_set_vcpu_msrs`: registers that another hypervisor carried over are accepted where they are zero.
pub(super) fn set_msrs<M: Machine>(
    call: &Call<'_, M>,
    domain: &Domain,
    request: &DomctlVcpuMsrs,
) -> Result<Answer, Refusal> {
    not_caller(call, find(domain, request.vcpu)?, Errno::Inval)?;
    let bad = |value| Refusal::errno(Errno::Inval, rule::VCPU_MSRS).with(Evidence::Value(value));
    if request.msr_count > 64 {
        return Err(bad(request.msr_count.into()));
    }
    for index in 0..u64::from(request.msr_count) {
        let msr: DomctlVcpuMsr = call.read_element(request.msrs, index)?;
        if msr.reserved != 0 || msr.value != 0 {
            return Err(bad(msr.index.into()));
        }
    }
    Ok(Answer::Done)
}
