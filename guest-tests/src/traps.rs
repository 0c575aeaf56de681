//! Traps: where they go, and code that may raise them.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use pv_abi::arch::TrapInfo;
use pv_abi::callback::{CALLBACKOP_REGISTER, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_SYSCALL};
use pv_abi::xen::{HYPERVISOR_CALLBACK_OP, HYPERVISOR_SET_TRAP_TABLE};

use crate::vcpus::{MAX_VCPUS, this_vcpu};
use crate::{hypercall, say, shutdown};

/// The code selector of a 64-bit guest kernel.
const KERNEL_CS: u16 = 0xe033;
/// Bytes from one stub to the next.
const STUB_BYTES: u64 = 32;

unsafe extern "C" {
    static trap_stubs: u8;
    static event_callback: u8;
    static failsafe_callback: u8;
    static syscall_callback: u8;
    static int80_stub: u8;
    static skip_ud2: u8;
}

/// The registers at a trap, as the stubs push them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "a register's name is its documentation")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error_code: u64,
    pub rcx: u64,
    pub r11: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// A trap that was expected and came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// The vector.
    pub vector: u64,
    /// The error code.
    pub error_code: u64,
}

struct Shared<T>(UnsafeCell<T>);
// SAFETY: A vCPU uses its own part of what is one a vCPU, and the first alone the rest; traps are the only thing that
// interrupts it.
unsafe impl<T> Sync for Shared<T> {}

/// Where each vCPU goes on after an expected trap, or zero.
static RECOVERY: [AtomicU64; MAX_VCPUS] = [const { AtomicU64::new(0) }; MAX_VCPUS];
static LAST: [Shared<TrapFrame>; MAX_VCPUS] = [const { Shared(UnsafeCell::new(ZERO_FRAME)) }; MAX_VCPUS];
/// What a test does with a trap; it says whether it dealt with it.
pub type Hook = fn(&mut TrapFrame) -> bool;

static HOOK: Shared<Option<Hook>> = Shared(UnsafeCell::new(None));
/// The address of the first vCPU's `evtchn_upcall_pending`, once the shared page is mapped; its event callback clears it.
pub(crate) static UPCALL_PENDING: AtomicU64 = AtomicU64::new(0);
/// How often the event callback was entered.
pub static UPCALLS: AtomicU64 = AtomicU64::new(0);

const ZERO_FRAME: TrapFrame = TrapFrame {
    r15: 0,
    r14: 0,
    r13: 0,
    r12: 0,
    r10: 0,
    r9: 0,
    r8: 0,
    rbp: 0,
    rdi: 0,
    rsi: 0,
    rdx: 0,
    rbx: 0,
    rax: 0,
    vector: 0,
    error_code: 0,
    rcx: 0,
    r11: 0,
    rip: 0,
    cs: 0,
    rflags: 0,
    rsp: 0,
    ss: 0,
};

fn stub(vector: u8) -> u64 {
    &raw const trap_stubs as u64 + u64::from(vector) * STUB_BYTES
}

/// A trap-table entry.
#[must_use]
pub fn gate(vector: u8, dpl: u8, address: u64) -> TrapInfo {
    TrapInfo { vector, flags: dpl, cs: KERNEL_CS, address, ..TrapInfo::default() }
}

/// Registers handlers for all exceptions, `int 0x80`, events and system calls.
pub fn install_traps() {
    let mut table = [TrapInfo::default(); 34];
    for vector in 0..32_u8 {
        let dpl = if vector == 3 || vector == 4 { 3 } else { 0 };
        table[usize::from(vector)] = gate(vector, dpl, stub(vector));
    }
    table[32] = gate(0x80, 3, &raw const int80_stub as u64);
    set_trap_table(&table);
    register(CALLBACKTYPE_EVENT, &raw const event_callback as u64);
    register(CALLBACKTYPE_FAILSAFE, &raw const failsafe_callback as u64);
    register(CALLBACKTYPE_SYSCALL, &raw const syscall_callback as u64);
}

/// `set_trap_table`; the last entry must be zero.
pub fn set_trap_table(table: &[TrapInfo]) -> i64 {
    hypercall(HYPERVISOR_SET_TRAP_TABLE, [table.as_ptr() as u64, 0, 0, 0, 0])
}

/// `CALLBACKOP_register`.
pub fn register(kind: u16, address: u64) -> i64 {
    let callback = pv_abi::callback::CallbackRegister { type_: kind, address, ..Default::default() };
    hypercall(HYPERVISOR_CALLBACK_OP, [u64::from(CALLBACKOP_REGISTER), &raw const callback as u64, 0, 0, 0])
}

/// Sends #UD to the shortest handler there is, which skips a `ud2`.
pub fn skip_invalid_opcodes() {
    set_trap_table(&[gate(6, 0, &raw const skip_ud2 as u64), TrapInfo::default()]);
}

/// Calls `hook` at each trap that [`attempt`] does not expect; it returns whether it dealt with it.
pub fn on_trap(hook: Hook) {
    // SAFETY: One vCPU, and no trap reads the hook while it changes.
    unsafe { *HOOK.0.get() = Some(hook) };
}

#[unsafe(no_mangle)]
extern "C" fn guest_trap(frame: &mut TrapFrame) {
    if frame.vector == 256 {
        UPCALLS.fetch_add(1, Ordering::Relaxed);
        let pending = UPCALL_PENDING.load(Ordering::Relaxed);
        if pending != 0 && this_vcpu() == 0 {
            // SAFETY: The address is that of a byte of the mapped shared page, which the hypervisor writes too.
            unsafe { AtomicU8::from_ptr(pending as *mut u8) }.store(0, Ordering::SeqCst);
        }
    }
    // SAFETY: One vCPU; the hook is not changed by a trap.
    let hook = unsafe { *HOOK.0.get() };
    if hook.is_some_and(|hook| hook(frame)) {
        return;
    }
    let recovery = RECOVERY[this_vcpu()].swap(0, Ordering::Relaxed);
    if recovery != 0 && frame.vector != 256 {
        // SAFETY: It is this vCPU's own, which reads it later.
        unsafe { *LAST[this_vcpu()].0.get() = *frame };
        frame.rip = recovery;
    } else if frame.vector != 256 {
        say!("guest-test: no trap: FAILED vector {} error {:#x} rip {:#x}", frame.vector, frame.error_code, frame.rip);
        say!("guest-test: done");
        shutdown();
    }
}

/// The frame of the last expected trap.
#[must_use]
pub fn last_trap() -> TrapFrame {
    // SAFETY: It is this vCPU's own, which handles no trap now.
    unsafe { *LAST[this_vcpu()].0.get() }
}

#[doc(hidden)]
#[must_use]
pub fn disarm() -> Option<Trap> {
    if RECOVERY[this_vcpu()].swap(0, Ordering::Relaxed) != 0 {
        return None;
    }
    let frame = last_trap();
    Some(Trap { vector: frame.vector, error_code: frame.error_code })
}

/// Runs instructions that may trap; gives the trap, or none. Operands as in `asm!`, after the instructions.
#[macro_export]
macro_rules! attempt {
    ($($instruction:literal),+ $(; $($operand:tt)*)?) => {{
        // SAFETY: The recovery address is the end of this block; the instructions are what is tested.
        #[allow(unsafe_code, clippy::macro_metavars_in_unsafe, reason = "instructions that may trap are what is tested")]
        unsafe {
            core::arch::asm!(
                "lea {scratch}, [rip + 2f]",
                "mov [{place}], {scratch}",
                $($instruction,)+
                "2:",
                scratch = out(reg) _,
                place = in(reg) $crate::recovery_place(),
                $($($operand)*)?
            );
        }
        $crate::disarm()
    }};
}

#[doc(hidden)]
#[must_use]
pub fn recovery_place() -> *mut u64 {
    RECOVERY[this_vcpu()].as_ptr()
}

/// Reads 8 bytes at any address; the trap where that is not allowed.
///
/// # Errors
/// The trap that it raised.
pub fn read_at(address: u64) -> Result<u64, Trap> {
    let mut value = 0_u64;
    let trap =
        attempt!("mov {value}, [{address}]"; value = inout(reg) value, address = in(reg) address, options(nostack));
    trap.map_or(Ok(value), Err)
}

/// Writes 8 bytes at any address; the trap where that is not allowed.
///
/// # Errors
/// The trap that it raised.
pub fn write_at(address: u64, value: u64) -> Result<(), Trap> {
    attempt!("mov [{address}], {value}"; value = in(reg) value, address = in(reg) address, options(nostack))
        .map_or(Ok(()), Err)
}

/// The address of the first trap's way in, for callbacks that are never entered.
#[must_use]
pub fn start_of_trap_stubs() -> u64 {
    stub(0)
}

/// The address of the way in of `int 0x80`.
#[must_use]
pub fn int80_handler() -> u64 {
    &raw const int80_stub as u64
}
