//! Debug registers.
//!
//! Source: AMD APM 2 §13.1.1.

use core::arch::asm;

/// DR7 with nothing armed.
pub(crate) const DR7_OFF: u64 = 0x400;

/// Reads debug register `index` (0–3, 6, 7).
pub(crate) fn read(index: usize) -> u64 {
    let value: u64;
    macro_rules! get {
        ($name:literal) => {
            // SAFETY: reads a register.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) }
        };
    }
    match index {
        0 => get!("dr0"),
        1 => get!("dr1"),
        2 => get!("dr2"),
        3 => get!("dr3"),
        6 => get!("dr6"),
        _ => get!("dr7"),
    }
    value
}

/// Writes debug register `index` (0–3, 6, 7).
pub(crate) fn write(index: usize, value: u64) {
    macro_rules! set {
        ($name:literal) => {
            // SAFETY: the library lets a guest watch no address of the hypervisor, and no reserved bit pass.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nomem, nostack, preserves_flags)) }
        };
    }
    match index {
        0 => set!("dr0"),
        1 => set!("dr1"),
        2 => set!("dr2"),
        3 => set!("dr3"),
        6 => set!("dr6"),
        _ => set!("dr7"),
    }
}
