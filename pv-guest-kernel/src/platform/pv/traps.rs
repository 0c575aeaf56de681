//! Exceptions, events and system calls: where Xen enters the kernel.
//!
//! A PC has an IDT, a TSS and `syscall` MSRs; here one hypercall registers a table of addresses and another the event and
//! `syscall` entries. Every entry masks events, as an interrupt gate would clear IF. The fault address is not in CR2 but in
//! vcpu_info. There are no separate stacks for exceptions: Xen itself takes NMI, double fault and machine check.
#![expect(unsafe_code, reason = "the kernel's entry points are assembly")]

use core::arch::global_asm;
use core::sync::atomic::Ordering;

use pv_abi::arch::{FLAT_KERNEL_CS, FLAT_USER_CS, FLAT_USER_SS, TrapInfo, VcpuGuestContext};
use pv_abi::callback::{
    CALLBACKF_MASK_EVENTS, CALLBACKOP_REGISTER, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_SYSCALL,
    CallbackRegister,
};
use pv_abi::xen;

use super::{events, hypercall, shared};
use crate::platform::frame::{TrapFrame, VECTOR_EVENT};

global_asm!(
    include_str!("../registers.s"),
    include_str!("entry.s"),
    ".purgem SAVE_REGISTERS",
    ".purgem RESTORE_REGISTERS",
);
global_asm!(include_str!("notes.s"));

macro_rules! trap_entries {
    ($($vector:literal $dpl:literal $name:ident,)*) => {
        unsafe extern "C" { $( fn $name(); )* }

        fn trap_table() -> [TrapInfo; TRAPS + 1] {
            let rows = [$( (
                $vector, $dpl, $name as *const () as u64,
            ), )*];
            core::array::from_fn(|row| match rows.get(row) {
                Some((vector, dpl, address)) => TrapInfo::new(*vector, *dpl, true, FLAT_KERNEL_CS, *address),
                None => TrapInfo::default(),
            })
        }

        const TRAPS: usize = [$( $vector ),*].len();
    };
}

// Vector, lowest privilege that may raise it with `int`, entry.
trap_entries! {
    0 0 pv_trap_0,
    1 0 pv_trap_1,
    2 0 pv_trap_2,
    3 3 pv_trap_3,
    4 3 pv_trap_4,
    5 0 pv_trap_5,
    6 0 pv_trap_6,
    7 0 pv_trap_7,
    8 0 pv_trap_8,
    10 0 pv_trap_10,
    11 0 pv_trap_11,
    12 0 pv_trap_12,
    13 0 pv_trap_13,
    14 0 pv_trap_14,
    16 0 pv_trap_16,
    17 0 pv_trap_17,
    18 0 pv_trap_18,
    19 0 pv_trap_19,
}

unsafe extern "C" {
    fn pv_event();
    fn pv_failsafe();
    fn pv_syscall();
    fn pv_cpu_entry();
    fn pv_enter_frame(frame: *const TrapFrame) -> !;
}

/// The way in of a vCPU that starts.
pub(super) fn cpu_entry() -> u64 {
    pv_cpu_entry as *const () as u64
}

/// Writes the entries into the state that a vCPU starts with.
pub(super) fn describe(context: &mut VcpuGuestContext) {
    // Here a row's place is its vector; the list that `set_trap_table` takes may leave vectors out.
    for row in trap_table().into_iter().take(TRAPS) {
        context.trap_ctxt[usize::from(row.vector)] = row;
    }
    context.event_callback_eip = pv_event as *const () as u64;
    context.failsafe_callback_eip = pv_failsafe as *const () as u64;
    context.syscall_callback_eip = pv_syscall as *const () as u64;
}

/// Registers all entries with Xen, for the vCPU that runs.
pub(super) fn init() {
    let table = trap_table();
    let args = [table.as_ptr() as u64, 0, 0, 0, 0];
    // SAFETY: Xen copies the table; every address in it is an entry of `entry.s`.
    unsafe { hypercall::call(xen::HYPERVISOR_SET_TRAP_TABLE, args) }.expect("xen takes the trap table");
    register(CALLBACKTYPE_EVENT, pv_event);
    register(CALLBACKTYPE_FAILSAFE, pv_failsafe);
    register(CALLBACKTYPE_SYSCALL, pv_syscall);
}

fn register(type_: u16, entry: unsafe extern "C" fn()) {
    let mut callback =
        CallbackRegister { type_, flags: CALLBACKF_MASK_EVENTS, _pad0: 0, address: entry as *const () as u64 };
    // SAFETY: the address is an entry of `entry.s`.
    let result = unsafe { hypercall::operation(xen::HYPERVISOR_CALLBACK_OP, CALLBACKOP_REGISTER, &mut callback) };
    result.expect("xen takes the callback");
}

/// Called by `entry.s` with the registers of what was interrupted.
#[unsafe(no_mangle)]
extern "C" fn pv_trap(frame: &mut TrapFrame) {
    if frame.vector == VECTOR_EVENT {
        events::dispatch();
        crate::task::scheduler::on_interrupt_end();
        if frame.from_user() {
            crate::trap::after_user_interrupt();
        }
    } else {
        let fault_addr = shared::vcpu().cr2.load(Ordering::Relaxed) as usize;
        crate::trap::on_trap(frame, fault_addr);
    }
}

/// Registers with which user mode starts.
pub(super) fn user_frame(entry: usize, stack: usize) -> TrapFrame {
    TrapFrame::for_user(entry, stack, FLAT_USER_CS, FLAT_USER_SS)
}

/// Goes on where `frame` says.
pub(super) fn enter_user(frame: &TrapFrame) -> ! {
    // SAFETY: the frame was built for user mode with flat selectors; the stack it is copied from is left behind.
    unsafe { pv_enter_frame(frame) }
}
