//! Exceptions to the guest, emulated instructions, CPUID, descriptors.

use pv_abi::errno::Errno;

use crate::call::Call;
use crate::hardware::Machine;
use crate::refusal::Refusal;
use crate::rules;
use crate::Hypervisor;
use crate::domain::Running;
use crate::entry::Exception;
use crate::registers::Registers;

/// The system-call instructions whose way in is not a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemCall {
    /// `syscall` from 64-bit guest-user mode.
    Syscall64,
    /// `syscall` from 32-bit guest-user mode.
    Syscall32,
    /// `sysenter`.
    Sysenter,
}

/// `set_trap_table`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn set_trap_table<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `set_gdt`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn set_gdt<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `stack_switch`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn stack_switch<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `set_callbacks`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn set_callbacks<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `fpu_taskswitch`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn fpu_taskswitch<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `set_debugreg`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn set_debugreg<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `get_debugreg`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn get_debugreg<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `update_descriptor`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn update_descriptor<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `vm_assist`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn vm_assist<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `iret`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn iret<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `set_segment_base`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn set_segment_base<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `nmi_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn nmi_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// `callback_op`.
///
/// # Errors
/// `ENOSYS` for an operation that is not implemented.
pub fn callback_op<M: Machine>(_call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    Err(Refusal::errno(Errno::NoSys, rules::core::UNKNOWN_OPERATION))
}
/// Enters the guest kernel for a system call of its user.
pub fn enter_system_call<M: Machine>(_hv: &Hypervisor<M>, _running: &mut Running, _registers: &mut Registers, _how: SystemCall) {}

/// Handles an exception in the guest: emulates, fixes, delivers, or crashes the domain.
pub fn on_exception<M: Machine>(_hv: &Hypervisor<M>, _running: &mut Running, _registers: &mut Registers, _exception: Exception) {}

/// Delivers a non-maskable interrupt to the guest.
pub fn deliver_nmi<M: Machine>(_hv: &Hypervisor<M>, _running: &mut Running, _registers: &mut Registers) {}

/// Delivers an event upcall: masks events and enters the event callback.
pub fn deliver_upcall<M: Machine>(_hv: &Hypervisor<M>, _running: &mut Running, _registers: &mut Registers) {}
