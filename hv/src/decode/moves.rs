//! Instructions that use a device's registers in memory, as compilers emit them: moves, arithmetic and tests, exchanges,
//! strings.
//!
//! Where the memory is, the CPU has said already; what is worked out here is how many bytes, which way, and what becomes
//! of them. Code is of 64 or of 32 bits. Source: AMD APM 3 appendix A and §3.

use super::{Bytes, ModRm, Operand, Prefixes, Segment, read_register, set_register};
use crate::registers::{Registers, flags};

/// What is combined with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A register, by number.
    Register(u8),
    /// A number in the instruction.
    Number(u64),
}

/// How a value is made longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extend {
    /// With zeros.
    Zero,
    /// With its sign.
    Sign,
}

/// An arithmetic operation, by its number in opcodes; `test` besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the architecture's names")]
pub enum Arithmetic {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
}

impl Arithmetic {
    const fn of(number: u8) -> Self {
        [Self::Add, Self::Or, Self::Adc, Self::Sbb, Self::And, Self::Sub, Self::Xor, Self::Cmp][(number & 7) as usize]
    }

    /// Whether the result is kept.
    const fn keeps(self) -> bool {
        !matches!(self, Self::Cmp | Self::Test)
    }

    /// The result for operands of this many bytes, with the flags as they become.
    #[must_use]
    pub fn apply(self, left: u64, right: u64, bytes: u8, rflags: u64) -> (u64, u64) {
        const CARRY: u64 = 1;
        const PARITY: u64 = 1 << 2;
        const ADJUST: u64 = 1 << 4;
        const ZERO: u64 = 1 << 6;
        const SIGN: u64 = 1 << 7;
        const OVERFLOW: u64 = 1 << 11;
        let (mask, top) = (u64::MAX >> (64 - 8 * u32::from(bytes)), 1 << (8 * u32::from(bytes) - 1));
        let (left, right) = (left & mask, right & mask);
        let carried = if matches!(self, Self::Adc | Self::Sbb) { rflags & CARRY } else { 0 };
        let (sum, difference) = (
            u128::from(left) + u128::from(right) + u128::from(carried),
            u128::from(left).wrapping_sub(u128::from(right)).wrapping_sub(u128::from(carried)),
        );
        let (wide, overflows) = match self {
            Self::Add | Self::Adc => (sum, (left ^ sum as u64) & (right ^ sum as u64) & top != 0),
            Self::Sub | Self::Sbb | Self::Cmp => (difference, (left ^ right) & (left ^ difference as u64) & top != 0),
            Self::Or => ((left | right).into(), false),
            Self::And | Self::Test => ((left & right).into(), false),
            Self::Xor => ((left ^ right).into(), false),
        };
        let result = wide as u64 & mask;
        let is_sum = !matches!(self, Self::Or | Self::And | Self::Test | Self::Xor);
        let bit = |holds: bool, flag| if holds { flag } else { 0 };
        let new = bit(wide & !u128::from(mask) != 0, CARRY)
            | bit((result as u8).count_ones().is_multiple_of(2), PARITY)
            | bit(is_sum && (left ^ right ^ result) & 0x10 != 0, ADJUST)
            | bit(result == 0, ZERO)
            | bit(result & top != 0, SIGN)
            | bit(overflows, OVERFLOW);
        (result, rflags & !(CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW) | new)
    }
}

/// What an instruction does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To a register of this many bytes.
    Load {
        /// The register.
        register: u8,
        /// Its bytes.
        bytes: u8,
        /// How what is read becomes as long.
        extend: Extend,
    },
    /// From a register or a number.
    Store(Source),
    /// Combined with it, in memory.
    Modify(Arithmetic, Source),
    /// Combined with a register, in that.
    Combine(Arithmetic, u8),
    /// Exchanged with a register.
    Exchange(u8),
    /// `stos`: the accumulator, where `rdi` says.
    Fill,
    /// `lods`: to the accumulator, from where `rsi` says.
    Fetch,
    /// `movs`: from where `rsi` says, in this segment, to where `rdi` says.
    Copy(Segment),
}

/// An instruction that uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Bytes of the instruction.
    pub length: u8,
    /// Bytes of memory.
    pub bytes: u8,
    /// What it does.
    pub what: Use,
    /// It is done as often as `rcx` says.
    pub repeats: bool,
    /// `rcx`, `rsi` and `rdi` count in 64 bits; else in 32.
    pub long_addresses: bool,
    rex: bool,
}

impl Access {
    /// Decodes the instruction that `bytes` start with; none where it is cut off or uses no memory in these ways.
    #[must_use]
    pub fn decode(bytes: &[u8], is_long: bool) -> Option<Self> {
        let mut rest = Bytes::new(bytes);
        let (prefixes, first) = Prefixes::parse(&mut rest, is_long)?;
        let (secondary, opcode) = if first == 0x0f { (true, rest.next()?) } else { (false, first) };
        let long_addresses = is_long && !prefixes.address;
        // 16-bit addresses of 32-bit code are none of a compiler's.
        if !is_long && prefixes.address {
            return None;
        }
        let full = prefixes.operand_bytes();
        let width = if opcode & 1 == 0 { 1 } else { full };
        let (what, bytes) = if secondary {
            extending(opcode, full, ModRm::of_memory(&mut rest, prefixes)?)?
        } else if opcode == 0x63 && is_long {
            let register = ModRm::of_memory(&mut rest, prefixes)?;
            (Use::Load { register, bytes: full, extend: Extend::Sign }, 4)
        } else if let Some(what) = string(opcode, prefixes) {
            (what, width)
        } else if let 0xa0..=0xa3 = opcode {
            rest.signed(4)?;
            if long_addresses {
                rest.signed(4)?;
            }
            (moved(opcode & 2 == 0, 0, width), width)
        } else {
            let register = ModRm::of_memory(&mut rest, prefixes)?;
            (plain(opcode, register, width, &mut rest)?, width)
        };
        let is_string = matches!(what, Use::Fill | Use::Fetch | Use::Copy(_));
        let repeats = is_string && prefixes.repeats();
        Some(Self { length: rest.at as u8, bytes, what, repeats, long_addresses, rex: prefixes.rex != 0 })
    }

    /// Whether memory is read, before it may be written. Where `rsi` says is elsewhere.
    #[must_use]
    pub const fn reads(&self) -> bool {
        !matches!(self.what, Use::Store(_) | Use::Fill | Use::Copy(_))
    }

    fn value(&self, registers: &Registers, source: Source) -> u64 {
        match source {
            Source::Register(number) => read_register(registers, number, self.bytes, self.rex),
            Source::Number(value) => value & (u64::MAX >> (64 - 8 * u32::from(self.bytes))),
        }
    }

    /// What is written by one that only writes.
    #[must_use]
    pub fn stored(&self, registers: &Registers) -> u64 {
        match self.what {
            Use::Store(source) => self.value(registers, source),
            _ => read_register(registers, 0, self.bytes, true),
        }
    }

    /// Takes what was read; what is to be written then, if anything.
    pub fn take(&self, registers: &mut Registers, data: u64) -> Option<u64> {
        match self.what {
            Use::Load { register, bytes, extend } => {
                let unused = 64 - 8 * u32::from(self.bytes);
                let value = match extend {
                    Extend::Zero => data << unused >> unused,
                    Extend::Sign => ((data << unused).cast_signed() >> unused).cast_unsigned(),
                };
                set_register(registers, register, bytes, self.rex, value);
                None
            }
            Use::Fetch => {
                set_register(registers, 0, self.bytes, true, data);
                None
            }
            Use::Modify(operation, source) => {
                let right = self.value(registers, source);
                let (result, rflags) = operation.apply(data, right, self.bytes, registers.rflags);
                registers.rflags = rflags;
                operation.keeps().then_some(result)
            }
            Use::Combine(operation, register) => {
                let left = self.value(registers, Source::Register(register));
                let (result, rflags) = operation.apply(left, data, self.bytes, registers.rflags);
                registers.rflags = rflags;
                if operation.keeps() {
                    set_register(registers, register, self.bytes, self.rex, result);
                }
                None
            }
            Use::Exchange(register) => {
                let value = self.value(registers, Source::Register(register));
                set_register(registers, register, self.bytes, self.rex, data);
                Some(value)
            }
            Use::Store(_) | Use::Fill | Use::Copy(_) => None,
        }
    }

    /// Whether nothing is to be done, as it repeats no times.
    #[must_use]
    pub fn is_nothing(&self, registers: &Registers) -> bool {
        self.repeats && registers.rcx & self.address_mask() == 0
    }

    /// Where a string instruction's register points to.
    #[must_use]
    pub const fn place(&self, register: u64) -> u64 {
        register & self.address_mask()
    }

    const fn address_mask(&self) -> u64 {
        if self.long_addresses { u64::MAX } else { 0xffff_ffff }
    }

    /// Goes behind what was done: in memory, and to the next instruction, unless it is to be repeated.
    pub fn go_on(&self, registers: &mut Registers) {
        let (mask, bytes) = (self.address_mask(), u64::from(self.bytes));
        let step = if registers.rflags & flags::DF == 0 { bytes } else { bytes.wrapping_neg() };
        let moved = |register: u64| register.wrapping_add(step) & mask;
        if matches!(self.what, Use::Fetch | Use::Copy(_)) {
            registers.rsi = moved(registers.rsi);
        }
        if matches!(self.what, Use::Fill | Use::Copy(_)) {
            registers.rdi = moved(registers.rdi);
        }
        if self.repeats {
            registers.rcx = registers.rcx.wrapping_sub(1) & mask;
        }
        if !self.repeats || registers.rcx == 0 {
            registers.rip = registers.rip.wrapping_add(self.length.into());
        }
    }
}

/// `ins` or `outs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortString {
    /// It is `ins`.
    pub input: bool,
    /// Where `outs` reads; `ins` writes to ES.
    pub segment: Segment,
    length: u8,
    repeats: bool,
    long_addresses: bool,
}

impl PortString {
    /// Decodes the instruction that `bytes` start with, where it is one.
    #[must_use]
    pub fn decode(bytes: &[u8], is_long: bool) -> Option<Self> {
        let mut rest = Bytes::new(bytes);
        let (prefixes, opcode) = Prefixes::parse(&mut rest, is_long)?;
        if !matches!(opcode, 0x6c..=0x6f) || !is_long && prefixes.address {
            return None;
        }
        Some(Self {
            input: opcode < 0x6e,
            segment: prefixes.segment.unwrap_or(Segment::Ds),
            length: rest.at as u8,
            repeats: prefixes.repeats(),
            long_addresses: is_long && !prefixes.address,
        })
    }

    const fn mask(&self) -> u64 {
        if self.long_addresses { u64::MAX } else { 0xffff_ffff }
    }

    /// How many elements are left.
    #[must_use]
    pub const fn count(&self, registers: &Registers) -> u64 {
        if self.repeats { registers.rcx & self.mask() } else { 1 }
    }

    /// The offset of the next one in its segment.
    #[must_use]
    pub const fn place(&self, registers: &Registers) -> u64 {
        (if self.input { registers.rdi } else { registers.rsi }) & self.mask()
    }

    /// Goes behind `count` elements of this many bytes, and behind the instruction where none is left.
    pub fn go_on(&self, registers: &mut Registers, bytes: u8, count: u64) {
        let step = count.wrapping_mul(bytes.into());
        let step = if registers.rflags & flags::DF == 0 { step } else { step.wrapping_neg() };
        let place = self.place(registers).wrapping_add(step) & self.mask();
        *(if self.input { &mut registers.rdi } else { &mut registers.rsi }) = place;
        let left = self.count(registers).saturating_sub(count);
        if self.repeats {
            registers.rcx = left;
        }
        if left == 0 {
            registers.rip = registers.rip.wrapping_add(self.length.into());
        }
    }
}

impl ModRm {
    /// The register field of one whose other operand is memory.
    fn of_memory(rest: &mut Bytes<'_>, prefixes: Prefixes) -> Option<u8> {
        let parsed = Self::parse(rest, prefixes)?;
        matches!(parsed.operand, Operand::Memory(_)).then_some(parsed.register)
    }
}

/// `movzx`, `movsx`.
const fn extending(opcode: u8, full: u8, register: u8) -> Option<(Use, u8)> {
    let extend = match opcode {
        0xb6 | 0xb7 => Extend::Zero,
        0xbe | 0xbf => Extend::Sign,
        _ => return None,
    };
    Some((Use::Load { register, bytes: full, extend }, 1 + (opcode & 1)))
}

fn string(opcode: u8, prefixes: Prefixes) -> Option<Use> {
    Some(match opcode {
        0xa4 | 0xa5 => Use::Copy(prefixes.segment.unwrap_or(Segment::Ds)),
        0xaa | 0xab => Use::Fill,
        0xac | 0xad => Use::Fetch,
        _ => return None,
    })
}

const fn moved(to_register: bool, register: u8, bytes: u8) -> Use {
    if to_register {
        Use::Load { register, bytes, extend: Extend::Zero }
    } else {
        Use::Store(Source::Register(register))
    }
}

/// One with a ModRM byte that names memory, and perhaps a number behind.
fn plain(opcode: u8, register: u8, width: u8, rest: &mut Bytes<'_>) -> Option<Use> {
    let mut number = |bytes: u8| rest.signed(bytes.min(4).into()).map(|value| Source::Number(value.cast_unsigned()));
    Some(match opcode {
        0x88 | 0x89 => moved(false, register, width),
        0x8a | 0x8b => moved(true, register, width),
        0xc6 | 0xc7 if register & 7 == 0 => Use::Store(number(width)?),
        0x86 | 0x87 => Use::Exchange(register),
        0x84 | 0x85 => Use::Modify(Arithmetic::Test, Source::Register(register)),
        0xf6 | 0xf7 if register & 7 < 2 => Use::Modify(Arithmetic::Test, number(width)?),
        0x80 | 0x81 => Use::Modify(Arithmetic::of(register), number(width)?),
        0x83 => Use::Modify(Arithmetic::of(register), number(1)?),
        0x00..=0x3f if opcode & 7 < 2 => Use::Modify(Arithmetic::of(opcode >> 3), Source::Register(register)),
        0x00..=0x3f if opcode & 7 < 4 => Use::Combine(Arithmetic::of(opcode >> 3), register),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Access {
        Access::decode(bytes, true).unwrap()
    }

    #[test]
    fn moves_tell_their_width_and_their_way() {
        let load = |register, bytes, extend| Use::Load { register, bytes, extend };
        for (code, bytes, what) in [
            (&[0x8b, 0x07][..], 4, load(0, 4, Extend::Zero)),
            (&[0x44, 0x8a, 0x0f], 1, load(9, 1, Extend::Zero)),
            (&[0x48, 0x89, 0x43, 0x08], 8, Use::Store(Source::Register(0))),
            (&[0xc7, 0x83, 0xb0, 0, 0, 0, 5, 0, 0, 0], 4, Use::Store(Source::Number(5))),
            (&[0x0f, 0xb6, 0x00], 1, load(0, 4, Extend::Zero)),
            (&[0x48, 0x0f, 0xbf, 0x00], 2, load(0, 8, Extend::Sign)),
            (&[0x48, 0x63, 0x00], 4, load(0, 8, Extend::Sign)),
            (&[0xa1, 0, 0, 0, 0, 0, 0, 0, 0], 4, load(0, 4, Extend::Zero)),
            (&[0x66, 0xa3, 0, 0, 0, 0, 0, 0, 0, 0], 2, Use::Store(Source::Register(0))),
            (&[0x80, 0x0f, 0x80], 1, Use::Modify(Arithmetic::Or, Source::Number(0x80_u64 | !0xff))),
            (&[0x87, 0x07], 4, Use::Exchange(0)),
            (&[0x33, 0x07], 4, Use::Combine(Arithmetic::Xor, 0)),
            (&[0xf3, 0x48, 0xa5], 8, Use::Copy(Segment::Ds)),
        ] {
            let access = decode(code);
            assert_eq!((access.length as usize, access.bytes, access.what), (code.len(), bytes, what), "{code:x?}");
            assert_eq!(Access::decode(&code[..code.len() - 1], true), None, "{code:x?} cut off");
        }
        for code in [&[0x8b, 0xc1][..], &[0x0f, 0xc7, 0x0f], &[0xff, 0x00], &[0xc7, 0x08, 0, 0, 0, 0]] {
            assert_eq!(Access::decode(code, true), None, "{code:x?}");
        }
        assert_eq!(Access::decode(&[0xa1, 0, 0, 0, 0], false).unwrap().length, 5);
        assert_eq!(Access::decode(&[0x67, 0x8b, 0x07], false), None);
    }

    #[test]
    fn arithmetic_is_the_cpus() {
        for (operation, left, right, bytes, carry, result, set) in [
            (Arithmetic::Add, 0xff, 1, 1, 0, 0, 0x55),
            (Arithmetic::Add, 0x7f, 1, 1, 0, 0x80, 0x890),
            (Arithmetic::Adc, 1, 1, 4, 1, 3, 0x04),
            (Arithmetic::Sub, 0, 1, 4, 0, 0xffff_ffff, 0x95),
            (Arithmetic::Sbb, 0x8000_0000_0000_0000, 0, 8, 1, 0x7fff_ffff_ffff_ffff, 0x814),
            (Arithmetic::Cmp, 5, 5, 2, 0, 0, 0x44),
            (Arithmetic::And, 0xf0, 0x0f, 1, 1, 0, 0x44),
            (Arithmetic::Xor, 0xf0, 0x0f, 1, 1, 0xff, 0x84),
        ] {
            let outcome = operation.apply(left, right, bytes, 2 | carry);
            assert_eq!(outcome, (result, 2 | set), "{operation:?} {left:x} {right:x}");
        }
    }

    #[test]
    fn what_is_read_goes_where_the_instruction_says() {
        let mut registers = Registers { rax: u64::MAX, rbx: 0x1234, rflags: 2, ..Default::default() };
        assert_eq!(decode(&[0x8b, 0x07]).take(&mut registers, 0x8000_0001), None);
        assert_eq!(registers.rax, 0x8000_0001);
        assert_eq!(decode(&[0x48, 0x63, 0x07]).take(&mut registers, 0x8000_0001), None);
        assert_eq!(registers.rax, 0xffff_ffff_8000_0001);
        assert_eq!(decode(&[0x8a, 0x27]).take(&mut registers, 0x77), None);
        assert_eq!(registers.rax, 0xffff_ffff_8000_7701);
        assert_eq!(decode(&[0x87, 0x1f]).take(&mut registers, 7), Some(0x1234));
        assert_eq!(registers.rbx, 7);
        assert_eq!(decode(&[0x83, 0x0f, 0x10]).take(&mut registers, 1), Some(0x11));
        assert_eq!(decode(&[0xf7, 0x07, 2, 0, 0, 0]).take(&mut registers, 1), None);
        assert_ne!(registers.rflags & 0x40, 0);
    }

    #[test]
    fn port_strings_tell_how_many_and_where() {
        let input = PortString::decode(&[0xf3, 0x66, 0x6d], true).unwrap();
        let mut registers = Registers { rcx: 3, rdi: 0x2000, rip: 1, ..Default::default() };
        assert_eq!((input.input, input.count(&registers), input.place(&registers)), (true, 3, 0x2000));
        input.go_on(&mut registers, 2, 2);
        assert_eq!((registers.rcx, registers.rdi, registers.rip), (1, 0x2004, 1));
        input.go_on(&mut registers, 2, 1);
        assert_eq!((registers.rcx, registers.rdi, registers.rip), (0, 0x2006, 4));
        let output = PortString::decode(&[0x65, 0x6e], false).unwrap();
        assert_eq!((output.input, output.segment, output.count(&registers)), (false, Segment::Gs, 1));
        assert_eq!(PortString::decode(&[0xf3, 0xab], true), None);
        assert_eq!(PortString::decode(&[0x67, 0x6e], false), None);
    }

    #[test]
    fn strings_go_on_until_their_count_is_used_up() {
        let fill = decode(&[0xf3, 0xab]);
        let mut registers = Registers { rcx: 2, rdi: 0x1000, rip: 5, ..Default::default() };
        fill.go_on(&mut registers);
        assert_eq!((registers.rcx, registers.rdi, registers.rip), (1, 0x1004, 5));
        registers.rflags |= flags::DF;
        fill.go_on(&mut registers);
        assert_eq!((registers.rcx, registers.rdi, registers.rip), (0, 0x1000, 7));
        assert!(fill.is_nothing(&registers));
        let copy = Access::decode(&[0xa4], false).unwrap();
        let mut registers = Registers { rsi: 0xffff_ffff, rdi: 3, ..Default::default() };
        copy.go_on(&mut registers);
        assert_eq!((registers.rsi, registers.rdi, registers.rip), (0, 4, 1));
    }
}
