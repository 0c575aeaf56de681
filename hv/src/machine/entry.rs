//! From the entry code into the library and back.
//!
//! Every way in borrows what its CPU runs ([`Cpu::running`]), calls one function of [`hv::entry`], and leaves in the
//! frame what the guest goes on with; the entry code does the rest. After a switch of vCPUs the frame says that all
//! registers are to be restored.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use hv::domain::Running;
use hv::entry::{self, Exception, Next};
use hv::registers::{ENTRY_ASSISTED, ENTRY_FULL, Registers, flags};
use hv::traps::SystemCall;
use hv::{Hypervisor, sched};
use x86_64::registers::control::Cr2;

use super::cpu::{Cpu, SYSCALL_FRAME};
use super::hardware::Hardware;
use super::layout::{CPU_DATA, selector};
use super::smap::smap_site;
use super::{cpu, fixup, interrupts, panic, svm, vectors};

global_asm!(
    ".macro CLAC",
    smap_site!("clac"),
    ".endm",
    include_str!("entry.s"),
    GUEST_STACK = const selector::GUEST_STACK,
    GUEST_CODE64 = const selector::GUEST_CODE64,
    GUEST_CODE32 = const selector::GUEST_CODE32,
    ENTRY_FULL = const ENTRY_FULL,
    SYSCALL_TO_CPU = const SYSCALL_FRAME,
    EXCEPTION_TO_CPU = const size_of::<Registers>(),
    CPU_RAISED = const offset_of!(Cpu, raised),
    FRAME_WORDS = const size_of::<Registers>() / 8,
    HV_CODE = const selector::CODE,
    HV_STACK = const selector::STACK,
    CPU_KERNEL_MODE = const offset_of!(Cpu, kernel_mode),
    R_ENTRY_VECTOR = const offset_of!(Registers, entry_vector),
    R_RIP = const offset_of!(Registers, rip),
    R_CS = const offset_of!(Registers, cs),
    R_SS = const offset_of!(Registers, ss),
    R_RFLAGS = const offset_of!(Registers, rflags),
    R_RSP = const offset_of!(Registers, rsp),
    R_RAX = const offset_of!(Registers, rax),
    R_RDX = const offset_of!(Registers, rdx),
    R_RSI = const offset_of!(Registers, rsi),
    R_RDI = const offset_of!(Registers, rdi),
    R_R8 = const offset_of!(Registers, r8),
    R_R9 = const offset_of!(Registers, r9),
    R_R10 = const offset_of!(Registers, r10),
    R_R12 = const offset_of!(Registers, r12),
    R_R13 = const offset_of!(Registers, r13),
    R_R14 = const offset_of!(Registers, r14),
    R_R15 = const offset_of!(Registers, r15),
    R_RBX = const offset_of!(Registers, rbx),
    R_RBP = const offset_of!(Registers, rbp),
    FLAGS_GUEST = const !(flags::IOPL | flags::VM | flags::VIF | flags::VIP) & 0x7fff_ffff,
);

unsafe extern "C" {
    fn guest_iret();
    fn guest_first() -> !;
}

/// Lets the scheduler choose for the first time on this CPU, and enters the guest it chose.
pub(crate) fn enter_first_guest(hv: &'static Hypervisor<Hardware>) -> ! {
    let mut registers = Registers::default();
    switch(hv, Cpu::current(), &mut registers);
    let frame = Cpu::current().set_raised(registers);
    // SAFETY: the way out takes the frame from there; nothing on this stack is needed again.
    unsafe { asm!("jmp {}", sym guest_first, in("rax") frame, options(noreturn)) };
}

/// What runs on a CPU from which a guest entered the hypervisor.
#[expect(clippy::mut_from_ref, reason = "each way in borrows it once, and ways in do not nest")]
#[inline(always)]
fn current(cpu: &Cpu) -> (&'static Hypervisor<Hardware>, &mut Running) {
    // SAFETY: a guest runs only after `set_hv`.
    let hv = unsafe { cpu.hv().unwrap_unchecked() };
    // SAFETY: a guest entered the hypervisor, so there is one that runs.
    let running = unsafe { cpu.running().as_mut().unwrap_unchecked() };
    (hv, running)
}

/// Lets the scheduler choose, where that is next.
#[cold]
fn switch(hv: &Hypervisor<Hardware>, cpu: &Cpu, registers: &mut Registers) {
    sched::switch(hv, cpu.running(), registers);
    if registers.entry_vector == ENTRY_ASSISTED {
        svm::run_guests(registers);
    }
    registers.entry_vector = ENTRY_FULL;
}

/// A hypercall that may need no work: whether it is done and the guest goes on. Only the registers that a function may
/// change are in the frame yet.
#[unsafe(no_mangle)]
extern "C" fn immediate_entry(registers: &mut Registers, cpu: &Cpu) -> bool {
    let (hv, running) = current(cpu);
    entry::on_immediate_hypercall(hv, running, registers)
}

#[unsafe(no_mangle)]
extern "C" fn hypercall_entry(registers: &mut Registers, cpu: &Cpu) {
    // Each is a function of its own, so that `iret` does not pay for the registers and the stack that others use.
    if entry::is_iret(registers) { iret(registers, cpu) } else { other_hypercall(registers, cpu) }
}

#[inline(never)]
fn iret(registers: &mut Registers, cpu: &Cpu) {
    let (hv, running) = current(cpu);
    if entry::on_iret(hv, running, registers) != Next::Guest {
        switch(hv, cpu, registers);
    }
}

#[inline(never)]
fn other_hypercall(registers: &mut Registers, cpu: &Cpu) {
    let (hv, running) = current(cpu);
    if entry::on_other_hypercall(hv, running, registers) != Next::Guest {
        switch(hv, cpu, registers);
    }
}

#[unsafe(no_mangle)]
extern "C" fn system_call_entry(registers: &mut Registers, cpu: &Cpu) {
    let (hv, running) = current(cpu);
    if entry::on_system_call(hv, running, registers) != Next::Guest {
        switch(hv, cpu, registers);
    }
}

#[unsafe(no_mangle)]
extern "C" fn system_call32_entry(registers: &mut Registers, cpu: &Cpu) {
    other_system_call(registers, cpu, SystemCall::Syscall32);
}

#[unsafe(no_mangle)]
extern "C" fn sysenter_entry(registers: &mut Registers, cpu: &Cpu) {
    other_system_call(registers, cpu, SystemCall::Sysenter);
}

fn other_system_call(registers: &mut Registers, cpu: &Cpu, how: SystemCall) {
    let (hv, running) = current(cpu);
    if entry::on_other_system_call(hv, running, registers, how) != Next::Guest {
        switch(hv, cpu, registers);
    }
}

/// An exception in a guest, or an interrupt while it ran. The frequent ones have functions of their own, which use fewer
/// registers and less stack than one for all would.
#[unsafe(no_mangle)]
extern "C" fn guest_exception(registers: &mut Registers, cpu: &Cpu) {
    match registers.entry_vector as u8 {
        6 => invalid_opcode(registers, cpu),
        13 => exception::<13>(registers, cpu),
        14 => exception::<14>(registers, cpu),
        2 => {}
        vector if vector < 32 => exception::<ANY>(registers, cpu),
        vector => interrupt(registers, cpu, vector),
    }
}

#[inline(always)]
fn invalid_opcode(registers: &mut Registers, cpu: &Cpu) {
    let (hv, _) = current(cpu);
    if entry::may_be_forced(hv, registers) { forced_emulation(registers, cpu) } else { no_opcode(registers, cpu) }
}

#[inline(never)]
fn forced_emulation(registers: &mut Registers, cpu: &Cpu) {
    let (hv, running) = current(cpu);
    if entry::on_forced_emulation(hv, running, registers) != Next::Guest {
        switch(hv, cpu, registers);
    }
}

#[inline(never)]
fn no_opcode(registers: &mut Registers, cpu: &Cpu) {
    let (hv, running) = current(cpu);
    if entry::on_invalid_opcode(hv, running, registers) != Next::Guest {
        switch(hv, cpu, registers);
    }
}

/// Stands for every vector that has no function of its own.
const ANY: u8 = 0xff;

#[inline(never)]
fn exception<const VECTOR: u8>(registers: &mut Registers, cpu: &Cpu) {
    let (hv, running) = current(cpu);
    let vector = if VECTOR == ANY { registers.entry_vector as u8 } else { VECTOR };
    let address = if vector == 14 { Cr2::read_raw() } else { 0 };
    let exception = Exception { vector, error_code: registers.error_code, address };
    if entry::on_exception(hv, running, registers, exception) != Next::Guest {
        switch(hv, cpu, registers);
    }
}

#[inline(never)]
fn interrupt(registers: &mut Registers, cpu: &Cpu, vector: u8) {
    let (hv, running) = current(cpu);
    interrupts::handle(hv, vector);
    if entry::before_return(hv, running, registers) != Next::Guest {
        switch(hv, cpu, registers);
    }
}

/// An exception in the hypervisor, or an interrupt while it waits.
///
/// Gives null where the interrupted code goes on; else the frame of the guest whose fault it was after all, in the CPU's
/// data. (On the stack it would lie where this function's caller does.)
#[unsafe(no_mangle)]
extern "C" fn hypervisor_exception(registers: &mut Registers) -> *mut Registers {
    let vector = registers.entry_vector as u8;
    if vector >= 32 {
        if let Some(hv) = Cpu::current().hv() {
            interrupts::handle(hv, vector);
        }
        return core::ptr::null_mut();
    }
    if let Some(target) = fixup::find(registers.rip) {
        registers.rip = target;
        return core::ptr::null_mut();
    }
    if registers.rip == guest_iret as *const () as u64 {
        return failed_return(registers, vector);
    }
    panic::exception(registers)
}

/// The `iretq` to a guest faulted: its local descriptor table was not mapped yet, or what it returns to is bad. In the
/// first case try again, in the second the fault is the guest's, at the place it was to go to.
fn failed_return(registers: &Registers, vector: u8) -> *mut Registers {
    let (hv, running) = current(Cpu::current());
    if vector == 14 && super::context::on_window_fault(hv, running, Cr2::read_raw()) {
        return core::ptr::null_mut();
    }
    // SAFETY: the interrupted `iretq` was about to pop these five words from this stack.
    let [rip, cs, rflags, rsp, ss] = unsafe { (registers.rsp as *const [u64; 5]).read() };
    Cpu::current().set_raised(Registers { rip, cs, rflags, rsp, ss, ..*registers })
}

/// Debug exception, non-maskable interrupt, double fault or machine check, each on a stack of its own.
///
/// Gives what [`hypervisor_exception`] gives.
#[unsafe(no_mangle)]
extern "C" fn special_exception_entry(registers: &mut Registers) -> *mut Registers {
    let from_guest = registers.cs & 3 != 0;
    match registers.entry_vector {
        1 if from_guest => Cpu::current().set_raised(*registers),
        1 => {
            // A guest's watchpoint on memory that the hypervisor reads for it, or its single step over `syscall`.
            registers.rflags &= !flags::TF;
            core::ptr::null_mut()
        }
        2 => {
            interrupts::on_nmi();
            // Back to a guest only by the way that may fault: what its selectors name may be gone.
            if from_guest { Cpu::current().set_raised(*registers) } else { core::ptr::null_mut() }
        }
        _ => panic::exception(registers),
    }
}

const _: () = assert!(CPU_DATA.is_multiple_of(16) && vectors::FIRST_LINE >= 32);
const _: () = assert!(cpu::SYSCALL_FRAME == 176);
