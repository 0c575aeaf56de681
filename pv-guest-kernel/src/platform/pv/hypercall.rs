//! The `syscall` instruction into Xen, counted; with hardware assistance, the stubs that the hypervisor wrote.
//!
//! Everything this kernel asks of Xen passes [`call`], so the counters ([`counts`]) are complete: `top` in the demo shell
//! shows them.
//!
//! Calling convention (Xen `public/arch-x86/xen-x86_64.h`): number in rax, arguments in rdi, rsi, rdx, r10, r8, result in
//! rax; rcx, r11 and the argument registers may come back changed.
#![expect(unsafe_code, reason = "a hypercall may read and write any memory")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pv_abi::errno::Errno;
use pv_abi::xen;

/// Hypercall numbers are below this.
pub const NUMBERS: usize = 64;

/// Where the hypervisor wrote its stubs, for a domain with hardware assistance; 0 in a PV domain.
static STUBS: AtomicUsize = AtomicUsize::new(0);
/// Bytes of a stub.
const STUB_BYTES: usize = 32;

/// Hypercalls go through the stubs in this page from now on.
pub(in crate::platform) fn use_stubs(page: usize) {
    STUBS.store(page, Ordering::Relaxed);
}

/// Known by name to whoever looks from outside: a hypercall is counted here just before it is made.
#[unsafe(no_mangle)]
static pv_hypercall_counts: [AtomicU64; NUMBERS] = [const { AtomicU64::new(0) }; NUMBERS];

unsafe extern "C" {
    /// Counted by `entry.s`: the one hypercall that does not pass [`raw`].
    static pv_iret_count: AtomicU64;
}

/// How often each hypercall was made, by number.
#[must_use]
pub fn counts() -> [u64; NUMBERS] {
    // SAFETY: a word of the image that is only counted up.
    let irets = unsafe { &pv_iret_count }.load(Ordering::Relaxed);
    core::array::from_fn(|number| match number as u64 {
        xen::HYPERVISOR_IRET => irets,
        _ => pv_hypercall_counts[number].load(Ordering::Relaxed),
    })
}

/// The name of a hypercall, for the counters.
#[must_use]
pub fn name(number: usize) -> &'static str {
    const NAMES: &[(u64, &str)] = &[
        (xen::HYPERVISOR_SET_TRAP_TABLE, "set_trap_table"),
        (xen::HYPERVISOR_MMU_UPDATE, "mmu_update"),
        (xen::HYPERVISOR_STACK_SWITCH, "stack_switch"),
        (xen::HYPERVISOR_PLATFORM_OP, "platform_op"),
        (xen::HYPERVISOR_MEMORY_OP, "memory_op"),
        (xen::HYPERVISOR_MULTICALL, "multicall"),
        (xen::HYPERVISOR_UPDATE_VA_MAPPING, "update_va_mapping"),
        (xen::HYPERVISOR_SET_TIMER_OP, "set_timer_op"),
        (xen::HYPERVISOR_XEN_VERSION, "xen_version"),
        (xen::HYPERVISOR_CONSOLE_IO, "console_io"),
        (xen::HYPERVISOR_GRANT_TABLE_OP, "grant_table_op"),
        (xen::HYPERVISOR_VM_ASSIST, "vm_assist"),
        (xen::HYPERVISOR_IRET, "iret"),
        (xen::HYPERVISOR_VCPU_OP, "vcpu_op"),
        (xen::HYPERVISOR_SET_SEGMENT_BASE, "set_segment_base"),
        (xen::HYPERVISOR_MMUEXT_OP, "mmuext_op"),
        (xen::HYPERVISOR_SCHED_OP, "sched_op"),
        (xen::HYPERVISOR_CALLBACK_OP, "callback_op"),
        (xen::HYPERVISOR_EVENT_CHANNEL_OP, "event_channel_op"),
        (xen::HYPERVISOR_PHYSDEV_OP, "physdev_op"),
        (xen::HYPERVISOR_SYSCTL, "sysctl"),
        (xen::HYPERVISOR_DOMCTL, "domctl"),
    ];
    let row = NAMES.iter().find(|(nr, _)| *nr == number as u64);
    row.map_or("other", |(_, name)| name)
}

/// Makes a hypercall; returns what Xen left in rax.
///
/// # Safety
/// The operation must not change memory or mappings that Rust relies on; addresses in the arguments must be valid for what
/// the operation does with them.
#[inline]
pub unsafe fn raw(number: u64, args: [u64; 5]) -> i64 {
    pv_hypercall_counts[number as usize % NUMBERS].fetch_add(1, Ordering::Relaxed);
    let stubs = STUBS.load(Ordering::Relaxed);
    if stubs != 0 {
        // SAFETY: the caller's promise.
        return unsafe { by_stub(stubs + number as usize * STUB_BYTES, args) };
    }
    let [a1, a2, a3, a4, a5] = args;
    let result: i64;
    // SAFETY: the convention above; the caller answers for the operation.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            inlateout("rdi") a1 => _,
            inlateout("rsi") a2 => _,
            inlateout("rdx") a3 => _,
            inlateout("r10") a4 => _,
            inlateout("r8") a5 => _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Makes the hypercall of a stub.
///
/// # Safety
/// As [`raw`]; `stub` is one of the hypervisor's.
#[inline(never)]
unsafe fn by_stub(stub: usize, args: [u64; 5]) -> i64 {
    let [a1, a2, a3, a4, a5] = args;
    let result: i64;
    // SAFETY: the stub has the convention above, loads the number, and returns.
    unsafe {
        asm!(
            "call {stub}",
            stub = in(reg) stub,
            lateout("rax") result,
            inlateout("rdi") a1 => _,
            inlateout("rsi") a2 => _,
            inlateout("rdx") a3 => _,
            inlateout("r10") a4 => _,
            inlateout("r8") a5 => _,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// Xen's version, major << 16 | minor: the hypercall that does least.
#[must_use]
pub fn version() -> u64 {
    // SAFETY: asks for the version; no memory is involved.
    (unsafe { raw(xen::HYPERVISOR_XEN_VERSION, [0; 5]) }) as u64
}

/// As [`raw`], with the errno taken apart.
///
/// # Safety
/// As [`raw`].
///
/// # Errors
/// The errno Xen returned.
#[inline]
pub unsafe fn call(number: u64, args: [u64; 5]) -> Result<u64, Errno> {
    // SAFETY: the caller's promise.
    result(unsafe { raw(number, args) })
}

/// A sub-operation whose argument is one struct that Xen reads and may write.
///
/// # Safety
/// As [`raw`]; `argument` must be the struct of this operation.
///
/// # Errors
/// The errno Xen returned.
pub unsafe fn operation<T>(number: u64, command: u32, argument: &mut T) -> Result<u64, Errno> {
    let args = [u64::from(command), core::ptr::from_mut(argument) as u64, 0, 0, 0];
    // SAFETY: the caller's promise.
    unsafe { call(number, args) }
}

/// Splits a hypercall's result into value and errno.
///
/// # Errors
/// For a negative result.
pub fn result(value: i64) -> Result<u64, Errno> {
    match u64::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => Err(i32::try_from(-value).ok().and_then(Errno::from_raw).unwrap_or(Errno::Io)),
    }
}
