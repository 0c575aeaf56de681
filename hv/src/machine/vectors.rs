//! The interrupt descriptor table, the system-call registers, and which vector is what.
//!
//! Source: AMD APM 2 §6.1, §8.2, §8.9; Xen: public/arch-x86/xen-x86_64.h (selectors).

use core::cell::UnsafeCell;

use x86_64::VirtAddr;
use x86_64::structures::DescriptorTablePointer;

use super::layout::{CPU_DATA, interrupt_stack_top, selector};

/// First vector of the interrupt lines: a line's vector is this plus its number.
pub(crate) const FIRST_LINE: u8 = 0x40;
/// How many lines have a vector.
pub(crate) const LINES: u32 = 48;
/// First vector of the message-signalled interrupts: a slot's vector is this plus its number.
pub(crate) const FIRST_MESSAGE: u8 = 0x70;
/// How many messages have a vector.
pub(crate) const MESSAGES: u32 = 46;
/// The local APIC's timer.
pub(crate) const TIMER: u8 = 0x9e;
/// Another CPU asks to look at what is due.
pub(crate) const KICK: u8 = 0x9f;
/// What the local APIC raises when an interrupt went away.
pub(crate) const SPURIOUS: u8 = 0xff;

/// Bytes of one row of entry code.
const ROW: u64 = 16;

#[repr(C, align(16))]
struct Gates(UnsafeCell<[[u64; 2]; 256]>);
// SAFETY: written once, by the boot CPU before it loads it; read by CPUs only.
unsafe impl Sync for Gates {}
static GATES: Gates = Gates(UnsafeCell::new([[0; 2]; 256]));

/// Which interrupt stack an exception uses; 0 for the one of the CPU's main work.
const fn stack_of(vector: usize) -> u64 {
    match vector {
        2 => 1,
        8 => 2,
        18 => 3,
        1 => 4,
        _ => 0,
    }
}

/// Guests may raise breakpoint and overflow by instruction; every other `int` faults and the library decides.
const fn privilege_of(vector: usize) -> u64 {
    if vector == 3 || vector == 4 { 3 } else { 0 }
}

fn gate(vector: usize, entry: u64) -> [u64; 2] {
    let attributes = 0x8e00 | privilege_of(vector) << 13 | stack_of(vector);
    let low = entry & 0xffff | u64::from(selector::CODE) << 16 | attributes << 32 | (entry >> 16 & 0xffff) << 48;
    [low, entry >> 32]
}

/// Makes the table of gates; once.
pub(crate) fn prepare() {
    unsafe extern "C" {
        fn exception_rows();
    }
    let rows = exception_rows as *const () as u64;
    for vector in 0..256 {
        let place = GATES.0.get().cast::<[u64; 2]>();
        // SAFETY: one of the table's 256 gates.
        let place = unsafe { place.add(vector) };
        // SAFETY: only the boot CPU runs, and it has not loaded the table yet.
        unsafe { place.write(gate(vector, rows + vector as u64 * ROW)) };
    }
}

/// Loads the gates and the system-call registers; `stubs` is where this CPU's two stubs lie, `stub` bytes each.
pub(crate) fn load(stubs: u64, stub: u64) {
    unsafe extern "C" {
        fn entry_sysenter();
    }
    let pointer = DescriptorTablePointer { limit: 256 * 16 - 1, base: VirtAddr::new(GATES.0.get() as u64) };
    // SAFETY: `prepare` filled the table, which is never given up.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
    let block = stubs & !(super::layout::CPU_BLOCK - 1);
    let star = u64::from(selector::GUEST_CODE32) << 48 | u64::from(selector::CODE) << 32;
    let registers = [
        (msr::STAR, star),
        (msr::LSTAR, stubs),
        (msr::CSTAR, stubs + stub),
        (msr::SYSCALL_MASK, MASKED_FLAGS),
        (msr::SYSENTER_CS, u64::from(selector::CODE)),
        (msr::SYSENTER_ESP, block + CPU_DATA - 8),
        (msr::SYSENTER_EIP, entry_sysenter as *const () as u64),
    ];
    for (register, value) in registers {
        // A CPU without `sysenter` does without.
        let _ = super::fixup::write_msr(register, value);
    }
    debug_assert!(interrupt_stack_top(1) < CPU_DATA);
}

/// Flags that `syscall` turns off: all but the arithmetic ones.
const MASKED_FLAGS: u64 = 0x0027_7f00 & !(1 << 11);

/// Model-specific registers (AMD APM 2 appendix A).
pub(crate) mod msr {
    pub(crate) const APIC_BASE: u32 = 0x1b;
    pub(crate) const SYSENTER_CS: u32 = 0x174;
    pub(crate) const SYSENTER_ESP: u32 = 0x175;
    pub(crate) const SYSENTER_EIP: u32 = 0x176;
    pub(crate) const PAT: u32 = 0x277;
    pub(crate) const TSC_DEADLINE: u32 = 0x6e0;
    pub(crate) const X2APIC: u32 = 0x800;
    pub(crate) const EFER: u32 = 0xc000_0080;
    pub(crate) const STAR: u32 = 0xc000_0081;
    pub(crate) const LSTAR: u32 = 0xc000_0082;
    pub(crate) const CSTAR: u32 = 0xc000_0083;
    pub(crate) const SYSCALL_MASK: u32 = 0xc000_0084;
    pub(crate) const FS_BASE: u32 = 0xc000_0100;
    pub(crate) const GS_BASE: u32 = 0xc000_0101;
    pub(crate) const KERNEL_GS_BASE: u32 = 0xc000_0102;
}
