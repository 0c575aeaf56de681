//! `hvm_op`: the parameters of a domain with hardware assistance.
//!
//! Xen: public/hvm/hvm_op.h, public/hvm/params.h.

use alloc::sync::Arc;

use core::sync::atomic::Ordering;

use pv_abi::errno::Errno;
use pv_abi::hvm::{
    HVM_NR_PARAMS, HVM_PARAM_ACPI_IOPORTS_LOCATION, HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CALLBACK_TYPE_VECTOR,
    HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN,
    HVM_PARAM_VM_GENERATION_ID_ADDR, HVM_PARAM_VM86_TSS, HVM_PARAM_VM86_TSS_SIZED, HVM_PARAM_X87_FIP_WIDTH,
    HVMOP_GET_PARAM, HVMOP_GET_TIME, HVMOP_SET_EVTCHN_UPCALL_VECTOR, HVMOP_SET_PARAM, HvmEvtchnUpcallVector,
    HvmGetTime, HvmParam,
};
use pv_abi::{DomId, VcpuId};

use super::{HvmDomain, platform};
use crate::call::Call;
use crate::domain::Domain;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{self, core as core_rules, hvm as rule};

/// The lowest vector that an interrupt can have.
const FIRST_VECTOR: u64 = 16;

/// `hvm_op(command, argument*)`.
///
/// # Errors
/// `EFAULT`, `ESRCH`, `EPERM`; `EINVAL` for a domain of another kind, a parameter that there is not or a value that it
/// cannot have; `ENOSYS` for an unknown command.
pub fn hvm_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [command, argument, ..] = args;
    match command as u32 {
        HVMOP_SET_PARAM => {
            let request: HvmParam = call.read(argument)?;
            let domain = call.target(DomId(request.domid))?;
            set(call, &domain, &request).map(|()| 0)
        }
        HVMOP_GET_PARAM => {
            let mut request: HvmParam = call.read(argument)?;
            let domain = call.target(DomId(request.domid))?;
            request.value = get(call, &domain, request.index)?;
            call.write(argument, &request).map(|()| 0)
        }
        HVMOP_SET_EVTCHN_UPCALL_VECTOR => {
            let request: HvmEvtchnUpcallVector = call.read(argument)?;
            set_upcall_vector(call, &request)
        }
        HVMOP_GET_TIME if call.domain().hvm.is_some() => {
            call.write(argument, &HvmGetTime { now: call.hv.machine.now() }).map(|()| 0)
        }
        other => Err(Refusal::errno(Errno::NoSys, core_rules::UNKNOWN_OPERATION).with(Evidence::Value(other.into()))),
    }
}

/// The place of a parameter.
fn checked(domain: &Domain, index: u32) -> Result<(&HvmDomain, usize), Refusal> {
    let hvm = domain
        .hvm
        .as_ref()
        .ok_or_else(|| Refusal::errno(Errno::Inval, rule::NOT_HVM).with(Evidence::Value(domain.id.0.into())))?;
    if index >= HVM_NR_PARAMS {
        return Err(Refusal::errno(Errno::Inval, rule::PARAM).with(Evidence::Value(index.into())));
    }
    Ok((hvm, index as usize))
}

#[cold]
fn not_yours(index: u32) -> Refusal {
    Refusal::errno(Errno::Perm, rule::PARAM_NOT_YOURS).with(Evidence::Value(index.into()))
}

/// What a guest itself may set.
const fn is_guests(index: u32) -> bool {
    matches!(
        index,
        HVM_PARAM_CALLBACK_IRQ
            | HVM_PARAM_STORE_EVTCHN
            | HVM_PARAM_CONSOLE_EVTCHN
            | HVM_PARAM_VM86_TSS
            | HVM_PARAM_VM86_TSS_SIZED
            | HVM_PARAM_VM_GENERATION_ID_ADDR
            | HVM_PARAM_X87_FIP_WIDTH
    )
}

fn set<M: Machine>(call: &Call<'_, M>, domain: &Arc<Domain>, request: &HvmParam) -> Result<(), Refusal> {
    let (hvm, index) = checked(domain, request.index)?;
    if domain.id == call.domain().id && !is_guests(request.index) {
        return Err(not_yours(request.index));
    }
    if request.index == HVM_PARAM_CALLBACK_IRQ {
        set_callback(hvm, request.value)?;
    }
    if request.index == HVM_PARAM_ACPI_IOPORTS_LOCATION {
        let known = platform::with(call.hv, domain, |chipset, _, _| chipset.set_pm_version(request.value));
        if known == Some(false) {
            return Err(Refusal::errno(Errno::Inval, rule::PARAM).with(Evidence::Value(request.value)));
        }
    }
    hvm.params.lock()[index] = request.value;
    Ok(())
}

/// Chooses how upcalls come. Interrupt lines may be chosen and are none: upcalls come by the vCPUs' own vectors then, if
/// at all.
fn set_callback(hvm: &HvmDomain, value: u64) -> Result<(), Refusal> {
    let (kind, by_vector) = (value >> 56, value >> 56 == HVM_PARAM_CALLBACK_TYPE_VECTOR);
    if kind > HVM_PARAM_CALLBACK_TYPE_VECTOR || by_vector && value & 0xff < FIRST_VECTOR {
        return Err(Refusal::errno(Errno::Inval, rule::CALLBACK).with(Evidence::Value(value)));
    }
    hvm.callback.store(if by_vector { value as u8 } else { 0 }, Ordering::Relaxed);
    Ok(())
}

/// `HVMOP_set_evtchn_upcall_vector`: upcalls of a vCPU come by this vector, through its local APIC.
fn set_upcall_vector<M: Machine>(call: &Call<'_, M>, request: &HvmEvtchnUpcallVector) -> Result<u64, Refusal> {
    if call.domain().hvm.is_none() {
        return Err(Refusal::errno(Errno::Inval, rule::NOT_HVM).with(Evidence::Value(call.domain().id.0.into())));
    }
    if u64::from(request.vector) < FIRST_VECTOR {
        return Err(Refusal::errno(Errno::Inval, rule::CALLBACK).with(Evidence::Value(request.vector.into())));
    }
    let missing =
        || Refusal::errno(Errno::NoEnt, rules::sched::NO_SUCH_VCPU).with(Evidence::Value(request.vcpu.into()));
    let vcpu = call.domain().vcpu(VcpuId(request.vcpu)).ok_or_else(missing)?;
    if let Some(inbox) = vcpu.inbox.as_deref() {
        inbox.upcall.store(request.vector, Ordering::Relaxed);
    }
    Ok(0)
}

fn get<M: Machine>(call: &Call<'_, M>, domain: &Arc<Domain>, index: u32) -> Result<u64, Refusal> {
    let (hvm, place) = checked(domain, index)?;
    let may_see = is_guests(index) || matches!(index, HVM_PARAM_STORE_PFN | HVM_PARAM_CONSOLE_PFN);
    if domain.id == call.domain().id && !may_see {
        return Err(not_yours(index));
    }
    Ok(hvm.params.lock()[place])
}
