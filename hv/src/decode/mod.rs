//! A small decoder for the instructions that the hypervisor carries out for guests.
//!
//! [`Instruction::decode`] parses prefixes, opcode, ModRM, SIB, displacement and immediate of the one- and two-byte
//! opcodes that write to memory in 64-bit mode, and refuses all others; [`privileged`] parses those that raise #GP in
//! ring 3. What an instruction does is decided where it is carried out ([`crate::paging`], [`crate::traps`]). Bytes come
//! from the guest once, in a buffer; nothing here reads memory. Source: AMD APM 3 §1 and appendix A.

pub mod moves;
mod operand;
pub mod privileged;

pub use operand::{get_register, read_register, register_mut, set_register};

use crate::registers::Registers;

/// The longest instruction in bytes.
pub const LONGEST: usize = 15;

/// A segment register that an address is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the architecture's names")]
pub enum Segment {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

/// Prefixes of an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// `66`: 16-bit operands.
    pub operand: bool,
    /// `67`: shorter addresses.
    pub address: bool,
    /// `f0`.
    pub lock: bool,
    /// `f3`.
    pub repeat: bool,
    /// `f2`.
    pub repeat_not_equal: bool,
    /// `40`–`4f` before the opcode, or 0.
    pub rex: u8,
    /// A segment that replaces the usual one.
    pub segment: Option<Segment>,
}

/// Where the table of an opcode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// One byte.
    Primary,
    /// `0f` and one byte.
    Secondary,
}

/// A memory operand: what its address is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Number of the base register.
    pub base: Option<u8>,
    /// Number of the index register, and its factor as a power of two.
    pub index: Option<(u8, u8)>,
    /// Sign-extended.
    pub displacement: i64,
    /// Relative to the next instruction.
    pub rip_relative: bool,
}

/// The operand that ModRM names besides the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A register, by number.
    Register(u8),
    /// Memory.
    Memory(Memory),
}

/// A ModRM byte with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModRm {
    /// The register field, extended by REX.R; or the opcode extension in its low three bits.
    pub register: u8,
    /// The other operand.
    pub operand: Operand,
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes in all.
    pub length: u8,
    /// Its prefixes.
    pub prefixes: Prefixes,
    /// Which table the opcode is of.
    pub map: Map,
    /// The opcode.
    pub opcode: u8,
    /// Its operands, where it has a ModRM byte.
    pub modrm: Option<ModRm>,
    /// Its immediate operand, sign-extended; 0 where it has none.
    pub immediate: i64,
}

/// What follows an opcode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    ModRm,
    ModRmImm8,
    /// Immediate of the operand's size, at most 4 bytes.
    ModRmImm,
    /// ModRM; an 8-bit immediate where its register field is 0 or 1.
    ModRmTest8,
    /// ModRM; an immediate where its register field is 0 or 1.
    ModRmTest,
}

const fn shape(map: Map, opcode: u8) -> Option<Shape> {
    Some(match (map, opcode) {
        (Map::Primary, 0x00..=0x37) if opcode & 7 < 2 => Shape::ModRm,
        (Map::Primary, 0x86..=0x89 | 0xfe | 0xff) => Shape::ModRm,
        (Map::Primary, 0x80 | 0x83 | 0xc6) => Shape::ModRmImm8,
        (Map::Primary, 0x81 | 0xc7) => Shape::ModRmImm,
        (Map::Primary, 0xf6) => Shape::ModRmTest8,
        (Map::Primary, 0xf7) => Shape::ModRmTest,
        (Map::Primary, 0xa4 | 0xa5 | 0xaa | 0xab) => Shape::Plain,
        (Map::Secondary, 0xab | 0xb3 | 0xbb | 0xb0 | 0xb1 | 0xc0 | 0xc1) => Shape::ModRm,
        (Map::Secondary, 0xba) => Shape::ModRmImm8,
        _ => return None,
    })
}

/// The bytes that are left.
struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { all: &bytes[..bytes.len().min(LONGEST)], at: 0 }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.all.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A little-endian number of 1, 2 or 4 bytes, sign-extended.
    fn signed(&mut self, bytes: u32) -> Option<i64> {
        let mut value = 0_u64;
        for n in 0..bytes {
            value |= u64::from(self.next()?) << (8 * n);
        }
        let unused = 64 - 8 * bytes;
        Some((value << unused).cast_signed() >> unused)
    }
}

impl Prefixes {
    /// Parses the prefixes; the opcode's first byte. Only in 64-bit mode is there a REX prefix.
    fn parse(bytes: &mut Bytes<'_>, long_mode: bool) -> Option<(Self, u8)> {
        let mut prefixes = Self::default();
        loop {
            let byte = bytes.next()?;
            match byte {
                0x66 => prefixes.operand = true,
                0x67 => prefixes.address = true,
                0xf0 => prefixes.lock = true,
                0xf2 => prefixes.repeat_not_equal = true,
                0xf3 => prefixes.repeat = true,
                0x26 => prefixes.segment = Some(Segment::Es),
                0x2e => prefixes.segment = Some(Segment::Cs),
                0x36 => prefixes.segment = Some(Segment::Ss),
                0x3e => prefixes.segment = Some(Segment::Ds),
                0x64 => prefixes.segment = Some(Segment::Fs),
                0x65 => prefixes.segment = Some(Segment::Gs),
                0x40..=0x4f if long_mode => {
                    prefixes.rex = byte;
                    continue;
                }
                _ => return Some((prefixes, byte)),
            }
            // Only directly before the opcode does REX count.
            prefixes.rex = 0;
        }
    }

    /// Bytes of an operand that is not fixed to one byte.
    const fn operand_bytes(self) -> u8 {
        match (self.rex & 8 != 0, self.operand) {
            (true, _) => 8,
            (false, true) => 2,
            (false, false) => 4,
        }
    }

    /// Whether a string instruction is repeated.
    #[must_use]
    pub const fn repeats(self) -> bool {
        self.repeat || self.repeat_not_equal
    }

    /// REX.R, REX.X and REX.B, each as 8 or 0.
    const fn extensions(self) -> [u8; 3] {
        [(self.rex & 4) << 1, (self.rex & 2) << 2, (self.rex & 1) << 3]
    }
}

impl ModRm {
    fn parse(bytes: &mut Bytes<'_>, prefixes: Prefixes) -> Option<Self> {
        let [r, x, b] = prefixes.extensions();
        let byte = bytes.next()?;
        let (mode, register, rm) = (byte >> 6, byte >> 3 & 7 | r, byte & 7);
        if mode == 3 {
            return Some(Self { register, operand: Operand::Register(rm | b) });
        }
        let mut memory = Memory { base: Some(rm | b), index: None, displacement: 0, rip_relative: false };
        let mut no_base = mode == 0 && rm == 5;
        if rm == 4 {
            let sib = bytes.next()?;
            let index = sib >> 3 & 7 | x;
            memory.index = (index != 4).then_some((index, sib >> 6));
            memory.base = Some(sib & 7 | b);
            no_base = mode == 0 && sib & 7 == 5;
        } else if no_base {
            memory.rip_relative = true;
        }
        if no_base {
            memory.base = None;
        }
        memory.displacement = match mode {
            1 => bytes.signed(1)?,
            2 => bytes.signed(4)?,
            _ if no_base => bytes.signed(4)?,
            _ => 0,
        };
        Some(Self { register, operand: Operand::Memory(memory) })
    }
}

impl Instruction {
    /// Decodes the instruction that `bytes` start with; none where it is cut off or not known here.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes::new(bytes);
        let (prefixes, first) = Prefixes::parse(&mut bytes, true)?;
        let (map, opcode) = if first == 0x0f { (Map::Secondary, bytes.next()?) } else { (Map::Primary, first) };
        let shape = shape(map, opcode)?;
        let modrm = match shape {
            Shape::Plain => None,
            _ => Some(ModRm::parse(&mut bytes, prefixes)?),
        };
        let full = prefixes.operand_bytes().min(4);
        let is_test = modrm.is_some_and(|modrm| modrm.register & 7 < 2);
        let immediate = match shape {
            Shape::ModRmImm8 => bytes.signed(1)?,
            Shape::ModRmImm => bytes.signed(full.into())?,
            Shape::ModRmTest8 if is_test => bytes.signed(1)?,
            Shape::ModRmTest if is_test => bytes.signed(full.into())?,
            _ => 0,
        };
        Some(Self { length: bytes.at as u8, prefixes, map, opcode, modrm, immediate })
    }

    /// Bytes of an operand that is not fixed to one byte.
    #[must_use]
    pub const fn operand_bytes(&self) -> u8 {
        self.prefixes.operand_bytes()
    }

    /// The offset of a memory operand in its segment, with the registers as they are before the instruction.
    #[must_use]
    pub fn effective_address(&self, memory: &Memory, registers: &Registers) -> u64 {
        let mut address = memory.displacement.cast_unsigned();
        if let Some(base) = memory.base {
            address = address.wrapping_add(get_register(registers, base));
        }
        if let Some((index, scale)) = memory.index {
            address = address.wrapping_add(get_register(registers, index) << scale);
        }
        if memory.rip_relative {
            address = address.wrapping_add(registers.rip).wrapping_add(self.length.into());
        }
        if self.prefixes.address { address & 0xffff_ffff } else { address }
    }

    /// The segment that a memory operand is relative to.
    #[must_use]
    pub const fn segment(&self, memory: &Memory) -> Segment {
        match (self.prefixes.segment, memory.base) {
            (Some(segment), _) => segment,
            (None, Some(4 | 5)) => Segment::Ss,
            (None, _) => Segment::Ds,
        }
    }
}

#[cfg(test)]
mod tests;
