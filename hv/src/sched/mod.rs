//! Who runs, until when.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::rules;
use crate::Hypervisor;
use crate::domain::{Running, Vcpu};
use crate::registers::Registers;

/// `sched_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn sched_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `sched_op_compat`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn sched_op_compat<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `set_timer_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn set_timer_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `vcpu_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn vcpu_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// Run queues.
#[derive(Debug, Default)]
pub struct Scheduler;

/// A vCPU's place in its run queue.
#[derive(Debug, Default)]
pub struct VcpuSchedule;

/// Whether another vCPU than this one should run now.
#[must_use]
pub fn should_switch<M: Machine>(_hv: &Hypervisor<M>, _current: &Vcpu) -> bool {
    false
}

/// Chooses who runs, switches to it (waiting in the machine while nobody can), and leaves its registers in `registers`,
/// ready to go on: what is due was delivered.
///
/// `slot` holds the vCPU that ran until now, if any (its registers in `registers`), and afterwards the chosen one.
pub fn switch<M: Machine>(_hv: &Hypervisor<M>, _slot: &mut Option<Running>, _registers: &mut Registers) {}
