//! General registers by number.

use crate::registers::Registers;

/// A general register by the number that instructions have for it.
#[must_use]
pub const fn get_register(registers: &Registers, number: u8) -> u64 {
    match number & 15 {
        0 => registers.rax,
        1 => registers.rcx,
        2 => registers.rdx,
        3 => registers.rbx,
        4 => registers.rsp,
        5 => registers.rbp,
        6 => registers.rsi,
        7 => registers.rdi,
        8 => registers.r8,
        9 => registers.r9,
        10 => registers.r10,
        11 => registers.r11,
        12 => registers.r12,
        13 => registers.r13,
        14 => registers.r14,
        _ => registers.r15,
    }
}

/// As [`get_register`], to be written.
#[must_use]
pub const fn register_mut(registers: &mut Registers, number: u8) -> &mut u64 {
    match number & 15 {
        0 => &mut registers.rax,
        1 => &mut registers.rcx,
        2 => &mut registers.rdx,
        3 => &mut registers.rbx,
        4 => &mut registers.rsp,
        5 => &mut registers.rbp,
        6 => &mut registers.rsi,
        7 => &mut registers.rdi,
        8 => &mut registers.r8,
        9 => &mut registers.r9,
        10 => &mut registers.r10,
        11 => &mut registers.r11,
        12 => &mut registers.r12,
        13 => &mut registers.r13,
        14 => &mut registers.r14,
        _ => &mut registers.r15,
    }
}

/// Writes 1, 2, 4 or 8 bytes of a general register as an instruction does: 4 bytes clear the upper half, fewer keep the
/// rest. With one byte and no REX prefix, numbers 4 to 7 are the second bytes of registers 0 to 3.
pub fn set_register(registers: &mut Registers, number: u8, bytes: u8, rex: bool, value: u64) {
    match bytes {
        1 if !rex && (4..8).contains(&number) => {
            let register = register_mut(registers, number - 4);
            *register = *register & !0xff00 | (value & 0xff) << 8;
        }
        1 => {
            let register = register_mut(registers, number);
            *register = *register & !0xff | value & 0xff;
        }
        2 => {
            let register = register_mut(registers, number);
            *register = *register & !0xffff | value & 0xffff;
        }
        4 => *register_mut(registers, number) = value & 0xffff_ffff,
        _ => *register_mut(registers, number) = value,
    }
}

/// Reads 1, 2, 4 or 8 bytes of a general register as an instruction does.
#[must_use]
pub const fn read_register(registers: &Registers, number: u8, bytes: u8, rex: bool) -> u64 {
    match bytes {
        1 if !rex && number >= 4 && number < 8 => get_register(registers, number - 4) >> 8 & 0xff,
        8 => get_register(registers, number),
        _ => get_register(registers, number) & ((1 << (bytes * 8)) - 1),
    }
}
