//! What arithmetic instructions do with an operand and the flags. Source: AMD APM 3.

const CARRY: u64 = 1 << 0;
const PARITY: u64 = 1 << 2;
const AUXILIARY: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const OVERFLOW: u64 = 1 << 11;
const ALL: u64 = CARRY | PARITY | AUXILIARY | ZERO | SIGN | OVERFLOW;

/// An operation on a memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Or,
    AddCarry,
    SubtractBorrow,
    And,
    Subtract,
    Xor,
    Increment,
    Decrement,
    Not,
    Negate,
    BitSet,
    BitReset,
    BitComplement,
}

/// What becomes of an operand: its new value, where it is written, and the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) value: Option<u64>,
    pub(super) flags: u64,
}

impl Arithmetic {
    /// The operation with this number in opcodes 00–37 and in the register field of 80–83; 7, a comparison, writes
    /// nothing.
    pub(super) const fn numbered(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::AddCarry,
            3 => Self::SubtractBorrow,
            4 => Self::And,
            5 => Self::Subtract,
            6 => Self::Xor,
            _ => return None,
        })
    }

    /// The bit operation with this number; 0, a test, writes nothing.
    pub(super) const fn bit(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::BitSet,
            2 => Self::BitReset,
            3 => Self::BitComplement,
            _ => return None,
        })
    }
}

/// Carries an operation out on an operand of this many bytes.
pub(super) fn operate(operation: Arithmetic, before: u64, source: u64, bytes: u8, flags: u64) -> Outcome {
    let mask = super::mask(bytes);
    let source = source & mask;
    let carry = flags & CARRY;
    let (value, changed) = match operation {
        Arithmetic::Add => add(before, source, 0, bytes),
        Arithmetic::AddCarry => add(before, source, carry, bytes),
        Arithmetic::Subtract => subtract(before, source, 0, bytes),
        Arithmetic::SubtractBorrow => subtract(before, source, carry, bytes),
        Arithmetic::Negate => subtract(0, before, 0, bytes),
        Arithmetic::Or => logic(before | source, bytes),
        Arithmetic::And => logic(before & source, bytes),
        Arithmetic::Xor => logic(before ^ source, bytes),
        Arithmetic::Increment => keep_carry(add(before, 1, 0, bytes), carry),
        Arithmetic::Decrement => keep_carry(subtract(before, 1, 0, bytes), carry),
        Arithmetic::Not => {
            return Outcome { value: Some(!before & mask), flags };
        }
        Arithmetic::BitSet | Arithmetic::BitReset | Arithmetic::BitComplement => {
            return bit(operation, before, source, bytes, flags);
        }
    };
    Outcome { value: Some(value), flags: flags & !ALL | changed }
}

fn bit(operation: Arithmetic, before: u64, source: u64, bytes: u8, flags: u64) -> Outcome {
    let bit = 1 << (source % (u64::from(bytes) * 8));
    let value = match operation {
        Arithmetic::BitSet => before | bit,
        Arithmetic::BitReset => before & !bit,
        _ => before ^ bit,
    };
    let carry = if before & bit != 0 { CARRY } else { 0 };
    Outcome { value: Some(value), flags: flags & !CARRY | carry }
}

const fn keep_carry(outcome: (u64, u64), carry: u64) -> (u64, u64) {
    (outcome.0, outcome.1 & !CARRY | carry)
}

/// The flags that follow from a result alone.
fn result_flags(value: u64, bytes: u8) -> u64 {
    let zero = if value == 0 { ZERO } else { 0 };
    let sign = if value >> (u32::from(bytes) * 8 - 1) & 1 != 0 { SIGN } else { 0 };
    let parity = if (value as u8).count_ones().is_multiple_of(2) { PARITY } else { 0 };
    zero | sign | parity
}

fn logic(value: u64, bytes: u8) -> (u64, u64) {
    (value, result_flags(value, bytes))
}

fn add(left: u64, right: u64, carry: u64, bytes: u8) -> (u64, u64) {
    let wide = u128::from(left) + u128::from(right) + u128::from(carry);
    let value = wide as u64 & super::mask(bytes);
    let carried = if wide >> (u32::from(bytes) * 8) != 0 { CARRY } else { 0 };
    (value, carried | signed_flags(left, right, value, (left ^ value) & (right ^ value), bytes))
}

fn subtract(left: u64, right: u64, borrow: u64, bytes: u8) -> (u64, u64) {
    let value = left.wrapping_sub(right).wrapping_sub(borrow) & super::mask(bytes);
    let borrowed = if u128::from(left) < u128::from(right) + u128::from(borrow) { CARRY } else { 0 };
    (value, borrowed | signed_flags(left, right, value, (left ^ right) & (left ^ value), bytes))
}

fn signed_flags(left: u64, right: u64, value: u64, overflow: u64, bytes: u8) -> u64 {
    let auxiliary = (left ^ right ^ value) & AUXILIARY;
    let overflow = if overflow >> (u32::from(bytes) * 8 - 1) & 1 != 0 { OVERFLOW } else { 0 };
    result_flags(value, bytes) | auxiliary | overflow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logic_clears_carry_and_overflow() {
        let outcome = operate(Arithmetic::And, 0xff, 0xf0, 1, CARRY | OVERFLOW | 2);
        assert_eq!(outcome, Outcome { value: Some(0xf0), flags: 2 | SIGN | PARITY });
    }

    #[test]
    fn a_sum_that_overflows_says_so() {
        let outcome = operate(Arithmetic::Add, 0x7f, 1, 1, 0);
        assert_eq!(outcome.value, Some(0x80));
        assert_eq!(outcome.flags, OVERFLOW | SIGN | AUXILIARY);
        let outcome = operate(Arithmetic::Add, u64::MAX, 1, 8, 0);
        assert_eq!(outcome, Outcome { value: Some(0), flags: CARRY | ZERO | PARITY | AUXILIARY });
    }

    #[test]
    fn a_borrow_goes_through() {
        let outcome = operate(Arithmetic::SubtractBorrow, 0, 0xffff, 2, CARRY);
        assert_eq!(outcome.value, Some(0));
        assert_eq!(outcome.flags & CARRY, CARRY);
    }

    #[test]
    fn increments_keep_the_carry() {
        let outcome = operate(Arithmetic::Increment, 0xff, 1, 1, CARRY);
        assert_eq!(outcome.value, Some(0));
        assert_eq!(outcome.flags & CARRY, CARRY);
    }

    #[test]
    fn bit_operations_report_the_old_bit() {
        let outcome = operate(Arithmetic::BitReset, 0b10, 1, 8, 0);
        assert_eq!(outcome, Outcome { value: Some(0), flags: CARRY });
        let outcome = operate(Arithmetic::BitSet, 0, 65, 8, CARRY | ZERO);
        assert_eq!(outcome, Outcome { value: Some(2), flags: ZERO });
        assert_eq!(operate(Arithmetic::BitComplement, 2, 1, 4, 0).value, Some(0));
    }
}
