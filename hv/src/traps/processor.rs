//! Processor state that a guest sets by hypercall: segment bases, CR0.TS, debug registers, assists.
//!
//! Source: Xen's `public/xen.h` and `public/arch-x86/xen-x86_64.h`; AMD APM 2 §13.1.1 for the debug registers.

use core::sync::atomic::Ordering;

use pv_abi::arch::{
    HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START, SEGBASE_FS, SEGBASE_GS_KERNEL, SEGBASE_GS_USER, SEGBASE_GS_USER_SEL,
};
use pv_abi::errno::Errno;
use pv_abi::xen::{
    VMASST_CMD_DISABLE, VMASST_CMD_ENABLE, VMASST_TYPE_4GB_SEGMENTS, VMASST_TYPE_4GB_SEGMENTS_NOTIFY,
    VMASST_TYPE_ARCHITECTURAL_IOPL, VMASST_TYPE_PAE_EXTENDED_CR3, VMASST_TYPE_RUNSTATE_UPDATE_FLAG,
    VMASST_TYPE_WRITABLE_PAGETABLES,
};

use super::callbacks::is_canonical;
use crate::call::Call;
use crate::domain::{Running, VcpuState};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rule, traps as rule};

/// CR4.DE: I/O breakpoints exist, and DR4 and DR5 do not.
pub(super) const CR4_DE: u64 = 1 << 3;
/// The assists of a 64-bit PV guest.
const ASSISTS: u64 = 1 << VMASST_TYPE_4GB_SEGMENTS
    | 1 << VMASST_TYPE_4GB_SEGMENTS_NOTIFY
    | 1 << VMASST_TYPE_WRITABLE_PAGETABLES
    | 1 << VMASST_TYPE_PAE_EXTENDED_CR3
    | 1 << VMASST_TYPE_ARCHITECTURAL_IOPL
    | 1 << VMASST_TYPE_RUNSTATE_UPDATE_FLAG;

/// `set_segment_base(which, base)`.
///
/// # Errors
/// `EINVAL` for a base that is not canonical or an unknown segment. A user GS selector never fails: one that cannot be
/// loaded is null.
pub fn set_segment_base<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let (which, base) = (args[0] as u32, args[1]);
    let value = match which {
        SEGBASE_FS | SEGBASE_GS_USER | SEGBASE_GS_KERNEL if is_canonical(base) => base,
        SEGBASE_GS_USER_SEL => base & 0xffff,
        SEGBASE_FS | SEGBASE_GS_USER | SEGBASE_GS_KERNEL => return Err(not_canonical(base)),
        _ => return Err(no_such_base(which)),
    };
    call.hv.machine.set_segment_base(&mut call.running.state, which, value);
    Ok(0)
}

#[cold]
fn not_canonical(base: u64) -> Refusal {
    Refusal::errno(Errno::Inval, rule::NON_CANONICAL).with(Evidence::Value(base))
}

#[cold]
fn no_such_base(which: u32) -> Refusal {
    Refusal::errno(Errno::Inval, rule::SEGMENT_BASE_WHICH).with(Evidence::Value(which.into()))
}

/// `fpu_taskswitch(set)`.
///
/// # Errors
/// None.
pub fn fpu_taskswitch<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    set_task_switched(&call.hv.machine, &mut call.running.state, args[0] as u32 != 0);
    Ok(0)
}

/// Sets or clears CR0.TS as the guest sees it.
pub(super) fn set_task_switched<M: Machine>(machine: &M, state: &mut VcpuState, on: bool) {
    if state.task_switched != on {
        state.task_switched = on;
        machine.set_task_switched(on);
    }
}

/// `vm_assist(command, type)`.
///
/// # Errors
/// `EINVAL` for a type that a 64-bit PV guest does not have, `ENOSYS` for an unknown command.
pub fn vm_assist<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let (command, kind) = (args[0] as u32, args[1] as u32);
    let bit = if kind < 64 { 1 << kind & ASSISTS } else { 0 };
    if bit == 0 {
        return Err(Refusal::errno(Errno::Inval, rule::ASSIST_TYPE).with(Evidence::Value(kind.into())));
    }
    let assists = &call.domain().assists;
    match command {
        VMASST_CMD_ENABLE => assists.fetch_or(bit, Ordering::Relaxed),
        VMASST_CMD_DISABLE => assists.fetch_and(!bit, Ordering::Relaxed),
        _ => {
            let evidence = Evidence::Value(command.into());
            return Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(evidence));
        }
    };
    Ok(0)
}

/// The assists that a toolstack may set for a vCPU.
#[must_use]
pub(crate) const fn valid_assists(assists: u64) -> u64 {
    assists & ASSISTS
}

/// `set_debugreg(number, value)`.
///
/// # Errors
/// `ENODEV` for a register that there is not, `EPERM` for a breakpoint on the hypervisor or a forbidden control bit,
/// `EINVAL` for reserved bits.
pub fn set_debugreg<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    set_debug_register(&call.hv.machine, call.running, args[0] as u32, args[1])?;
    Ok(0)
}

/// `get_debugreg(number)`: gives the value.
///
/// # Errors
/// `ENODEV` for a register that there is not.
pub fn get_debugreg<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    debug_register(&call.hv.machine, call.running, args[0] as u32)
}

/// What the guest reads from a debug register.
pub(super) fn debug_register<M: Machine>(machine: &M, running: &Running, number: u32) -> Result<u64, Refusal> {
    let state = &running.state;
    Ok(match register_number(number, state.cr4)? {
        index @ 0..=3 => state.debug[index],
        6 => machine.debug_register(6),
        _ => state.debug[7] | state.debug[5],
    })
}

/// Sets a debug register of the running vCPU.
pub(super) fn set_debug_register<M: Machine>(
    machine: &M,
    running: &mut Running,
    number: u32,
    value: u64,
) -> Result<(), Refusal> {
    let state = &mut *running.state;
    let index = register_number(number, state.cr4)?;
    let checked = checked_debug_value(index, value, state.cr4)?;
    state.debug[index] = checked.loaded;
    if index == 7 {
        state.debug[5] = checked.io;
    }
    machine.set_debug_register(index, checked.loaded);
    Ok(())
}

/// The register that is meant: without CR4.DE, DR4 and DR5 are other names of DR6 and DR7.
fn register_number(number: u32, cr4: u64) -> Result<usize, Refusal> {
    match number {
        0..=3 | 6 | 7 => Ok(number as usize),
        4 | 5 if cr4 & CR4_DE == 0 => Ok(number as usize + 2),
        _ => Err(Refusal::errno(Errno::NoDev, rule::DEBUG_REGISTER_NUMBER).with(Evidence::Value(number.into()))),
    }
}

/// A debug register's value, split.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DebugValue {
    /// What the CPU is given.
    pub(crate) loaded: u64,
    /// For DR7, the enable bits of I/O breakpoints: emulated instructions look at them, the CPU must not.
    pub(crate) io: u64,
}

/// Checks the value of debug register `index` (0 to 3, 6, 7).
///
/// # Errors
/// `EPERM` and `EINVAL` as for `set_debugreg`.
pub(crate) fn checked_debug_value(index: usize, value: u64, cr4: u64) -> Result<DebugValue, Refusal> {
    let plain = |loaded| Ok(DebugValue { loaded, io: 0 });
    match index {
        0..=3 if (HYPERVISOR_VIRT_START..HYPERVISOR_VIRT_END).contains(&value) || !is_canonical(value) => {
            Err(Refusal::errno(Errno::Perm, rule::BREAKPOINT_ADDRESS).with(Evidence::Value(value)))
        }
        0..=3 => plain(value),
        _ if value >> 32 != 0 => Err(Refusal::errno(Errno::Inval, rule::DEBUG_RESERVED).with(Evidence::Value(value))),
        6 => plain(value & 0xefff | 0xffff_0ff0),
        _ => checked_debug_control(value, cr4),
    }
}

fn checked_debug_control(value: u64, cr4: u64) -> Result<DebugValue, Refusal> {
    const GENERAL_DETECT: u64 = 1 << 13;
    const BREAK_ON_IO: u64 = 2;
    let forbidden = || Refusal::errno(Errno::Perm, rule::DEBUG_CONTROL).with(Evidence::Value(value));
    let value = value & 0xffff_2fff & !0xc000 | 0x400;
    if value & GENERAL_DETECT != 0 {
        return Err(forbidden());
    }
    let mut io = 0;
    for breakpoint in 0..4 {
        let enable = value & 3 << (breakpoint * 2);
        if enable != 0 && value >> (16 + breakpoint * 4) & 3 == BREAK_ON_IO {
            if cr4 & CR4_DE == 0 {
                return Err(forbidden());
            }
            io |= enable;
        }
    }
    Ok(DebugValue { loaded: value & !io, io })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(result: Result<DebugValue, Refusal>) -> Option<Errno> {
        result.unwrap_err().as_errno()
    }

    #[test]
    fn a_breakpoint_on_the_hypervisor_is_refused() {
        assert_eq!(errno(checked_debug_value(0, HYPERVISOR_VIRT_START + 8, 0)), Some(Errno::Perm));
        assert!(checked_debug_value(3, 0xffff_ffff_8100_0000, 0).is_ok());
    }

    #[test]
    fn debug_status_and_control_keep_their_fixed_bits() {
        assert_eq!(checked_debug_value(6, 0, 0).unwrap().loaded, 0xffff_0ff0);
        assert_eq!(checked_debug_value(7, 0, 0).unwrap().loaded, 0x400);
        assert_eq!(errno(checked_debug_value(7, 1 << 32, 0)), Some(Errno::Inval));
        assert_eq!(errno(checked_debug_value(7, 1 << 13, 0)), Some(Errno::Perm));
    }

    #[test]
    fn io_breakpoints_need_debug_extensions_and_never_reach_the_cpu() {
        let control = 2 << 16 | 1;
        assert_eq!(errno(checked_debug_value(7, control, 0)), Some(Errno::Perm));
        let split = checked_debug_value(7, control, CR4_DE).unwrap();
        assert_eq!(split, DebugValue { loaded: 2 << 16 | 0x400, io: 1 });
    }

    #[test]
    fn dr4_is_dr6_unless_debug_extensions_are_on() {
        assert_eq!(register_number(4, 0).unwrap(), 6);
        assert_eq!(register_number(4, CR4_DE).unwrap_err().as_errno(), Some(Errno::NoDev));
        assert_eq!(register_number(8, 0).unwrap_err().as_errno(), Some(Errno::NoDev));
    }
}
