//! Moves between a register and memory that is none: a device's registers, as guests with hardware assistance see them.
//!
//! Source: AMD APM 3 appendix A.

use super::{Bytes, Instruction, Map, ModRm, Operand, Prefixes};

impl Instruction {
    /// Decodes a move of four bytes between memory and a register, or of a number to memory, in 64-bit mode.
    #[must_use]
    pub fn decode_move(bytes: &[u8]) -> Option<Self> {
        let mut rest = Bytes::new(bytes);
        let (prefixes, opcode) = Prefixes::parse(&mut rest, true)?;
        let four_bytes = !prefixes.operand && prefixes.rex & 8 == 0;
        let modrm = match opcode {
            0x89 | 0x8b | 0xc7 => Some(ModRm::parse(&mut rest, prefixes)?),
            // The whole address, of eight bytes or four, stands in the instruction.
            0xa1 | 0xa3 => {
                rest.signed(4)?;
                if !prefixes.address {
                    rest.signed(4)?;
                }
                None
            }
            _ => return None,
        };
        let to_register = modrm.is_some_and(|modrm| matches!(modrm.operand, Operand::Register(_)));
        let immediate = if opcode == 0xc7 { rest.signed(4)? } else { 0 };
        let other = opcode == 0xc7 && modrm.is_some_and(|modrm| modrm.register & 7 != 0);
        if !four_bytes || to_register || other || prefixes.lock || prefixes.repeats() {
            return None;
        }
        Some(Self { length: rest.at as u8, prefixes, map: Map::Primary, opcode, modrm, immediate })
    }
}
