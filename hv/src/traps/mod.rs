//! Exceptions to the guest, emulated instructions, CPUID, descriptors.
//!
//! A PV kernel runs in ring 3 beside its user. What the CPU would do for a kernel in ring 0 (enter it on an exception,
//! return from it, run its privileged instructions, keep its descriptor tables) is done here, by the tables it
//! registered. Nothing a guest does here can fault the hypervisor: where it cannot be entered any more it is crashed.

mod bounce;
mod callbacks;
pub(crate) mod cpuid;
pub(crate) mod descriptors;
mod exceptions;
mod iret;
mod msr;
mod page_fault;
pub(crate) mod policy;
mod ports;
pub(crate) mod privileged;
pub(crate) mod processor;
#[cfg(test)]
mod tests;

pub use bounce::enter_failsafe;
pub use callbacks::{callback_op, nmi_op, set_callbacks, set_trap_table, stack_switch};
pub(crate) use callbacks::{gate, is_canonical};
pub use descriptors::{set_gdt, update_descriptor};
pub use exceptions::{
    deliver_nmi, deliver_upcall, enter_system_call, on_exception, on_forced_emulation, on_invalid_opcode,
};
pub use iret::{go_back, iret};
pub use ports::LegacyPorts;
pub use processor::{fpu_taskswitch, get_debugreg, set_debugreg, set_segment_base, vm_assist};

use crate::Hypervisor;
use crate::domain::Running;
use crate::hardware::Machine;
use crate::registers::Registers;
use crate::rules::traps as rule;

/// Exception vectors (AMD APM 2 §8.2).
#[allow(missing_docs, reason = "the architecture's names")]
pub mod vector {
    pub const DEBUG: u8 = 1;
    pub const NMI: u8 = 2;
    pub const INVALID_OPCODE: u8 = 6;
    pub const NO_DEVICE: u8 = 7;
    pub const PROTECTION: u8 = 13;
    pub const PAGE_FAULT: u8 = 14;
}

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

/// Hands an exception to the guest's handler; without one, the domain is crashed.
#[inline(never)]
pub fn inject<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    vector: u8,
    error_code: Option<u32>,
) {
    inject_at_once(hv, running, registers, vector, error_code);
}

/// As [`inject`], without a call, for the exceptions that guests raise most often.
#[inline(always)]
fn inject_at_once<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    vector: u8,
    error_code: Option<u32>,
) {
    let gate = running.state.traps[usize::from(vector)];
    let masks_events = gate.flags & callbacks::GATE_MASKS_EVENTS != 0;
    let entry = bounce::Entry { address: gate.address, masks_events, error_code };
    bounce::enter(hv, running, registers, entry, rule::NO_HANDLER);
}
