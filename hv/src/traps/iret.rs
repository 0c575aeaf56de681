//! `iret`: a guest kernel goes back from a handler, to itself or to its user.
//!
//! The frame at its stack pointer names the registers; the interrupt flag in it becomes the event mask negated. The
//! real interrupt flag stays on and the real I/O privilege zero. Source: Xen's `public/arch-x86/xen-x86_64.h`,
//! `struct iret_context`.

use core::sync::atomic::Ordering;

use pv_abi::arch::{FLAT_USER_CS32, IretContext, VGCF_IN_SYSCALL};
use pv_abi::xen::VMASST_TYPE_ARCHITECTURAL_IOPL;

use super::bounce::UPCALL_MASK;
use crate::call::Call;
use crate::domain::work;
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::{ENTRY_FULL, ENTRY_SYSCALL, flags};
use crate::rules::traps as rule;

/// What of rflags a guest sets by itself.
const GUEST_FLAGS: u64 = 0x3f_ffff & !(flags::IOPL | flags::VM);

/// `iret`: its result is the frame's rax.
///
/// # Errors
/// Crashes the domain where the frame is not readable or goes to user mode without user tables.
#[inline]
pub fn iret<M: Machine>(call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    let at = call.registers.rsp;
    let frame: IretContext = call.read(at).map_err(|_| unreadable(at))?;
    if frame.cs & 3 == 3 {
        if call.running.state.user_root.is_none() {
            return Err(no_user_tables(frame.rip));
        }
        call.running.state.kernel_mode = false;
        call.hv.machine.toggle_mode(&mut call.running.state);
    }
    if call.domain().assists.load(Ordering::Relaxed) & 1 << VMASST_TYPE_ARCHITECTURAL_IOPL != 0 {
        call.state().iopl = (frame.rflags >> 12 & 3) as u8;
    }
    let (info, offset) = call.vcpu().info_place();
    call.hv.machine.swap_byte(info, offset + UPCALL_MASK, u8::from(frame.rflags & flags::IF == 0));
    if call.running.state.nmi_masked {
        unmask_nmi(call);
    }
    restore(call, &frame);
    Ok(frame.rax)
}

#[inline]
fn restore<M: Machine>(call: &mut Call<'_, M>, frame: &IretContext) {
    let registers = &mut *call.registers;
    registers.rip = frame.rip;
    registers.cs = frame.cs & 0xffff | 3;
    registers.rflags = frame.rflags & GUEST_FLAGS | flags::IF | flags::ALWAYS;
    registers.rsp = frame.rsp;
    registers.ss = frame.ss & 0xffff | 3;
    registers.rax = frame.rax;
    if frame.flags & VGCF_IN_SYSCALL == 0 || registers.cs == u64::from(FLAT_USER_CS32) {
        registers.rcx = frame.rcx;
        registers.r11 = frame.r11;
        registers.entry_vector = ENTRY_FULL;
    } else {
        registers.entry_vector = ENTRY_SYSCALL;
    }
}

#[cold]
fn unmask_nmi<M: Machine>(call: &mut Call<'_, M>) {
    call.state().nmi_masked = false;
    if call.vcpu().nmi_pending.load(Ordering::Relaxed) != 0 {
        call.vcpu().raise(work::NMI);
    }
}

#[cold]
fn unreadable(at: u64) -> Refusal {
    Refusal::crash(rule::IRET_FRAME).with(Evidence::Value(at))
}

#[cold]
fn no_user_tables(rip: u64) -> Refusal {
    Refusal::crash(rule::IRET_TO_USER_WITHOUT_TABLES).with(Evidence::Value(rip))
}
