//! `iret`: a guest kernel goes back from a handler, to itself or to its user.
//!
//! The frame at its stack pointer names the registers; the interrupt flag in it becomes the event mask negated. The
//! real interrupt flag stays on and the real I/O privilege zero. Source: Xen's `public/arch-x86/xen-x86_64.h`,
//! `struct iret_context`.

use core::sync::atomic::Ordering;

use pv_abi::arch::{FLAT_USER_CS32, IretContext, VGCF_IN_SYSCALL};
use pv_abi::xen::VMASST_TYPE_ARCHITECTURAL_IOPL;

use super::bounce::UPCALL_MASK;
use crate::Hypervisor;
use crate::call::Call;
use crate::domain::{Running, work};
use crate::hardware::Machine;
use crate::refusal::{Evidence, Refusal};
use crate::registers::{ENTRY_FULL, ENTRY_SYSCALL, Registers, flags};
use crate::rules::traps as rule;

/// What of rflags a guest sets by itself.
const GUEST_FLAGS: u64 = 0x3f_ffff & !(flags::IOPL | flags::VM);

/// `iret`: its result is the frame's rax.
///
/// # Errors
/// Those of [`go_back`].
#[inline]
pub fn iret<M: Machine>(call: &mut Call<'_, M>, _args: [u64; 5]) -> Result<u64, Refusal> {
    go_back(call.hv, call.running, call.registers)
}

/// Goes where the frame on the guest kernel's stack says; gives its rax.
///
/// # Errors
/// Crashes the domain where the frame is not readable or goes to user mode without user tables.
#[inline(always)]
pub fn go_back<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
) -> Result<u64, Refusal> {
    let at = registers.rsp;
    let frame: IretContext = hv.machine.read_from_guest(at).map_err(|_| unreadable(at))?;
    if frame.cs & 3 == 3 {
        if running.state.user_root.is_none() {
            return Err(no_user_tables(frame.rip));
        }
        running.state.kernel_mode = false;
        hv.machine.toggle_mode(&mut running.state);
    }
    if running.vcpu.domain.assists.load(Ordering::Relaxed) & 1 << VMASST_TYPE_ARCHITECTURAL_IOPL != 0 {
        running.state.iopl = (frame.rflags >> 12 & 3) as u8;
    }
    let (info, offset) = running.vcpu.info_place();
    hv.machine.swap_byte(info, offset + UPCALL_MASK, u8::from(frame.rflags & flags::IF == 0));
    if running.state.nmi_masked {
        unmask_nmi(running);
    }
    restore(registers, &frame);
    Ok(frame.rax)
}

#[inline]
fn restore(registers: &mut Registers, frame: &IretContext) {
    registers.rip = frame.rip;
    registers.cs = frame.cs & 0xffff | 3;
    registers.rflags = frame.rflags & GUEST_FLAGS | flags::IF | flags::ALWAYS;
    registers.rsp = frame.rsp;
    registers.ss = frame.ss & 0xffff | 3;
    if frame.flags & VGCF_IN_SYSCALL == 0 || registers.cs == u64::from(FLAT_USER_CS32) {
        registers.rcx = frame.rcx;
        registers.r11 = frame.r11;
        registers.entry_vector = ENTRY_FULL;
    } else {
        registers.entry_vector = ENTRY_SYSCALL;
    }
}

#[cold]
fn unmask_nmi(running: &mut Running) {
    running.state.nmi_masked = false;
    if running.vcpu.nmi_pending.load(Ordering::Relaxed) != 0 {
        running.vcpu.raise(work::NMI);
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
