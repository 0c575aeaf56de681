//! Where a guest wants to be entered: trap table, callbacks, kernel stack, NMI.
//!
//! Source: Xen's `public/arch-x86/xen.h` (`set_trap_table`, `stack_switch`), `public/callback.h`, `public/nmi.h`.

use core::sync::atomic::Ordering;

use pv_abi::arch::TrapInfo;
use pv_abi::callback::{
    CALLBACKF_MASK_EVENTS, CALLBACKOP_REGISTER, CALLBACKOP_UNREGISTER, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE,
    CALLBACKTYPE_NMI, CALLBACKTYPE_SYSCALL, CALLBACKTYPE_SYSCALL32, CALLBACKTYPE_SYSENTER, CallbackRegister,
    CallbackUnregister,
};
use pv_abi::errno::Errno;

use super::vector;
use crate::call::Call;
use crate::domain::{Callback, TrapGate, VcpuState, work};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::rules::{core as core_rule, traps as rule};

/// Bit of a gate's flags: mask events on entry.
pub(super) const GATE_MASKS_EVENTS: u8 = 1 << 2;

/// Whether an address has its upper 17 bits equal.
#[inline]
pub(crate) const fn is_canonical(address: u64) -> bool {
    matches!(address.cast_signed() >> 47, 0 | -1)
}

fn canonical(address: u64) -> Result<u64, Refusal> {
    if is_canonical(address) {
        Ok(address)
    } else {
        Err(Refusal::errno(Errno::Inval, rule::NON_CANONICAL).with(Evidence::Value(address)))
    }
}

/// `set_trap_table(traps*)`: a list that ends with address 0; a null list takes all handlers away.
///
/// # Errors
/// `EFAULT` for a bad pointer, `EINVAL` for a handler that is not canonical.
pub fn set_trap_table<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let list = args[0];
    if list == 0 {
        call.state().traps.fill(TrapGate::default());
        return Ok(0);
    }
    for index in 0.. {
        let trap: TrapInfo = call.read_element(list, index)?;
        if trap.address == 0 {
            break;
        }
        let gate = gate(&trap)?;
        call.state().traps[usize::from(trap.vector)] = gate;
        if call.should_stop() {
            let left = list + (index + 1) * size_of::<TrapInfo>() as u64;
            return Err(call.again([left, 0, 0, 0, 0]));
        }
    }
    Ok(0)
}

/// A handler as it is kept.
///
/// # Errors
/// `EINVAL` where its address is not canonical.
pub(crate) fn gate(trap: &TrapInfo) -> Result<TrapGate, Refusal> {
    Ok(TrapGate { address: canonical(trap.address)?, cs: trap.cs | 3, flags: trap.flags & 7 })
}

/// `stack_switch(ss, sp)`: the stack for entries from user mode.
///
/// # Errors
/// None.
pub fn stack_switch<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let state = call.state();
    state.kernel_ss = args[0] & 0xffff | 3;
    state.kernel_sp = args[1];
    Ok(0)
}

/// `callback_op(command, argument*)`.
///
/// # Errors
/// `EFAULT` for a bad pointer, `EINVAL` for an address that is not canonical or a callback that cannot be unregistered,
/// `ENOSYS` for an unknown command or type.
pub fn callback_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    match args[0] as u32 {
        CALLBACKOP_REGISTER => {
            let wanted: CallbackRegister = call.read(args[1])?;
            let masks_events = wanted.flags & CALLBACKF_MASK_EVENTS != 0;
            register(call, wanted.type_, Callback { address: wanted.address, masks_events })
        }
        CALLBACKOP_UNREGISTER => {
            let unwanted: CallbackUnregister = call.read(args[1])?;
            unregister(call, unwanted.type_)
        }
        other => Err(Refusal::errno(Errno::NoSys, core_rule::UNKNOWN_OPERATION).with(Evidence::Value(other.into()))),
    }
}

fn register<M: Machine>(call: &mut Call<'_, M>, kind: u16, callback: Callback) -> Result<u64, Refusal> {
    canonical(callback.address)?;
    let callbacks = &mut call.running.state.callbacks;
    match kind {
        CALLBACKTYPE_EVENT => callbacks.event = Callback { masks_events: true, ..callback },
        CALLBACKTYPE_FAILSAFE => callbacks.failsafe = callback,
        CALLBACKTYPE_SYSCALL => callbacks.syscall = callback,
        CALLBACKTYPE_SYSCALL32 => callbacks.syscall32 = callback,
        CALLBACKTYPE_SYSENTER => callbacks.sysenter = callback,
        CALLBACKTYPE_NMI => register_nmi(call, callback.address),
        _ => return Err(unknown_type(kind)),
    }
    Ok(0)
}

fn unregister<M: Machine>(call: &mut Call<'_, M>, kind: u16) -> Result<u64, Refusal> {
    match kind {
        CALLBACKTYPE_NMI => {
            unregister_nmi(call.state());
            Ok(0)
        }
        CALLBACKTYPE_EVENT
        | CALLBACKTYPE_FAILSAFE
        | CALLBACKTYPE_SYSCALL
        | CALLBACKTYPE_SYSCALL32
        | CALLBACKTYPE_SYSENTER => {
            Err(Refusal::errno(Errno::Inval, rule::CALLBACK_STAYS).with(Evidence::Value(kind.into())))
        }
        _ => Err(unknown_type(kind)),
    }
}

#[cold]
fn unknown_type(kind: u16) -> Refusal {
    Refusal::errno(Errno::NoSys, rule::CALLBACK_TYPE).with(Evidence::Value(kind.into()))
}

/// `set_callbacks(event, failsafe, syscall)`: the older form of three registrations; a bad address is passed over.
///
/// # Errors
/// None.
pub fn set_callbacks<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    let callbacks = &mut call.running.state.callbacks;
    let places = [
        (&mut callbacks.event, args[0], true),
        (&mut callbacks.failsafe, args[1], false),
        (&mut callbacks.syscall, args[2], false),
    ];
    for (place, address, masks_events) in places {
        if is_canonical(address) {
            *place = Callback { address, masks_events };
        }
    }
    Ok(0)
}

/// `nmi_op(command, argument*)`.
///
/// # Errors
/// `EFAULT` for a bad pointer, `EINVAL` for an address that is not canonical, `ENOSYS` for an unknown command.
pub fn nmi_op<M: Machine>(call: &mut Call<'_, M>, args: [u64; 5]) -> Result<u64, Refusal> {
    match args[0] as u32 {
        pv_abi::nmi::XENNMI_REGISTER_CALLBACK => {
            let wanted: pv_abi::nmi::XennmiCallback = call.read(args[1])?;
            let address = canonical(wanted.handler_address)?;
            register_nmi(call, address);
        }
        pv_abi::nmi::XENNMI_UNREGISTER_CALLBACK => unregister_nmi(call.state()),
        other => {
            return Err(Refusal::errno(Errno::NoSys, rule::NMI_COMMAND).with(Evidence::Value(other.into())));
        }
    }
    Ok(0)
}

/// The NMI callback is the handler of vector 2, with events masked.
fn register_nmi<M: Machine>(call: &mut Call<'_, M>, address: u64) {
    let cs = pv_abi::arch::FLAT_KERNEL_CS;
    call.state().traps[usize::from(vector::NMI)] = TrapGate { address, cs, flags: GATE_MASKS_EVENTS };
    if call.vcpu().nmi_pending.load(Ordering::Relaxed) != 0 {
        call.vcpu().raise(work::NMI);
    }
}

fn unregister_nmi(state: &mut VcpuState) {
    state.traps[usize::from(vector::NMI)] = TrapGate::default();
}
