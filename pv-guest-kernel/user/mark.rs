//! The borders of a measured window: two instructions that do nothing, by which whoever watches the machine from outside
//! knows it. Included by the kernel and by user programs.

use core::arch::asm;

/// `nop dword ptr [rax + rax + NUMBER]`: no compiler emits these displacements.
const BEGIN: u32 = 0x584e_0100;
const END: u32 = 0x584e_0200;

/// The window `WINDOW` starts.
#[inline(always)]
pub fn begin<const WINDOW: u8>() {
    // SAFETY: a `nop` does nothing. It is a border for the compiler too: what is measured stays between the two.
    unsafe { asm!("nop dword ptr [rax + rax + {}]", const BEGIN + WINDOW as u32, options(nostack, preserves_flags)) }
}

/// The window `WINDOW` ends.
#[inline(always)]
pub fn end<const WINDOW: u8>() {
    // SAFETY: as above.
    unsafe { asm!("nop dword ptr [rax + rax + {}]", const END + WINDOW as u32, options(nostack, preserves_flags)) }
}
