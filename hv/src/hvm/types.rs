//! Memory types by range (MTRRs): kept for the guest and without effect, as all its memory is RAM.
//!
//! Source: Intel SDM 3 §11.11.

use pv_abi::hvm::HvmHwMtrr;

/// Ranges of any size.
const VARIABLE: usize = 8;
/// Eight variable ranges, fixed ones, write-combining.
const CAPABILITIES: u64 = 0x500 | VARIABLE as u64;
/// The default type: they are on, write-back.
const WRITE_BACK: u64 = 1 << 11 | 6;

mod msr {
    pub(super) const CAPABILITIES: u32 = 0xfe;
    pub(super) const VARIABLE: u32 = 0x200;
    pub(super) const VARIABLE_LAST: u32 = 0x20f;
    pub(super) const DEFAULT: u32 = 0x2ff;
    /// Eleven registers of eight ranges each.
    pub(super) const FIXED: [u32; 11] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
}

/// The registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryTypes {
    /// Base and mask of each.
    variable: [u64; 2 * VARIABLE],
    fixed: [u64; 11],
    default: u64,
}

impl Default for MemoryTypes {
    fn default() -> Self {
        Self { variable: [0; 2 * VARIABLE], fixed: [0; 11], default: WRITE_BACK }
    }
}

const fn is_type(value: u64) -> bool {
    matches!(value & 0xff, 0 | 1 | 4 | 5 | 6)
}

impl MemoryTypes {
    /// As a saved state has them; `None` where a register cannot have its value.
    pub(super) fn of(record: &HvmHwMtrr) -> Option<Self> {
        let mut types = Self::default();
        for (index, value) in (msr::VARIABLE..).zip(record.msr_mtrr_var) {
            types.write(index, value)?;
        }
        for (index, value) in msr::FIXED.into_iter().zip(record.msr_mtrr_fixed) {
            types.write(index, value)?;
        }
        types.write(msr::DEFAULT, record.msr_mtrr_def_type)?;
        super::registers::is_page_attributes(record.msr_pat_cr).then_some(types)
    }

    /// The same, with the page-attribute table.
    pub(super) fn record(&self, page_attributes: u64) -> HvmHwMtrr {
        HvmHwMtrr {
            msr_pat_cr: page_attributes,
            msr_mtrr_var: self.variable,
            msr_mtrr_fixed: self.fixed,
            msr_mtrr_cap: CAPABILITIES,
            msr_mtrr_def_type: self.default,
        }
    }

    /// Reads a register, if it is one of these.
    pub(super) fn read(&self, index: u32) -> Option<u64> {
        match index {
            msr::CAPABILITIES => Some(CAPABILITIES),
            msr::DEFAULT => Some(self.default),
            msr::VARIABLE..=msr::VARIABLE_LAST => Some(self.variable[(index - msr::VARIABLE) as usize]),
            _ => msr::FIXED.iter().position(|fixed| *fixed == index).map(|place| self.fixed[place]),
        }
    }

    /// Writes a register, if it is one of these and can have the value.
    pub(super) fn write(&mut self, index: u32, value: u64) -> Option<()> {
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        let valid = match index {
            msr::DEFAULT => value & !0xcff == 0 && is_type(value),
            msr::VARIABLE..=msr::VARIABLE_LAST if index & 1 == 0 => value & !(ADDRESS | 0xff) == 0 && is_type(value),
            msr::VARIABLE..=msr::VARIABLE_LAST => value & !(ADDRESS | 1 << 11) == 0,
            _ => value.to_le_bytes().iter().all(|kind| is_type((*kind).into())),
        };
        let place = match index {
            msr::DEFAULT => &mut self.default,
            msr::VARIABLE..=msr::VARIABLE_LAST => &mut self.variable[(index - msr::VARIABLE) as usize],
            _ => &mut self.fixed[msr::FIXED.iter().position(|fixed| *fixed == index)?],
        };
        *place = Some(value).filter(|_| valid)?;
        Some(())
    }
}
