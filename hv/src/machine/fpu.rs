//! The floating-point state of a vCPU, whole, whenever the CPU changes vCPUs.
//!
//! Never lazily: what one guest left in a register must not be there when another runs, not even for a guess of the CPU
//! (Xen: XSA-267). The hypervisor itself uses no such register.
//!
//! Source: AMD APM 2 §11.5 (XSAVE), APM 4 (`fxsave`).

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU64, Ordering};

use hv::domain::{FPU_AREA_BYTES, FpuArea};
use x86_64::registers::control::{Cr4, Cr4Flags};

use super::cpu::Cpu;
use super::fixup::fixup;

/// Features whose state a guest may have: x87, SSE, AVX, AVX-512.
const ALLOWED: u64 = 0xe7;

/// Features of this machine; 0 where it has no XSAVE.
static FEATURES: AtomicU64 = AtomicU64::new(0);

/// Finds out what this CPU has and turns it on.
pub(crate) fn start() {
    let leaf1 = __cpuid_count(1, 0);
    if leaf1.ecx & 1 << 26 == 0 {
        return;
    }
    // SAFETY: the CPU has XSAVE; nothing of the hypervisor depends on it.
    unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE)) };
    let leaf = __cpuid_count(13, 0);
    let features = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & ALLOWED;
    FEATURES.store(features, Ordering::Relaxed);
    set_xcr0(features);
}

/// Features of this machine that guests may use; 0 where it has no XSAVE.
pub(crate) fn features() -> u64 {
    FEATURES.load(Ordering::Relaxed)
}

/// Loads XCR0.
pub(crate) fn set_xcr0(value: u64) {
    let cpu = Cpu::current();
    if features() == 0 || cpu.xcr0.get() == value {
        return;
    }
    // SAFETY: callers give a subset of `features` with x87 in it.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, nomem));
    }
    cpu.xcr0.set(value);
}

/// Bytes of the state of the features in `xcr0`, or of all of this machine where that is 0.
pub(crate) fn size(xcr0: u64) -> usize {
    const LEGACY: usize = 512 + 64;
    let wanted = if xcr0 == 0 { features() } else { xcr0 };
    (2..63)
        .filter(|feature| wanted & 1 << feature != 0)
        .map(|feature| {
            let leaf = __cpuid_count(13, feature);
            (leaf.eax + leaf.ebx) as usize
        })
        .fold(LEGACY, usize::max)
        .min(FPU_AREA_BYTES)
}

/// Saves the state of the vCPU that ran.
pub(crate) fn save(area: &mut FpuArea) {
    let place = area.0.as_mut_ptr();
    // SAFETY: CR0.TS belongs to the vCPU whose state is loaded next.
    unsafe { asm!("clts", options(nostack, nomem)) };
    if features() == 0 {
        // SAFETY: the area is aligned and larger than 512 bytes.
        unsafe { asm!("fxsave64 [{}]", in(reg) place, options(nostack)) };
        return;
    }
    set_xcr0(features());
    // SAFETY: the area is aligned and holds all allowed features' state (`FpuArea`).
    unsafe { asm!("xsave64 [{}]", in(reg) place, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack)) };
}

/// Loads the state of the vCPU that is to run; state that the CPU refuses is replaced by that after reset.
pub(crate) fn load(area: &mut FpuArea, xcr0: u64) {
    // SAFETY: CR0.TS is set afterwards where the vCPU wants it.
    unsafe { asm!("clts", options(nostack, nomem)) };
    set_xcr0(features());
    if !restore(area) {
        *area = FpuArea::default();
        restore(area);
    }
    set_xcr0(xcr0 & features());
}

fn restore(area: &FpuArea) -> bool {
    let place = area.0.as_ptr();
    let refused: u32;
    if features() == 0 {
        // SAFETY: the area is aligned and larger than 512 bytes; a refusal has a fixup.
        unsafe {
            asm!("2: fxrstor64 [{}]", "xor {refused:e}, {refused:e}", "3:", fixup!("2b", "3b"), in(reg) place,
                refused = inout(reg) 1_u32 => refused, options(nostack));
        }
    } else {
        // SAFETY: the area is aligned and holds all allowed features' state (`FpuArea`); a refusal has a fixup.
        unsafe {
            asm!("2: xrstor64 [{}]", "xor {refused:e}, {refused:e}", "3:", fixup!("2b", "3b"), in(reg) place,
                refused = inout(reg) 1_u32 => refused, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
        }
    }
    refused == 0
}
