//! Virtual CPUs.

use super::raw::{address, address_mut, call3};
use crate::arch::VcpuGuestContext;
use crate::errno::Errno;
use crate::vcpu::{
    VCPUOP_GET_RUNSTATE_INFO, VCPUOP_INITIALISE, VCPUOP_IS_UP, VCPUOP_REGISTER_VCPU_INFO, VCPUOP_SET_PERIODIC_TIMER,
    VCPUOP_SET_SINGLESHOT_TIMER, VCPUOP_STOP_PERIODIC_TIMER, VCPUOP_STOP_SINGLESHOT_TIMER, VcpuRegisterVcpuInfo,
    VcpuRunstateInfo, VcpuSetPeriodicTimer, VcpuSetSingleshotTimer,
};
use crate::xen::HYPERVISOR_VCPU_OP;
use crate::{Mfn, VcpuId};

/// Performs a `VCPUOP_*` with the address of its argument, or 0.
///
/// # Errors
/// Those of the operation.
///
/// # Safety
/// The argument is what the command takes, and any memory it registers stays given to the hypervisor.
pub unsafe fn vcpu_op(command: u32, vcpu: VcpuId, argument: u64) -> Result<u64, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { call3(HYPERVISOR_VCPU_OP, command.into(), vcpu.0.into(), argument) }
}

/// Whether a vCPU is up.
///
/// # Errors
/// `NoEnt`: no such vCPU.
pub fn vcpu_is_up(vcpu: VcpuId) -> Result<bool, Errno> {
    // SAFETY: the command has no argument and changes nothing.
    unsafe { vcpu_op(VCPUOP_IS_UP, vcpu, 0) }.map(|up| up != 0)
}

/// What a vCPU has done with its time.
///
/// # Errors
/// `NoEnt`: no such vCPU.
pub fn vcpu_runstate_info(vcpu: VcpuId) -> Result<VcpuRunstateInfo, Errno> {
    let mut out = VcpuRunstateInfo::default();
    // SAFETY: the command fills this struct.
    unsafe { vcpu_op(VCPUOP_GET_RUNSTATE_INFO, vcpu, address_mut(&mut out)) }.map(|_| out)
}

/// Sets the periodic timer of a vCPU, in ns.
///
/// # Errors
/// `Inval`: less than 1 ms.
pub fn vcpu_set_periodic_timer(vcpu: VcpuId, period_ns: u64) -> Result<(), Errno> {
    let argument = VcpuSetPeriodicTimer { period_ns };
    // SAFETY: the command only reads its argument.
    unsafe { vcpu_op(VCPUOP_SET_PERIODIC_TIMER, vcpu, address(&argument)) }.map(drop)
}

/// Stops the periodic timer of a vCPU.
///
/// # Errors
/// `NoEnt`: no such vCPU.
pub fn vcpu_stop_periodic_timer(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: the command has no argument.
    unsafe { vcpu_op(VCPUOP_STOP_PERIODIC_TIMER, vcpu, 0) }.map(drop)
}

/// Sets the single-shot timer of a vCPU, for an absolute system time in ns.
///
/// # Errors
/// `Time`: with `VCPU_SSHOTTMR_FUTURE`, a time in the past. `Inval`: another vCPU than the caller's.
pub fn vcpu_set_singleshot_timer(vcpu: VcpuId, timeout_abs_ns: u64, flags: u32) -> Result<(), Errno> {
    let argument = VcpuSetSingleshotTimer { timeout_abs_ns, flags, _pad0: 0 };
    // SAFETY: the command only reads its argument.
    unsafe { vcpu_op(VCPUOP_SET_SINGLESHOT_TIMER, vcpu, address(&argument)) }.map(drop)
}

/// Stops the single-shot timer of a vCPU.
///
/// # Errors
/// `Inval`: another vCPU than the caller's.
pub fn vcpu_stop_singleshot_timer(vcpu: VcpuId) -> Result<(), Errno> {
    // SAFETY: the command has no argument.
    unsafe { vcpu_op(VCPUOP_STOP_SINGLESHOT_TIMER, vcpu, 0) }.map(drop)
}

/// Moves a vCPU's `vcpu_info` to memory of the guest.
///
/// # Errors
/// `Inval`: it was moved before. `Nxio`: it would cross a page.
///
/// # Safety
/// The memory holds a [`VcpuInfoAtomic`](crate::xen::VcpuInfoAtomic), and nothing uses it as anything else from now on.
pub unsafe fn vcpu_register_vcpu_info(vcpu: VcpuId, frame: Mfn, offset: u32) -> Result<(), Errno> {
    let argument = VcpuRegisterVcpuInfo { mfn: frame.0, offset, rsvd: 0 };
    // SAFETY: the caller gives the memory away.
    unsafe { vcpu_op(VCPUOP_REGISTER_VCPU_INFO, vcpu, address(&argument)) }.map(drop)
}

/// Gives a vCPU its first state.
///
/// # Errors
/// `Exist`: it has one. `Inval`: the state is not allowed.
///
/// # Safety
/// What runs from that state may run.
pub unsafe fn vcpu_initialise(vcpu: VcpuId, context: &VcpuGuestContext) -> Result<(), Errno> {
    // SAFETY: the command only reads its argument; the caller answers for what then runs.
    unsafe { vcpu_op(VCPUOP_INITIALISE, vcpu, address(context)) }.map(drop)
}
