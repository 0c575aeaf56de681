//! Which instructions are privileged or serializing, and the marks; by their bytes (AMD APM 3).

/// What is counted by kind. The names are those of the figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    MovToCr0,
    MovToCr3,
    MovToCr4,
    MovFromCr,
    MovDr,
    Clts,
    Wrmsr,
    Rdmsr,
    Invlpg,
    Invpcid,
    Invlpga,
    LoadTable,
    Hlt,
    Cli,
    Sti,
    PortIo,
    Cpuid,
    Iret,
    Swapgs,
    Sysret,
    Vmrun,
    SvmOther,
    Xsetbv,
    Wbinvd,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [(Self, &'static str); 24] = [
        (Self::MovToCr0, "mov_to_cr0"),
        (Self::MovToCr3, "mov_to_cr3"),
        (Self::MovToCr4, "mov_to_cr4"),
        (Self::MovFromCr, "mov_from_cr"),
        (Self::MovDr, "mov_dr"),
        (Self::Clts, "clts"),
        (Self::Wrmsr, "wrmsr"),
        (Self::Rdmsr, "rdmsr"),
        (Self::Invlpg, "invlpg"),
        (Self::Invpcid, "invpcid"),
        (Self::Invlpga, "invlpga"),
        (Self::LoadTable, "load_table"),
        (Self::Hlt, "hlt"),
        (Self::Cli, "cli"),
        (Self::Sti, "sti"),
        (Self::PortIo, "port_io"),
        (Self::Cpuid, "cpuid"),
        (Self::Iret, "iret"),
        (Self::Swapgs, "swapgs"),
        (Self::Sysret, "sysret"),
        (Self::Vmrun, "vmrun"),
        (Self::SvmOther, "svm_other"),
        (Self::Xsetbv, "xsetbv"),
        (Self::Wbinvd, "wbinvd"),
    ];

    /// Its name in the figures.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// A hypervisor may stop a guest with hardware assistance there (AMD APM 2 §15.9).
    pub(crate) fn may_stop_a_guest(self) -> bool {
        !matches!(self, Self::Cli | Self::Sti | Self::Iret | Self::Swapgs | Self::Sysret)
    }

    /// The kind of an instruction in 64-bit code, if it is of any.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let at = bytes.iter().position(|byte| !is_prefix(*byte))?;
        let (prefixes, rest) = bytes.split_at(at);
        match *rest {
            [0x0f, second, ref operands @ ..] => Self::of_two_bytes(second, operands, prefixes),
            [0xcf, ..] => Some(Self::Iret),
            [0xf4, ..] => Some(Self::Hlt),
            [0xfa, ..] => Some(Self::Cli),
            [0xfb, ..] => Some(Self::Sti),
            [0x6c..=0x6f | 0xe4..=0xe7 | 0xec..=0xef, ..] => Some(Self::PortIo),
            _ => None,
        }
    }

    fn of_two_bytes(second: u8, operands: &[u8], prefixes: &[u8]) -> Option<Self> {
        let register = operands.first().map(|modrm| modrm >> 3 & 7);
        let in_memory = operands.first().is_some_and(|modrm| modrm >> 6 != 3);
        match second {
            0x00 if matches!(register, Some(2 | 3)) => Some(Self::LoadTable),
            0x01 if in_memory => match register {
                Some(2 | 3) => Some(Self::LoadTable),
                Some(6) => Some(Self::MovToCr0),
                Some(7) => Some(Self::Invlpg),
                _ => None,
            },
            0x01 => Self::of_group_7(*operands.first()?),
            0x06 => Some(Self::Clts),
            0x07 => Some(Self::Sysret),
            0x08 | 0x09 => Some(Self::Wbinvd),
            0x20 => Some(Self::MovFromCr),
            0x21 | 0x23 => Some(Self::MovDr),
            0x22 => match register {
                Some(3) => Some(Self::MovToCr3),
                Some(4) => Some(Self::MovToCr4),
                _ => Some(Self::MovToCr0),
            },
            0x30 => Some(Self::Wrmsr),
            0x32 => Some(Self::Rdmsr),
            0x38 if operands.first() == Some(&0x82) && prefixes.contains(&0x66) => Some(Self::Invpcid),
            0xa2 => Some(Self::Cpuid),
            _ => None,
        }
    }

    /// `0f 01` with a register operand: each value is an instruction of its own.
    fn of_group_7(modrm: u8) -> Option<Self> {
        match modrm {
            0xd1 => Some(Self::Xsetbv),
            0xd8 => Some(Self::Vmrun),
            0xda..=0xde => Some(Self::SvmOther),
            0xdf => Some(Self::Invlpga),
            0xf0..=0xf7 => Some(Self::MovToCr0),
            0xf8 => Some(Self::Swapgs),
            _ => None,
        }
    }
}

/// Legacy prefixes and REX.
fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

/// How a hypervisor is called: `syscall`, `vmmcall`, `vmcall`.
pub(crate) fn is_call(bytes: &[u8]) -> bool {
    matches!(bytes, [0x0f, 0x05] | [0x0f, 0x01, 0xd9 | 0xc1])
}

/// A locked instruction: what counts hypercalls in the guest is one.
pub(crate) fn is_locked(bytes: &[u8]) -> bool {
    bytes.iter().take_while(|byte| is_prefix(**byte)).any(|byte| *byte == 0xf0)
}

/// A border of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// The window of this number starts.
    Begin(u8),
    /// It ends.
    End(u8),
}

impl Mark {
    /// `nop dword ptr [rax + rax + NUMBER]`, where the number is 0x584e_01nn or 0x584e_02nn.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [0x0f, 0x1f, 0x84, 0x00, number, 1, 0x4e, 0x58] => Some(Self::Begin(number)),
            [0x0f, 0x1f, 0x84, 0x00, number, 2, 0x4e, 0x58] => Some(Self::End(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_instructions_are_told_by_their_bytes() {
        let known: [(&[u8], Kind); 14] = [
            (&[0x0f, 0x22, 0xd8], Kind::MovToCr3),
            (&[0x0f, 0x22, 0xe0], Kind::MovToCr4),
            (&[0x0f, 0x22, 0xc0], Kind::MovToCr0),
            (&[0x41, 0x0f, 0x22, 0xd8], Kind::MovToCr3),
            (&[0x0f, 0x01, 0x38], Kind::Invlpg),
            (&[0x0f, 0x01, 0xf8], Kind::Swapgs),
            (&[0x0f, 0x01, 0xd8], Kind::Vmrun),
            (&[0x66, 0x0f, 0x38, 0x82, 0x01], Kind::Invpcid),
            (&[0x48, 0xcf], Kind::Iret),
            (&[0x48, 0x0f, 0x07], Kind::Sysret),
            (&[0xf3, 0x6e], Kind::PortIo),
            (&[0x0f, 0x01, 0x18], Kind::LoadTable),
            (&[0x0f, 0x00, 0xd8], Kind::LoadTable),
            (&[0x0f, 0xa2], Kind::Cpuid),
        ];
        for (bytes, kind) in known {
            assert_eq!(Kind::of(bytes), Some(kind), "{bytes:x?}");
        }
    }

    #[test]
    fn ordinary_instructions_are_of_no_kind() {
        for bytes in [&[0x89_u8, 0xc8][..], &[0x0f, 0x1f, 0x40, 0x00], &[0x0f, 0x01, 0xd0], &[0x0f, 0x05], &[]] {
            assert_eq!(Kind::of(bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn the_numbers_of_the_kinds_are_their_places() {
        for (number, (kind, _)) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn only_a_nop_with_the_right_number_is_a_mark() {
        assert_eq!(Mark::of(&[0x0f, 0x1f, 0x84, 0x00, 7, 1, 0x4e, 0x58]), Some(Mark::Begin(7)));
        assert_eq!(Mark::of(&[0x0f, 0x1f, 0x84, 0x00, 7, 2, 0x4e, 0x58]), Some(Mark::End(7)));
        assert_eq!(Mark::of(&[0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_lock_prefix_is_found_behind_others_only() {
        assert!(is_locked(&[0xf0, 0x48, 0xff, 0x05, 0, 0, 0, 0]));
        assert!(!is_locked(&[0x48, 0xff, 0x05, 0xf0, 0, 0, 0]));
    }
}
