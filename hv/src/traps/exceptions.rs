//! Exceptions of a guest: emulated, fixed, or handed to its kernel.
//!
//! Most go straight to the guest's handler. Four have a meaning of their own here: #UD may be the forced-emulation
//! prefix, #GP a privileged instruction or a software interrupt (all gates of the hypervisor refuse `int n`), #NM the
//! guest's own CR0.TS, #PF a page of the local-descriptor-table window, a write to a page table, or a translation that
//! the CPU had cached too long. Source: abi-needs of Xen 4.17, §3.1 and §3.4; AMD APM 2 §8.2.

use core::sync::atomic::Ordering;

use super::bounce::{Entry, enter};
use super::callbacks::GATE_MASKS_EVENTS;
use super::{SystemCall, cpuid, inject, inject_at_once, page_fault, privileged, vector};
use crate::Hypervisor;
use crate::domain::Running;
use crate::entry::Exception;
use crate::hardware::Machine;
use crate::registers::Registers;
use crate::rules::traps as rule;

/// The error code's bit that says it names a gate.
const ERROR_GATE: u32 = 1 << 1;
/// Length of `int n`.
const INT_BYTES: u64 = 2;
/// Length of `syscall`.
const SYSCALL_BYTES: u64 = 2;

/// Handles an exception in the guest: emulates, fixes, delivers, or crashes the domain.
#[inline(always)]
pub fn on_exception<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    exception: Exception,
) {
    match exception.vector {
        vector::INVALID_OPCODE => {
            if cpuid::may_be_forced(hv, registers) {
                on_forced_emulation(hv, running, registers);
            } else {
                on_invalid_opcode(hv, running, registers);
            }
        }
        vector::PAGE_FAULT => page_fault::on_page_fault(hv, running, registers, exception),
        vector::PROTECTION => on_protection(hv, running, registers, exception.error_code),
        vector::NO_DEVICE => on_no_device(hv, running, registers),
        vector::DEBUG => on_debug(hv, running, registers),
        8 | 10..=12 | 17 | 21 => inject(hv, running, registers, exception.vector, Some(exception.error_code)),
        0..=31 => inject(hv, running, registers, exception.vector, None),
        direct => on_direct_interrupt(hv, running, registers, direct),
    }
}

/// #UD that starts as the forced-emulation prefix does.
#[inline(always)]
pub fn on_forced_emulation<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    if !cpuid::execute_forced(hv, running, registers) {
        inject(hv, running, registers, vector::INVALID_OPCODE, None);
    }
}

/// #UD that does not.
#[inline(always)]
pub fn on_invalid_opcode<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    inject_at_once(hv, running, registers, vector::INVALID_OPCODE, None);
}

/// #GP: `int n` where the error code names a gate, else perhaps a privileged instruction.
#[inline(never)]
fn on_protection<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers, error_code: u32) {
    if error_code & 3 == ERROR_GATE {
        let wanted = software_interrupt(hv, registers, error_code);
        if may_interrupt(running, wanted) {
            registers.rip = registers.rip.wrapping_add(INT_BYTES);
            return inject(hv, running, registers, wanted, None);
        }
        let code = u32::from(wanted) << 3 | ERROR_GATE;
        return inject(hv, running, registers, vector::PROTECTION, Some(code));
    }
    if error_code == 0 && privileged::emulate(hv, running, registers) {
        return;
    }
    inject(hv, running, registers, vector::PROTECTION, Some(error_code));
}

/// The vector of an `int n` that was refused. The instruction says it best: QEMU before 8.0 makes the error code as if
/// a gate had 16 bytes' worth of index.
fn software_interrupt<M: Machine>(hv: &Hypervisor<M>, registers: &Registers, error_code: u32) -> u8 {
    const INT: u8 = 0xcd;
    let mut bytes = [0; 2];
    match hv.machine.copy_from_guest(registers.rip, &mut bytes) {
        Ok(()) if bytes[0] == INT => bytes[1],
        _ => (error_code >> 3) as u8,
    }
}

/// The vector that any code may raise, whatever privilege its gate asks for (Xen: `int80_direct_trap`).
const ANYBODYS: u8 = 0x80;

/// Whether the guest lets itself raise a vector by `int`, at the privilege it has now.
fn may_interrupt(running: &Running, wanted: u8) -> bool {
    let gate = running.state.traps[usize::from(wanted)];
    let lowest = match wanted {
        ANYBODYS => 0,
        _ if running.state.kernel_mode => 1,
        _ => 3,
    };
    gate.address != 0 && gate.flags & 3 >= lowest
}

/// An interrupt with a gate of its own (`int 0x80`): the instruction is already past.
fn on_direct_interrupt<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers, wanted: u8) {
    if may_interrupt(running, wanted) {
        return inject(hv, running, registers, wanted, None);
    }
    registers.rip = registers.rip.wrapping_sub(INT_BYTES);
    inject(hv, running, registers, vector::PROTECTION, Some(u32::from(wanted) << 3 | ERROR_GATE));
}

/// #NM: the guest set CR0.TS; it is told once, and TS is clear then.
fn on_no_device<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    let was = running.state.task_switched;
    running.state.task_switched = false;
    hv.machine.set_task_switched(false);
    if was {
        inject(hv, running, registers, vector::NO_DEVICE, None);
    }
}

fn on_debug<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    running.state.debug[6] = hv.machine.debug_register(6);
    inject(hv, running, registers, vector::DEBUG, None);
}

/// Enters the guest kernel for a system call of its user. Without a callback the instruction does not exist for the
/// user: #UD, or #GP for `sysenter`.
#[inline]
pub fn enter_system_call<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    how: SystemCall,
) {
    let callbacks = &running.state.callbacks;
    let callback = match how {
        SystemCall::Syscall64 => callbacks.syscall,
        SystemCall::Syscall32 => callbacks.syscall32,
        SystemCall::Sysenter => callbacks.sysenter,
    };
    if callback.address == 0 {
        return refuse_system_call(hv, running, registers, how);
    }
    enter(hv, running, registers, callback.into(), rule::NO_HANDLER);
}

#[cold]
fn refuse_system_call<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    how: SystemCall,
) {
    if how == SystemCall::Sysenter {
        return inject(hv, running, registers, vector::PROTECTION, Some(0));
    }
    registers.rip = registers.rip.wrapping_sub(SYSCALL_BYTES);
    inject(hv, running, registers, vector::INVALID_OPCODE, None);
}

/// Delivers an event upcall: masks events and enters the event callback.
#[inline]
pub fn deliver_upcall<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    let address = running.state.callbacks.event.address;
    let entry = Entry { address, masks_events: true, error_code: None };
    enter(hv, running, registers, entry, rule::NO_EVENT_CALLBACK);
}

/// Delivers a non-maskable interrupt to the guest, unless it is still in one; a guest without a handler keeps it
/// pending until it registers one.
pub fn deliver_nmi<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) {
    let gate = running.state.traps[usize::from(vector::NMI)];
    if running.state.nmi_masked || gate.address == 0 || running.vcpu.nmi_pending.swap(0, Ordering::AcqRel) == 0 {
        return;
    }
    running.state.nmi_masked = true;
    let masks_events = gate.flags & GATE_MASKS_EVENTS != 0;
    let entry = Entry { address: gate.address, masks_events, error_code: None };
    enter(hv, running, registers, entry, rule::NO_HANDLER);
}
