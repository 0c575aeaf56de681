//! The privileged instructions that a PV guest may execute although they raise #GP in ring 3.
//!
//! Source: abi-needs of Xen 4.17, §3.1; AMD APM 3.

use super::{Bytes, Prefixes};

/// A privileged instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub operation: Operation,
    /// Bytes in all.
    pub length: u8,
}

/// An `ins` or `outs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringIo {
    /// `outs`.
    pub out: bool,
    /// Bytes moved at once: 1, 2 or 4.
    pub bytes: u8,
    /// Its prefixes.
    pub prefixes: Prefixes,
}

/// What a privileged instruction does. Registers are by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the instruction's operands")]
pub enum Operation {
    /// `in`: from a port, or from the one in dx.
    In { port: Option<u8>, bytes: u8 },
    /// `out`.
    Out { port: Option<u8>, bytes: u8 },
    /// `ins` or `outs`.
    String(StringIo),
    /// `cli` or `sti`.
    InterruptFlag,
    /// `clts`.
    ClearTaskSwitched,
    /// `wbinvd`.
    WriteBack,
    /// `mov` from a control register.
    ReadControl { control: u8, general: u8 },
    /// `mov` to a control register.
    WriteControl { control: u8, general: u8 },
    /// `mov` from a debug register.
    ReadDebug { debug: u8, general: u8 },
    /// `mov` to a debug register.
    WriteDebug { debug: u8, general: u8 },
    /// `wrmsr`.
    WriteMsr,
    /// `rdmsr`.
    ReadMsr,
    /// `rdtsc` or `rdtscp`.
    ReadTsc { with_id: bool },
    /// `cpuid`.
    Cpuid,
    /// `xsetbv`.
    SetXcr,
}

/// Decodes the instruction that these bytes start with; none where it is cut off or not one of these.
#[must_use]
pub fn decode(bytes: &[u8], long_mode: bool) -> Option<Instruction> {
    let mut bytes = Bytes::new(bytes);
    let (prefixes, opcode) = Prefixes::parse(&mut bytes, long_mode)?;
    if prefixes.lock {
        return None;
    }
    let size = if opcode & 1 == 0 { 1 } else { prefixes.operand_bytes().min(4) };
    let operation = match opcode {
        0x6c..=0x6f => Operation::String(StringIo { out: opcode & 2 != 0, bytes: size, prefixes }),
        0xe4 | 0xe5 => Operation::In { port: Some(bytes.next()?), bytes: size },
        0xe6 | 0xe7 => Operation::Out { port: Some(bytes.next()?), bytes: size },
        0xec | 0xed => Operation::In { port: None, bytes: size },
        0xee | 0xef => Operation::Out { port: None, bytes: size },
        0xfa | 0xfb => Operation::InterruptFlag,
        0x0f => two_bytes(&mut bytes, prefixes)?,
        _ => return None,
    };
    Some(Instruction { operation, length: bytes.at as u8 })
}

fn two_bytes(bytes: &mut Bytes<'_>, prefixes: Prefixes) -> Option<Operation> {
    Some(match bytes.next()? {
        0x06 => Operation::ClearTaskSwitched,
        0x09 => Operation::WriteBack,
        opcode @ 0x20..=0x23 => {
            let [r, _, b] = prefixes.extensions();
            let modrm = bytes.next()?;
            let (special, general) = (modrm >> 3 & 7 | r, modrm & 7 | b);
            match opcode {
                0x20 => Operation::ReadControl { control: special, general },
                0x21 => Operation::ReadDebug { debug: special, general },
                0x22 => Operation::WriteControl { control: special, general },
                _ => Operation::WriteDebug { debug: special, general },
            }
        }
        0x30 => Operation::WriteMsr,
        0x31 => Operation::ReadTsc { with_id: false },
        0x32 => Operation::ReadMsr,
        0xa2 => Operation::Cpuid,
        0x01 => match bytes.next()? {
            0xd1 => Operation::SetXcr,
            0xf9 => Operation::ReadTsc { with_id: true },
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(bytes: &[u8]) -> Option<(Operation, u64)> {
        decode(bytes, true).map(|instruction| (instruction.operation, instruction.length.into()))
    }

    #[test]
    fn each_emulated_instruction_is_decoded() {
        use Operation::*;
        let cases: &[(&[u8], Operation)] = &[
            (&[0xe4, 0x61], In { port: Some(0x61), bytes: 1 }),
            (&[0x66, 0xed], In { port: None, bytes: 2 }),
            (&[0xef], Out { port: None, bytes: 4 }),
            (&[0xe6, 0x43], Out { port: Some(0x43), bytes: 1 }),
            (&[0xfa], InterruptFlag),
            (&[0x0f, 0x06], ClearTaskSwitched),
            (&[0x0f, 0x09], WriteBack),
            (&[0x0f, 0x20, 0xc0], ReadControl { control: 0, general: 0 }),
            (&[0x41, 0x0f, 0x22, 0xe0], WriteControl { control: 4, general: 8 }),
            (&[0x0f, 0x21, 0xf8], ReadDebug { debug: 7, general: 0 }),
            (&[0x0f, 0x23, 0xc3], WriteDebug { debug: 0, general: 3 }),
            (&[0x0f, 0x30], WriteMsr),
            (&[0x0f, 0x32], ReadMsr),
            (&[0x0f, 0x31], ReadTsc { with_id: false }),
            (&[0x0f, 0x01, 0xf9], ReadTsc { with_id: true }),
            (&[0x0f, 0x01, 0xd1], SetXcr),
            (&[0x0f, 0xa2], Cpuid),
        ];
        for (bytes, expected) in cases {
            assert_eq!(operation(bytes), Some((*expected, bytes.len() as u64)), "{bytes:x?}");
        }
    }

    #[test]
    fn what_a_pv_guest_may_not_do_is_not_decoded() {
        let cases: &[&[u8]] = &[
            &[0xf4],
            &[0x0f, 0x01, 0x10],
            &[0x0f, 0x00, 0xd8],
            &[0x0f, 0x08],
            &[0x0f, 0x07],
            &[0xf0, 0xef],
            &[0xcf],
            &[0x0f],
            &[0x66],
            &[],
        ];
        for bytes in cases {
            assert_eq!(operation(bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn a_prefix_of_long_mode_is_an_instruction_in_protected_mode() {
        assert_eq!(decode(&[0x48, 0xef], false), None);
        assert!(decode(&[0x48, 0xef], true).is_some());
    }
}
