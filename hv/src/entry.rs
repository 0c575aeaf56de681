//! The ways into the hypervisor, and what is due before a guest goes on.
//!
//! The machine's entry code calls one of these with interrupts off and the guest's registers on its stack. Each says
//! what comes next: back to the guest, or the scheduler chooses. Before going back, [`before_return`] delivers what is
//! due; it loops until nothing is.

use core::sync::atomic::Ordering;

use pv_abi::xen::{HYPERVISOR_EVENT_CHANNEL_OP, HYPERVISOR_IRET};

use crate::Hypervisor;
use crate::domain::{Running, work};
use crate::hardware::Machine;
use crate::registers::Registers;
use crate::{evtchn, hypercall, sched, time, traps};

/// What the entry code does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[must_use]
pub enum Next {
    /// Back to the guest with the registers as they are now.
    Guest = 0,
    /// Call [`sched::switch`]: another vCPU, or none, may have to run.
    Switch = 1,
}

/// A fault, trap or software interrupt of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The error code, or zero.
    pub error_code: u32,
    /// CR2, for a page fault.
    pub address: u64,
}

/// `syscall` in guest-kernel mode.
#[inline]
pub fn on_hypercall<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    if is_iret(registers) { on_iret(hv, running, registers) } else { on_other_hypercall(hv, running, registers) }
}

/// Whether the hypercall is `iret`, which guests make most often and which goes by a shorter way.
#[inline(always)]
#[must_use]
pub const fn is_iret(registers: &Registers) -> bool {
    registers.rax == HYPERVISOR_IRET
}

/// The hypercall `iret`.
#[inline(always)]
pub fn on_iret<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    hypercall::iret(hv, running, registers);
    before_return(hv, running, registers)
}

/// A hypercall that is not `iret`.
#[inline(always)]
pub fn on_other_hypercall<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    // The next most frequent has a shorter way too.
    if registers.rax != HYPERVISOR_EVENT_CHANNEL_OP || !evtchn::send_at_once(hv, running, registers) {
        hypercall::dispatch(hv, running, registers);
    }
    before_return(hv, running, registers)
}

/// `syscall` in guest-kernel mode, tried first: whether it was a hypercall whose answer is always the same
/// ([`hypercall::immediate`]) and nothing is due, so that the guest goes on. Uses only `rax` and `rdi` of the registers.
#[inline(always)]
#[must_use]
pub fn on_immediate_hypercall<M: Machine>(hv: &Hypervisor<M>, running: &Running, registers: &mut Registers) -> bool {
    let Some(answer) = hypercall::immediate(registers.rax, registers.rdi) else { return false };
    if running.vcpu.work.load(Ordering::Relaxed) != 0 || evtchn::upcall_due(hv, &running.vcpu) {
        return false;
    }
    registers.rax = answer;
    true
}

/// `syscall` in guest-user mode: the guest kernel's system-call entry.
pub fn on_system_call<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    traps::enter_system_call(hv, running, registers, traps::SystemCall::Syscall64);
    before_return(hv, running, registers)
}

/// `syscall` in 32-bit mode, `sysenter`.
pub fn on_other_system_call<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    how: traps::SystemCall,
) -> Next {
    traps::enter_system_call(hv, running, registers, how);
    before_return(hv, running, registers)
}

/// Whether an invalid opcode may be the forced-emulation prefix: [`on_forced_emulation`] follows, else
/// [`on_invalid_opcode`]. [`on_exception`] does the same; these are a shorter way.
#[inline(always)]
#[must_use]
pub fn may_be_forced<M: Machine>(hv: &Hypervisor<M>, registers: &Registers) -> bool {
    traps::cpuid::may_be_forced(hv, registers)
}

/// An invalid opcode that may be the forced-emulation prefix.
#[inline(always)]
pub fn on_forced_emulation<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    traps::on_forced_emulation(hv, running, registers);
    before_return(hv, running, registers)
}

/// An invalid opcode that is not.
#[inline(always)]
pub fn on_invalid_opcode<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    traps::on_invalid_opcode(hv, running, registers);
    before_return(hv, running, registers)
}

/// An exception in the guest.
#[inline]
pub fn on_exception<M: Machine>(
    hv: &Hypervisor<M>,
    running: &mut Running,
    registers: &mut Registers,
    exception: Exception,
) -> Next {
    traps::on_exception(hv, running, registers, exception);
    before_return(hv, running, registers)
}

/// A timer interrupt, in a guest or while idle. Follow with [`before_return`] where a guest was interrupted.
pub fn on_timer<M: Machine>(hv: &Hypervisor<M>) {
    time::on_timer(hv);
}

/// Another CPU asks this one to look at what is due. Follow with [`before_return`] where a guest was interrupted.
pub fn on_kick<M: Machine>(hv: &Hypervisor<M>) {
    time::program(hv);
}

/// A routed physical interrupt. Follow with [`before_return`] where a guest was interrupted.
pub fn on_line<M: Machine>(hv: &Hypervisor<M>, gsi: u32) {
    crate::control::physdev::on_line(hv, gsi);
}

/// A message-signalled interrupt. Follow with [`before_return`] where a guest was interrupted.
pub fn on_message<M: Machine>(hv: &Hypervisor<M>, slot: u32) {
    crate::control::physdev::on_message(hv, slot);
}

/// Input on the serial console. Follow with [`before_return`] where a guest was interrupted.
pub fn on_console_input<M: Machine>(hv: &Hypervisor<M>) {
    crate::control::console::on_input(hv);
}

/// Delivers what is due before the guest goes on.
#[inline]
pub fn before_return<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    if running.vcpu.work.load(Ordering::Relaxed) == 0 && !evtchn::upcall_due(hv, &running.vcpu) {
        return Next::Guest;
    }
    deliver(hv, running, registers)
}

#[cold]
fn deliver<M: Machine>(hv: &Hypervisor<M>, running: &mut Running, registers: &mut Registers) -> Next {
    loop {
        let due = running.vcpu.work.swap(0, Ordering::Acquire);
        if !running.vcpu.is_runnable() || due & work::RESCHEDULE != 0 && sched::should_switch(hv, &running.vcpu) {
            running.vcpu.raise(due & !work::RESCHEDULE);
            return Next::Switch;
        }
        if due & work::TIME != 0 {
            time::update_guest_clock(hv, running);
        }
        // One with hardware assistance gets these as it goes on ([`crate::hvm::before_entry`]).
        let assisted = running.state.hvm.is_some();
        if due & work::NMI != 0 && !assisted {
            traps::deliver_nmi(hv, running, registers);
        }
        if evtchn::upcall_due(hv, &running.vcpu) && !assisted {
            traps::deliver_upcall(hv, running, registers);
        }
        if running.vcpu.work.load(Ordering::Acquire) == 0 {
            return Next::Guest;
        }
    }
}
