//! The floating-point and vector registers of user mode, in the format of `fxsave`.
//!
//! The kernel is compiled without them, so between two entries of user mode they are whatever the process left there: a
//! thread's state is saved when the CPU goes to another thread and loaded when it comes back. Nothing here is privileged,
//! so it is the same on a PC and on Xen, which does as much again for whole vCPUs. AVX is not offered to programs.
//!
//! Source: Intel SDM 1 §10.5 (the layout), AMD APM 2 §11.4.
#![cfg_attr(target_os = "none", expect(unsafe_code, reason = "moves registers to memory and back"))]

/// One thread's registers.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct FpuState([u8; 512]);

impl FpuState {
    /// What a program starts with: all exceptions masked, double-extended precision, registers zero.
    pub(crate) const INITIAL: Self = {
        let mut image = [0; 512];
        // FCW = 0x037f, MXCSR = 0x1f80.
        image[0] = 0x7f;
        image[1] = 0x03;
        image[24] = 0x80;
        image[25] = 0x1f;
        Self(image)
    };

    /// The registers as they are now.
    pub(crate) fn save(&mut self) {
        #[cfg(target_os = "none")]
        // SAFETY: 512 bytes at a multiple of 16.
        unsafe {
            core::arch::asm!("fxsave64 [{}]", in(reg) self, options(nostack, preserves_flags));
        }
    }

    /// Loads the registers.
    pub(crate) fn load(&self) {
        #[cfg(target_os = "none")]
        // SAFETY: an image that `save` wrote, or the initial one: both have no reserved bit of MXCSR. The kernel's own code
        // uses none of these registers.
        unsafe {
            core::arch::asm!("fxrstor64 [{}]", in(reg) self, options(nostack, preserves_flags));
        }
    }
}
