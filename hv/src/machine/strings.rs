//! How fast the CPU's string instructions are.
//!
//! Two features of CPUID (ERMS, FSRM) tell kernels to copy by single bytes, as the CPU turns that into something better.
//! Emulators show the features and step from byte to byte all the same, which takes several times what words take. So it
//! is measured, once, and [`crate::machine::hardware::Hardware`] shows guests what is true.
//!
//! Source: Intel SDM 1 §7.3.9.3, Intel optimization manual §3.7.6.

use alloc::vec;
use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use core::hint::black_box;

use log::info;

/// Bytes of one copy.
const BYTES: usize = 2048;
/// Copies, of which the fastest counts: an interrupt of the machine below must not decide.
const ROUNDS: usize = 16;
/// A CPU that has the features takes about the same for both.
const MOST: u64 = 3;

/// Whether copying by single bytes takes about what copying by words does.
pub(crate) fn bytes_are_as_fast_as_words() -> bool {
    let from = vec![0_u8; BYTES];
    let mut to = vec![0_u8; BYTES];
    let bytes = fastest(|| {
        // SAFETY: both buffers have as many bytes.
        unsafe {
            asm!("rep movsb", inout("rcx") BYTES => _, inout("rdi") to.as_mut_ptr() => _, inout("rsi") from.as_ptr() => _,
                options(nostack, preserves_flags));
        }
    });
    let words = fastest(|| {
        // SAFETY: as above, in words of eight bytes.
        unsafe {
            asm!("rep movsq", inout("rcx") BYTES / 8 => _, inout("rdi") to.as_mut_ptr() => _, inout("rsi") from.as_ptr() => _,
                options(nostack, preserves_flags));
        }
    });
    info!("2 KiB are copied in {bytes} ticks by bytes, {words} by words");
    bytes <= words * MOST
}

#[inline(never)]
fn fastest(mut copy: impl FnMut()) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..black_box(ROUNDS) {
        // SAFETY: every CPU in 64-bit mode has the counter.
        let start = unsafe { _rdtsc() };
        copy();
        // SAFETY: as above.
        least = least.min(unsafe { _rdtsc() }.wrapping_sub(start));
    }
    least
}
