//! Descriptor tables, entry points and registers of the vCPU.

use super::raw::{address, call1, call2, call3, raw1};
use crate::MachineAddr;
use crate::arch::{IretContext, TrapInfo};
use crate::callback::{CALLBACKOP_REGISTER, CALLBACKOP_UNREGISTER, CallbackRegister, CallbackUnregister};
use crate::errno::Errno;
use crate::xen::{
    HYPERVISOR_CALLBACK_OP, HYPERVISOR_FPU_TASKSWITCH, HYPERVISOR_GET_DEBUGREG, HYPERVISOR_IRET,
    HYPERVISOR_SET_CALLBACKS, HYPERVISOR_SET_DEBUGREG, HYPERVISOR_SET_GDT, HYPERVISOR_SET_SEGMENT_BASE,
    HYPERVISOR_SET_TRAP_TABLE, HYPERVISOR_STACK_SWITCH, HYPERVISOR_UPDATE_DESCRIPTOR, HYPERVISOR_VM_ASSIST,
    VMASST_CMD_DISABLE, VMASST_CMD_ENABLE,
};

/// Installs a descriptor table of `entries` descriptors in `frames`.
///
/// # Errors
/// `Inval`: a frame is writable somewhere, or a descriptor is not allowed.
///
/// # Safety
/// The selectors in use stay valid.
pub unsafe fn set_gdt(frames: &[u64], entries: u32) -> Result<(), Errno> {
    // SAFETY: the call reads `frames`; the caller answers for the selectors.
    unsafe { call2(HYPERVISOR_SET_GDT, address(frames), entries.into()) }.map(drop)
}

/// Changes the descriptor at a machine address.
///
/// # Errors
/// `Inval`: the descriptor is not allowed.
///
/// # Safety
/// The selectors in use stay valid.
pub unsafe fn update_descriptor(at: MachineAddr, descriptor: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for the selectors.
    unsafe { call2(HYPERVISOR_UPDATE_DESCRIPTOR, at.0, descriptor) }.map(drop)
}

/// Registers exception handlers. The last of `traps` has address 0.
///
/// # Errors
/// `Inval`: a handler's address is not canonical.
///
/// # Safety
/// The handlers are handlers.
pub unsafe fn set_trap_table(traps: &[TrapInfo]) -> Result<(), Errno> {
    debug_assert!(traps.last().is_none_or(|last| last.address == 0));
    // SAFETY: the call reads up to the entry with address 0; the caller answers for the handlers.
    unsafe { call1(HYPERVISOR_SET_TRAP_TABLE, address(traps)) }.map(drop)
}

/// Registers an entry.
///
/// # Errors
/// `Inval`: no such type, or an address that is not canonical. `NoSys`: the CPU has no such entry.
///
/// # Safety
/// The entry is one.
pub unsafe fn callback_register(callback: &CallbackRegister) -> Result<(), Errno> {
    // SAFETY: the call reads its argument; the caller answers for the entry.
    unsafe { call2(HYPERVISOR_CALLBACK_OP, CALLBACKOP_REGISTER.into(), address(callback)) }.map(drop)
}

/// Unregisters an entry.
///
/// # Errors
/// `Inval`: that entry cannot be unregistered.
pub fn callback_unregister(callback: &CallbackUnregister) -> Result<(), Errno> {
    // SAFETY: the call reads its argument.
    unsafe { call2(HYPERVISOR_CALLBACK_OP, CALLBACKOP_UNREGISTER.into(), address(callback)) }.map(drop)
}

/// Registers the event, failsafe and syscall entries; the older form of [`callback_register`].
///
/// # Errors
/// `Inval`: an address is not canonical.
///
/// # Safety
/// The entries are entries.
pub unsafe fn set_callbacks(event: u64, failsafe: u64, syscall: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for the entries.
    unsafe { call3(HYPERVISOR_SET_CALLBACKS, event, failsafe, syscall) }.map(drop)
}

/// Sets the stack for entries from user mode.
///
/// # Errors
/// None from Xen.
///
/// # Safety
/// The stack is mapped and used by nothing else.
pub unsafe fn stack_switch(ss: u16, sp: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for the stack.
    unsafe { call2(HYPERVISOR_STACK_SWITCH, ss.into(), sp) }.map(drop)
}

/// Sets FS or GS base; `which` is a `SEGBASE_*`.
///
/// # Errors
/// `Inval`: no such base, or an address that is not canonical.
///
/// # Safety
/// What is reached through that base stays valid.
pub unsafe fn set_segment_base(which: u32, base: u64) -> Result<(), Errno> {
    // SAFETY: the caller answers for what is reached.
    unsafe { call2(HYPERVISOR_SET_SEGMENT_BASE, which.into(), base) }.map(drop)
}

/// Sets (or clears) CR0.TS, so that the next FPU instruction raises an exception (or does not).
///
/// # Errors
/// None from Xen.
pub fn fpu_taskswitch(set: bool) -> Result<(), Errno> {
    // SAFETY: the call takes a number and changes a flag of the vCPU.
    unsafe { call1(HYPERVISOR_FPU_TASKSWITCH, set.into()) }.map(drop)
}

/// Writes a debug register.
///
/// # Errors
/// `Inval` or `Perm`: no such register, or a value that is not allowed.
pub fn set_debugreg(number: u32, value: u64) -> Result<(), Errno> {
    // SAFETY: a breakpoint raises an exception and changes no memory.
    unsafe { call2(HYPERVISOR_SET_DEBUGREG, number.into(), value) }.map(drop)
}

/// Reads a debug register.
///
/// A value and an error cannot be told apart in the highest 4095 values, so the register's bits come back as they are.
pub fn get_debugreg(number: u32) -> u64 {
    // SAFETY: the call takes a number and changes nothing.
    (unsafe { raw1(HYPERVISOR_GET_DEBUGREG, number.into()) }) as u64
}

/// Switches an emulation aid (`VMASST_TYPE_*`) on or off.
///
/// # Errors
/// `Inval` or `NoSys`: no such aid.
pub fn vm_assist(enable: bool, aid: u32) -> Result<(), Errno> {
    let command = if enable { VMASST_CMD_ENABLE } else { VMASST_CMD_DISABLE };
    // SAFETY: the call takes numbers; aids change how faulting instructions are handled, not memory.
    unsafe { call2(HYPERVISOR_VM_ASSIST, command.into(), aid.into()) }.map(drop)
}

/// Returns from a handler: takes an [`IretContext`](crate::arch::IretContext) from the stack.
///
/// A kernel ends its handlers in assembly; this is for those that have the frame's address at hand.
///
/// # Safety
/// `frame` is such a frame on the current stack, and where it leads may run.
pub unsafe fn iret(frame: *const IretContext) -> ! {
    // SAFETY: the stack pointer is moved to the frame, which the caller vouches for; the call does not come back.
    unsafe {
        core::arch::asm!(
            "mov rsp, {frame}",
            "mov eax, {number}",
            "syscall",
            "ud2",
            frame = in(reg) frame,
            number = const HYPERVISOR_IRET,
            options(noreturn),
        )
    }
}
