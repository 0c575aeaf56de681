//! `vcpu_op`: a domain's vCPUs as it sees them.

use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use pv_abi::arch::VcpuGuestContext;
use pv_abi::errno::Errno;
use pv_abi::sched::SHUTDOWN_POWEROFF;
use pv_abi::vcpu::{
    VCPUOP_DOWN, VCPUOP_GET_PHYSID, VCPUOP_GET_RUNSTATE_INFO, VCPUOP_INITIALISE, VCPUOP_IS_UP,
    VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA, VCPUOP_REGISTER_VCPU_INFO, VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA,
    VCPUOP_SEND_NMI, VCPUOP_SET_PERIODIC_TIMER, VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER,
    VCPUOP_STOP_SINGLESHOT_TIMER, VCPUOP_UP, VcpuGetPhysid, VcpuRegisterRunstateMemoryArea, VcpuRegisterTimeMemoryArea,
    VcpuRegisterVcpuInfo, VcpuRunstateInfo, VcpuSetPeriodicTimer, VcpuSetSingleshotTimer,
};
use pv_abi::xen::{VcpuInfo, VcpuTimeInfo};
use pv_abi::{Mfn, VcpuId};

use super::{kick_for_nmi, runstate, shutdown, wait};
use crate::call::Call;
use crate::domain::{Vcpu, stopped, work};
use crate::frames::{self, ClaimedMfn, PageType};
use crate::hardware::{CpuId, Machine};
use crate::refusal::{Evidence, Refusal};
use crate::rules::sched as rule;
use crate::{Hypervisor, domain, evtchn, hvm, rules, time};

/// The shortest period of a periodic timer.
const SHORTEST_PERIOD_NS: u64 = 1_000_000;
/// The longest (Xen: `STIME_DELTA_MAX`).
const LONGEST_PERIOD_NS: u64 = 1 << 61;

/// `vcpu_op(cmd, vcpu, arg)`.
///
/// # Errors
/// `ENOENT` where there is no such vCPU; those of the operation; `ENOSYS` for one that does not exist.
pub fn vcpu_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let [operation, id, argument, ..] = args;
    let id = id as u32;
    let own = call.vcpu().id.0 == id;
    if operation as u32 == VCPUOP_IS_UP {
        return Ok(is_up(call, id));
    }
    let vcpu = match own {
        true => call.running.vcpu.clone(),
        false => call.domain().vcpu(VcpuId(id)).ok_or_else(|| no_such_vcpu(id))?.clone(),
    };
    match operation as u32 {
        VCPUOP_SET_SINGLESHOT_TIMER => {
            own_timer(own, id)?;
            let request: VcpuSetSingleshotTimer = call.read(argument)?;
            time::set_single(call.hv, &vcpu, Some(request.timeout_abs_ns));
            Ok(0)
        }
        VCPUOP_STOP_SINGLESHOT_TIMER => {
            own_timer(own, id)?;
            time::set_single(call.hv, &vcpu, None);
            Ok(0)
        }
        VCPUOP_SET_PERIODIC_TIMER => set_periodic(call, &vcpu, argument),
        VCPUOP_STOP_PERIODIC_TIMER => {
            time::set_periodic(call.hv, &vcpu, 0);
            Ok(0)
        }
        VCPUOP_INITIALISE => initialise(call, &vcpu, argument),
        VCPUOP_UP => {
            if !vcpu.initialised.load(Ordering::Acquire) {
                return Err(Refusal::errno(Errno::Inval, rule::NOT_INITIALISED).with(Evidence::Value(id.into())));
            }
            wait::bring_up(call.hv, &vcpu);
            Ok(0)
        }
        VCPUOP_DOWN => {
            down(call.hv, &vcpu);
            Ok(0)
        }
        VCPUOP_GET_RUNSTATE_INFO => call.write(argument, &runstate(call.hv, &vcpu)).map(|()| 0),
        VCPUOP_REGISTER_RUNSTATE_MEMORY_AREA => register_runstate_area(call, &vcpu, argument),
        VCPUOP_REGISTER_VCPU_TIME_MEMORY_AREA => register_time_area(call, &vcpu, argument),
        VCPUOP_REGISTER_VCPU_INFO => {
            let request: VcpuRegisterVcpuInfo = call.read(argument)?;
            register_vcpu_info(call.hv, &vcpu, own, request.mfn, request.offset).map(|()| 0)
        }
        VCPUOP_SEND_NMI => send_nmi(call.hv, &vcpu, argument),
        VCPUOP_GET_PHYSID => physical_id(call, &vcpu, argument),
        _ => Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION).with(Evidence::Value(operation))),
    }
}

/// Whether a vCPU is up. That there is none is an answer here and no refusal that needs a word in the log: kernels ask
/// for all numbers there could be (Linux: 8,192) to learn how many vCPUs they have.
fn is_up<M: Machine>(call: &Call<'_, M>, id: u32) -> u64 {
    match call.domain().vcpu(VcpuId(id)) {
        Some(vcpu) => (vcpu.stopped.load(Ordering::Acquire) & stopped::DOWN == 0).into(),
        None => Errno::NoEnt.as_return().cast_unsigned(),
    }
}

#[cold]
fn no_such_vcpu(id: u32) -> Refusal {
    Refusal::errno(Errno::NoEnt, rule::NO_SUCH_VCPU).with(Evidence::Value(id.into()))
}

fn own_timer(own: bool, id: u32) -> Result<(), Refusal> {
    if own {
        return Ok(());
    }
    Err(Refusal::errno(Errno::Inval, rule::OWN_TIMER_ONLY).with(Evidence::Value(id.into())))
}

fn set_periodic<M: Machine>(call: &Call<'_, M>, vcpu: &Arc<Vcpu>, argument: u64) -> Result<u64, Refusal> {
    let request: VcpuSetPeriodicTimer = call.read(argument)?;
    if !(SHORTEST_PERIOD_NS..=LONGEST_PERIOD_NS).contains(&request.period_ns) {
        let evidence = Evidence::Value(request.period_ns);
        return Err(Refusal::errno(Errno::Inval, rule::PERIOD_RANGE).with(evidence));
    }
    time::set_periodic(call.hv, vcpu, request.period_ns);
    Ok(0)
}

/// Gives a vCPU its first context.
fn initialise<M: Machine>(call: &mut Call<'_, M>, vcpu: &Arc<Vcpu>, argument: u64) -> Result<u64, Refusal> {
    let mut context = alloc::boxed::Box::new(VcpuGuestContext::default());
    call.read_bytes(argument, zerocopy::IntoBytes::as_mut_bytes(&mut *context))?;
    if vcpu.initialised.load(Ordering::Acquire) {
        return Err(Refusal::errno(Errno::Exist, rule::INITIALISED_TWICE).with(Evidence::Value(vcpu.id.0.into())));
    }
    domain::context::apply(call.hv, vcpu, &context)?;
    Ok(0)
}

/// Takes a vCPU down. When the last one of a domain goes down, the domain powers off.
pub(crate) fn down<M: Machine>(hv: &Hypervisor<M>, vcpu: &Arc<Vcpu>) {
    let is_up = |other: &Arc<Vcpu>| other.stopped.load(Ordering::Acquire) & stopped::DOWN == 0;
    let others = vcpu.domain.vcpus.get().into_iter().flatten().filter(|other| !Arc::ptr_eq(other, vcpu));
    if others.clone().any(is_up) {
        wait::take_down(hv, vcpu);
    } else {
        shutdown(hv, &vcpu.domain, SHUTDOWN_POWEROFF);
    }
}

/// Whether an area of `len` bytes lies in the guest's part of the address space.
fn in_guest_space(address: u64, len: usize) -> bool {
    const HOLE: core::ops::Range<u64> = 0x0000_8000_0000_0000..0xffff_8800_0000_0000;
    address.checked_add(len as u64).is_some_and(|end| end <= HOLE.start || address >= HOLE.end)
}

fn checked_area(address: u64, len: usize) -> Result<u64, Refusal> {
    if in_guest_space(address, len) {
        return Ok(address);
    }
    Err(Refusal::errno(Errno::Fault, rule::AREA_ADDRESS).with(Evidence::Value(address)))
}

fn register_runstate_area<M: Machine>(call: &Call<'_, M>, vcpu: &Vcpu, argument: u64) -> Result<u64, Refusal> {
    let request: VcpuRegisterRunstateMemoryArea = call.read(argument)?;
    let area = checked_area(request.addr, size_of::<VcpuRunstateInfo>())?;
    vcpu.runstate.lock().area = area;
    let _ = call.write(area, &runstate(call.hv, vcpu));
    Ok(0)
}

fn register_time_area<M: Machine>(call: &Call<'_, M>, vcpu: &Vcpu, argument: u64) -> Result<u64, Refusal> {
    let request: VcpuRegisterTimeMemoryArea = call.read(argument)?;
    vcpu.runstate.lock().time_area = checked_area(request.addr, size_of::<VcpuTimeInfo>())?;
    time::clock::publish_again(vcpu);
    vcpu.raise(work::TIME);
    Ok(0)
}

/// Moves a vCPU's `vcpu_info` to a frame of its domain, with all that is in it; every port counts as pending afterwards.
///
/// # Errors
/// `ENXIO` for an offset that is no multiple of 8 or leads out of the frame; `EINVAL` where it was moved before, the vCPU
/// is another that is up, or the frame is not the domain's to write.
pub fn register_vcpu_info<M: Machine>(
    hv: &Hypervisor<M>,
    vcpu: &Vcpu,
    own: bool,
    mfn: u64,
    offset: u32,
) -> Result<(), Refusal> {
    let offset = offset as usize;
    if offset > 4096 - size_of::<VcpuInfo>() || !offset.is_multiple_of(8) {
        return Err(Refusal::errno(Errno::Nxio, rule::INFO_OFFSET).with(Evidence::Value(offset as u64)));
    }
    let (old, old_offset) = vcpu.info_place();
    if old != vcpu.domain.shared_info {
        return Err(Refusal::errno(Errno::Inval, rule::INFO_ONCE).with(frames::evidence(hv, ClaimedMfn(old.0))));
    }
    if !own && vcpu.stopped.load(Ordering::Acquire) & stopped::DOWN == 0 {
        return Err(Refusal::errno(Errno::Inval, rule::INFO_RUNNING).with(Evidence::Value(vcpu.id.0.into())));
    }
    let claimed = hvm::named(hv, &vcpu.domain, mfn);
    let new = frames::get_typed(hv, claimed, vcpu.domain.id, PageType::Writable)
        .map_err(|refusal| Refusal::errno(Errno::Inval, rule::INFO_FRAME).with(refusal.evidence))?;
    if vcpu.info.load(Ordering::Acquire) != 0 {
        hv.machine.copy_bytes(new, offset, old, old_offset, size_of::<VcpuInfo>());
    }
    publish_info(hv, vcpu, new, offset);
    Ok(())
}

fn publish_info<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, frame: Mfn, offset: usize) {
    // The copied time page ends with an even version; the next one goes on from what the vCPU's own record says.
    let version = offset + offset_of!(VcpuInfo, time);
    hv.machine.write_bytes(frame, version, &[0; 4]);
    vcpu.info.store(frame.0 << 12 | offset as u64, Ordering::Release);
    vcpu.raise(work::TIME);
    time::write_time_page(hv, vcpu);
    evtchn::select_everything(hv, vcpu);
}

fn send_nmi<M: Machine>(hv: &Hypervisor<M>, vcpu: &Vcpu, argument: u64) -> Result<u64, Refusal> {
    if argument != 0 {
        return Err(Refusal::errno(Errno::Inval, rule::NMI_ARGUMENT).with(Evidence::Value(argument)));
    }
    kick_for_nmi(hv, vcpu);
    Ok(0)
}

/// `VCPUOP_get_physid`: of a vCPU of dom0 that is pinned the numbers of the CPU that has the vCPU's number, wherever it is.
fn physical_id<M: Machine>(call: &Call<'_, M>, vcpu: &Vcpu, argument: u64) -> Result<u64, Refusal> {
    if vcpu.schedule.pinned_to().is_none() || !call.domain().privileged {
        return Err(Refusal::errno(Errno::Inval, rule::NOT_PINNED).with(Evidence::Value(vcpu.id.0.into())));
    }
    let [apic, acpi] = call.hv.machine.firmware_ids(CpuId(vcpu.id.0)).map(u64::from);
    let phys_id = apic | acpi << 32;
    call.write(argument, &VcpuGetPhysid { phys_id }).map(|()| 0)
}
